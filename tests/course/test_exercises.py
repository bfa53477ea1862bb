"""Blanks fail, solutions pass, and each known misconception is named without giving the answer away."""

import numpy as np
import pytest
import torch
from answers import RIGHT, WRONG
from mutated_solutions import every_mutant, reasons, sampled, survives

from manas_course import checks
from manas_course.checks.base import (
    Attempt,
    Misconception,
    Wrong,
    array,
    checker,
    compare,
    listed,
    number,
    tensor,
    whole,
)
from tools.course import contents, grading, sources

NOTEBOOKS = [notebook for notebook in contents.notebooks() if notebook.exercises]
ALL = sorted({name for notebook in contents.notebooks() for name in notebook.exercises})
SLOW = ("nested_bootstrap", "rank_agreement", "mutants")


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
@pytest.mark.filterwarnings("ignore:var")  # a variance of one rain is what that answer gets wrong
def test_a_misconception_is_recognised(name: str, number: int) -> None:
    attempt, said = WRONG[name][number]
    for seed in range(1 if name in SLOW else 5):
        found = getattr(checks, name)(attempt, seed=seed)
        assert not found.passed
        assert said in found.message, found


def test_nine_wrong_answers_in_ten_are_told_by_name() -> None:
    """ "Another value" is no help; what the code raised is told, and does not count as a name either."""
    outcomes = [getattr(checks, name)(attempt, seed=0) for name, cases in WRONG.items() for attempt, _ in cases]
    assert sum(check.named for check in outcomes) >= 0.9 * len(outcomes)


def test_every_exercise_has_known_wrong_answers() -> None:
    assert [name for name in ALL if len(WRONG.get(name, ())) < 3] == []
    assert [name for name, cases in WRONG.items() if not all(said for _, said in cases)] == []  # "" is in any message


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:var")
@pytest.mark.parametrize("name", sorted(WRONG))
def test_luck_decides_no_verdict(name: str) -> None:
    """A wrong answer is wrong and a right one right, whatever the seed is."""
    for answers, passes in (([f for f, _ in WRONG[name]], False), (RIGHT[name], True)):
        for attempt in answers:
            seeds = range(5 if name in SLOW else 50)
            assert {getattr(checks, name)(attempt, seed=seed).passed for seed in seeds} == {passes}


RIGHT_CASES = [(name, k) for name in sorted(RIGHT) for k in range(len(RIGHT[name]))]


@pytest.mark.parametrize(("name", "number"), RIGHT_CASES, ids=lambda v: str(v))
def test_a_right_answer_passes_however_it_is_written(name: str, number: int) -> None:
    for seed in range(1 if name in SLOW else 5):
        found = getattr(checks, name)(RIGHT[name][number], seed=seed)
        assert found.passed, str(found)


def test_every_exercise_has_another_right_answer() -> None:
    assert sorted(RIGHT) == ALL


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
                for seed in range(2 if name in SLOW else 20):
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


class Unfriendly:
    """It answers to nothing that one may ask of a number, an array or a list."""

    __hash__ = None
    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")

    def __getattr__(self, name: str) -> None:
        raise RuntimeError("no attribute")


STRANGE = [
    None,
    0,
    (),
    "text",
    b"",
    {},
    {1},
    1j,
    float("nan"),
    np.zeros((2, 3, 1)),
    torch.zeros(3, 0),
    Unfriendly(),
    [[1], [2, 3]],
]


def test_a_checker_raises_nothing_whatever_it_is_given() -> None:
    attempts = [None, lambda *_: 1 / 0, lambda: None, lambda *_: (yield), *(lambda *_, v=v: v for v in STRANGE)]
    for attempt in attempts:
        for name in ALL:
            found = getattr(checks, name)(attempt)
            assert not found.passed
            assert "\n" not in found.message


def test_nothing_can_be_dug_out_of_a_checker() -> None:
    for name in ALL:
        check = getattr(checks, name)
        assert not hasattr(check, "__wrapped__")
        assert vars(check) == {}
        assert [cell.cell_contents for cell in check.__closure__ if callable(cell.cell_contents)] == []
        assert check.__doc__.startswith("Check")


# --- the mechanism, on an exercise of its own ---


def a_checker(**options):
    @checker(**options)
    def doubled(attempt, rng):
        """Check attempt(x) -> twice x, of a tensor that requires a gradient."""
        x = torch.from_numpy(rng.normal(size=3)).requires_grad_()
        wrong = [Wrong("squared", lambda x: x * x, "twice, not squared"), Wrong("once", lambda x: x)]
        compare(attempt, {"three numbers": (x,)}, lambda x: 2 * x, wrong, read=tensor)

    return doubled


ONE_LINE = [
    (lambda x: x * x, "three numbers: squared", True),
    (lambda x: x + 0, "three numbers: once", True),
    (lambda x: 3 * x, "expected another answer", False),
    (lambda x: 2 * x.detach(), "no gradient reaches `x`", True),
    (lambda x: 2 * x.detach() + 0 * x, "a part of `x` gets no gradient", True),
    (lambda x: 3 * x - x.detach(), "gradient of `x` is another one", True),
    (lambda x: x.mul_(2), "changes its argument `x`", True),
    (lambda x: x.data.mul_(2) if False else (x.data.zero_(), x)[1], "changes its argument `x`", True),
    (lambda x: print("answer"), "prints its answer", True),
    (lambda x: None, "returns None", True),
    (lambda x: 2.0, "a float, which no gradient gets through", True),
    (lambda x: (2 * x).detach().numpy(), "an array of shape (3,) and type float64", True),
    (lambda x: (2 * x, 1), "a tuple of 2", True),
    (lambda x: 2 * x[:2], "a tensor of shape (2,)", True),
    (lambda x: [][3], "raised IndexError: list index out of range", False),
    (lambda x, y: 2 * x, "missing 1 required positional argument", False),
    (7, "this is an int, not a function", True),
]


