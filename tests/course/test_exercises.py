"""Blanks fail, solutions pass, and each known misconception is named without giving the answer away."""

import pytest
import torch
from answers import WRONG

from manas_course import checks
from tools.course import contents, grading, sources

NOTEBOOKS = [notebook for notebook in contents.notebooks() if notebook.exercises]
ALL = sorted({name for notebook in contents.notebooks() for name in notebook.exercises})


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda n: n.stem)
def test_blanks_fail_and_solutions_pass(notebook: contents.Notebook) -> None:
    blank = grading.check_cells(notebook, sources.build(notebook, "student"))
    solved = grading.check_cells(notebook, sources.build(notebook, "solution"))
    assert [check.exercise for check in blank] == list(notebook.exercises)
    assert [check.message for check in blank if "not filled in" not in check.message] == []
    assert not any(check.passed for check in blank)
    assert [str(check) for check in solved if not check.passed] == []


CASES = [(name, k) for name in sorted(WRONG) for k in range(len(WRONG[name]))]


@pytest.mark.parametrize(("name", "number"), CASES, ids=lambda v: str(v))
def test_a_misconception_is_recognised(name: str, number: int) -> None:
    attempt, said = WRONG[name][number]
    for seed in range(5):
        found = getattr(checks, name)(attempt, seed=seed)
        assert not found.passed
        assert said in found.message, found


def test_every_exercise_has_known_wrong_answers() -> None:
    assert [name for name in ALL if name not in WRONG] == []
    assert [name for name, cases in WRONG.items() if not all(said for _, said in cases)] == []  # "" is in any message


def test_a_solution_passes_whatever_the_random_inputs() -> None:
    """A checker that fails a right answer now and then would be worse than none."""
    for notebook in NOTEBOOKS:
        scope = {"__name__": "exercises"}
        for cell in sources.build(notebook, "solution").cells:
            if {"imports", "exercise"} & set(sources.tags(cell)):
                exec(cell.source, scope)
        for cell in sources.build(notebook).cells:
            if "check" in sources.tags(cell):
                name, _, argument = cell.source.removeprefix("checks.").rstrip(")").partition("(")
                repeats = 3 if name in ("nested_bootstrap", "mutants", "rank_agreement") else 20
                for seed in range(repeats):
                    result = getattr(checks, name)(scope[argument], seed=seed)
                    assert result.passed, (seed, str(result))


def test_the_price_of_edges_may_be_a_matrix_product() -> None:
    """It takes two tensors of one type, and torch.tensor makes float32 of Python's numbers."""
    for seed in range(5):
        result = checks.expected_cost(
            lambda logits, operations, cost: (logits.softmax(1) @ torch.tensor([cost[o] for o in operations])).sum(),
            seed=seed,
        )
        assert result.passed, str(result)


def test_a_checker_raises_nothing_whatever_it_is_given() -> None:
    for attempt in (None, lambda *_: None, lambda *_: 1 / 0, lambda: None):
        for name in ALL:
            assert not getattr(checks, name)(attempt).passed
