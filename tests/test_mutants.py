"""scripts/mutants.py: what it changes in a text, and what it leaves alone."""

import ast
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "mutants.py"
TEXT = '''
"""A docstring."""
from typing import Literal
Kind = Literal["a", "b"]
LIMIT = 3

class Rule:
    """Another docstring."""
    share: float | None = 0.5

    def holds(self, x: int, y: int) -> bool:
        """Say whether it holds."""
        if x < y and not self.share:
            raise ValueError(f"x is {x}")
        assert x is not None
        self.last = max(x, y) - LIMIT
        return all(zip(f(y, x, wide=True), range(3), strict=True))
'''


@pytest.fixture(scope="module")
def mutants() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mutants", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def changes(mutants: ModuleType, text: str = TEXT) -> list[tuple[str, str, str]]:
    return [(m.function, m.operator, m.change) for m in mutants.mutants_of(ast.parse(text))]


def test_the_changes_are_these(mutants):
    holds = "Rule.holds"
    assert sorted(changes(mutants)) == sorted(
        [
            ("", "constant", "3 -> 4"),
            ("Rule", "constant", "0.5 -> 1.0"),
            (holds, "condition", "x < y and (not self.share) -> not (x < y and (not self.share))"),
            (holds, "boolean", "x < y and (not self.share) -> x < y or not self.share"),
            (holds, "comparison", "x < y -> x <= y"),
            (holds, "boolean", "not self.share -> self.share"),
            (holds, "statement", "raise ValueError(f'x is {x}') -> (nothing)"),
            (holds, "statement", "self.last = max(x, y) - LIMIT -> (nothing)"),
            (holds, "arithmetic", "max(x, y) - LIMIT -> max(x, y) + LIMIT"),
            (holds, "opposite", "max -> min"),
            (holds, "return", "return all(zip(f(y, x, wide=True), range(3), strict=True)) -> return None"),
            (holds, "opposite", "all -> any"),
            (holds, "swap", "zip(f(y, x, wide=True), range(3), strict=True) -> "
             "zip(range(3), f(y, x, wide=True), strict=True)"),
            (holds, "swap", "f(y, x, wide=True) -> f(x, y, wide=True)"),
            (holds, "argument", "f(y, x, wide=True) -> without wide=True"),
            (holds, "constant", "True -> False"),
            (holds, "constant", "3 -> 4"),
        ]
    )  # fmt: skip


def test_every_mutant_is_another_program_that_compiles(mutants):
    source = (SCRIPT.parents[1] / "manas_lite" / "bilevel.py").read_text(encoding="utf-8")
    before = ast.dump(ast.parse(source))
    for index in range(0, len(mutants.mutants_of(ast.parse(source))), 5):
        tree = ast.parse(source)
        mutants.mutants_of(tree)[index].apply()
        assert ast.dump(tree) != before
        compile(ast.fix_missing_locations(tree), "mutant", "exec")


def test_a_result_outlives_comments_and_docstrings_and_no_other_edit(mutants):
    def digests(text: str) -> set[str]:
        return {m.digest for m in mutants.mutants_of(ast.parse(text)) if m.function == "Rule.holds"}

    assert digests(TEXT) == digests(TEXT.replace("Say whether", "Return whether").replace("= 3\n", "= 4  # more\n"))
    assert digests(TEXT) != digests(TEXT.replace("range(3)", "range(4)"))


def test_the_table_names_modules_and_tests_that_exist(mutants):
    for module in mutants.TESTS:
        assert mutants.source_of(module).is_file(), module
        for file in mutants.files_of(module):
            assert (mutants.ROOT / file).is_file(), file