@pytest.mark.parametrize(("attempt", "said", "named"), ONE_LINE)
def test_one_helpful_line_on_each_kind_of_answer(attempt, said: str, named: bool) -> None:
    found = a_checker()(attempt)
    assert (found.passed, found.named) == (False, named), found
    assert said in found.message, found


def test_an_error_names_the_line_that_it_comes_from() -> None:
    def attempt(x):
        return torch.cat([x, x.reshape(2, 2)])

    assert "(in `return torch.cat([x, x.reshape(2, 2)])`)" in a_checker()(attempt).message


def test_a_right_answer_that_prints_passes_with_a_note(capsys: pytest.CaptureFixture[str]) -> None:
    found = a_checker(rounds=30)(lambda x: (print("here"), 2 * x)[1])
    assert found.passed
    assert "it prints" in found.message
    assert capsys.readouterr().out.splitlines() == ["here"] * 10 + ["... and 21 more lines"]


def test_each_call_gets_copies_of_its_own() -> None:
    given = []
    values = np.arange(3.0)

    def keep(*args):
        given.append(args)
        return args

    attempt = Attempt(keep)
    for _ in range(2):
        attempt(values, [values], {"a": values}, (values, "text"))
    first, second = given
    arrays = [(a[0], a[1][0], a[2]["a"], a[3][0]) for a in (first, second)]
    assert not any(np.shares_memory(x, y) for x, y in zip(*arrays, strict=True))
    assert not any(np.shares_memory(x, values) for x in arrays[0] + arrays[1])


CHANGES = [
    lambda x: x.sort(),
    lambda x: x.fill(0),
    lambda x: setattr(x, "shape", (3, 1)),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_array_is_told_and_may_be_allowed(change) -> None:
    values = np.array([3.0, 1.0, 2.0])
    with pytest.raises(Misconception, match="changes its argument `x`"):
        Attempt(lambda x: change(x))(values)
    allowed = Attempt(lambda x: change(x), may_write=True)
    allowed(values)
    assert "writes into `x`" in allowed.notes[0]
    assert values.tolist() == [3, 1, 2]


@pytest.mark.parametrize("change", [list.pop, list.clear, lambda x: x.append(1), lambda x: x[0].fill(7), list.reverse])
def test_a_changed_list_is_told(change) -> None:
    with pytest.raises(Misconception, match="changes its argument `x`"):
        Attempt(lambda x: change(x))([np.zeros(2), np.ones(2)])


def test_numbers_of_every_kind_are_read() -> None:
    for value in (
        2,
        2.0,
        np.float32(2),
        np.array([2]),
        torch.tensor([[2.0]]),
        np.int8(2),
        torch.tensor(2, dtype=torch.float16),
    ):
        assert number(value) == 2
        assert whole(value) == 2
    assert whole(9**60) == 9**60
    for value in ("2", [2.0], 2j, np.zeros(2), (2,), {}, np.array("2")):
        with pytest.raises(Misconception, match="one number is asked for"):
            number(value)
    with pytest.raises(Misconception, match="no whole number"):
        whole(2.5)
    assert listed(np.array([1, 2]), []) == [1, 2]
    assert array(torch.ones(2), np.zeros(2)).tolist() == [1, 1]
    with pytest.raises(Misconception, match="type uint8 is asked for"):
        array(np.zeros(2), np.zeros(2, np.uint8))


def test_chance_is_fixed_within_a_check_and_left_alone_outside() -> None:
    drawn = []
    torch.manual_seed(5)
    before = torch.get_rng_state()
    check = a_checker(rounds=1, fresh=False)
    for _ in range(2):
        check(lambda x: (drawn.append((torch.rand(1).item(), np.random.rand())), 2 * x)[1])  # noqa: NPY002
    assert drawn[0] == drawn[1]
    assert torch.equal(before, torch.get_rng_state())


def test_the_misconception_that_explains_most_is_named() -> None:
    @checker
    def halves(attempt, rng):
        cases = {str(n): (n,) for n in (0, 2, 3, 4)}
        wrong = [Wrong("whole halves", lambda n: n // 2), Wrong("always one", lambda n: 1)]
        compare(attempt, cases, lambda n: n / 2, wrong)

    assert halves(lambda n: n // 2).message == "3: whole halves"
    assert halves(lambda n: 1).message == "0: always one"
    assert "another number" in halves(lambda n: 5).message


# --- solutions, each changed in one small place ---


def test_a_changed_solution_fails_or_has_a_reason_to_pass() -> None:
    known = reasons()
    assert [mutant.key for mutant in sampled(40) if mutant.key not in known and survives(mutant)] == []


@pytest.mark.slow
def test_one_changed_solution_in_twenty_passes_at_most_and_each_has_a_reason() -> None:
    """The list is what `python tests/course/mutated_solutions.py` writes, with a reason for each."""
    tried, known = every_mutant(), reasons()
    alive = [mutant.key for mutant in tried if survives(mutant)]
    assert sorted(alive) == sorted(known)
    assert all(known.values())
    assert len(alive) <= 0.05 * len(tried)
