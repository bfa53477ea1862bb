"""Solutions of the exercises, each changed in one small place, and what the checkers say to them.

    python tests/course/mutated_solutions.py        all of them; writes results/mutation/solutions.csv

A changed solution that a checker lets pass is a survivor. Why it may live stands in the column `reason`.
"""

import ast
import copy
import csv
import importlib.util
import random
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
SURVIVORS = ROOT / "results" / "mutation" / "solutions.csv"
FIELDS = ("exercise", "operator", "change", "count", "reason")
LIMIT_S = 60
MODULES = ("np", "torch", "stats", "nn", "boxes")
CONVERSIONS = ("tolist", "tuple")
"""What these return is as good as what they are given: a checker reads tuples, arrays and lists alike."""
SYMMETRIC = ("kendalltau", "allclose", "iou", "clip")
"""A swap of the first two arguments changes nothing: clip(x, 0, 1) and clip(0, x, 1) are min(max(x, 0), 1)."""


class Mutated(NamedTuple):
    """A solution with one change."""

    exercise: str
    operator: str
    change: str
    count: int
    """Tells equal changes of one solution apart."""
    source: str
    """The changed cell."""
    scope: dict[str, Any]
    """What the notebook imports."""
    function: str
    """The name of the function that is handed to the checker."""

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.exercise, self.operator, self.change, str(self.count)


def solutions() -> Iterator[tuple[str, str, dict[str, Any], str]]:
    """Yield each exercise: its name, its solved cell, what its notebook imports, and its function's name."""
    from tools.course import contents, sources

    for notebook in contents.notebooks():
        scope: dict[str, Any] = {"__name__": "exercises"}
        cells = {}
        for cell in sources.build(notebook, "solution").cells:
            tags = sources.tags(cell)
            if "imports" in tags:
                exec(cell.source, scope)
            elif "exercise" in tags:
                cells[tags[1].partition(":")[2]] = cell.source
            elif "check" in tags:
                name, _, function = cell.source.removeprefix("checks.").rstrip(")").partition("(")
                yield name, cells[name], scope, function


def mutated(name: str, cell: str, scope: dict[str, Any], function: str) -> list[Mutated]:
    """Return a solution's mutants: those of scripts/mutants.py, and calls that are left out."""
    found: list[Mutated] = []
    tree = _assertions_as_conditions(ast.parse(cell))
    counts: dict[tuple[str, str], int] = {}
    for k, (operator, change, _) in enumerate(_changes(tree)):
        other = copy.deepcopy(tree)
        _changes(other)[k][2]()
        counts[operator, change] = count = counts.get((operator, change), 0) + 1
        source = ast.unparse(ast.fix_missing_locations(other))
        found.append(Mutated(name, operator, change, count, source, scope, function))
    return found


def _changes(tree: ast.Module) -> list[tuple[str, str, Callable[[], None]]]:
    script = _script()
    small = [
        (mutant.operator, mutant.change, mutant.apply)
        for mutant in script.mutants_of(tree)
        if mutant.operator != "swap" or not mutant.change.split("(")[0].endswith(SYMMETRIC)
    ]
    return small + [change for node in ast.walk(tree) for change in _calls_left_out(node)]


def _calls_left_out(node: ast.AST) -> Iterator[tuple[str, str, Callable[[], None]]]:
    """Yield, for each call below a node, the change to what it is called on: `x.clone()` to `x`, `f(x)` to `x`."""
    for field, value in ast.iter_fields(node):
        for place, call in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(call, ast.Call) or isinstance(node, ast.Expr | ast.Raise):
                continue
            if _name_of(call) in CONVERSIONS:
                continue
            of_module = isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) in MODULES
            method = isinstance(call.func, ast.Attribute) and not of_module
            inner = call.func.value if method else (call.args or [None])[0]  # type: ignore[attr-defined]
            if inner is None or isinstance(inner, ast.Starred | ast.GeneratorExp):
                continue
            put = (
                partial(value.__setitem__, place, inner)
                if isinstance(value, list)
                else partial(setattr, node, field, inner)
            )
            yield "call", f"{ast.unparse(call)} -> {ast.unparse(inner)}", put


def _name_of(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _assertions_as_conditions(tree: ast.Module) -> ast.Module:
    """Write `assert x` as `if not x: raise AssertionError`, which the mutator changes as it does other conditions."""

    class Rewriter(ast.NodeTransformer):
        def visit_Assert(self, node: ast.Assert) -> ast.AST:
            raised = ast.Raise(ast.Call(ast.Name("AssertionError", ast.Load()), [], []))
            return ast.copy_location(ast.If(ast.UnaryOp(ast.Not(), node.test), [raised], []), node)

    return ast.fix_missing_locations(Rewriter().visit(tree))


def _script() -> Any:
    """Return scripts/mutants.py as a module."""
    if "mutants_script" not in sys.modules:
        spec = importlib.util.spec_from_file_location("mutants_script", ROOT / "scripts" / "mutants.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["mutants_script"] = module
        spec.loader.exec_module(module)
    return sys.modules["mutants_script"]


def survives(mutant: Mutated) -> bool:
    """Return whether the checker lets a mutant pass. One that goes on for ever does not."""
    from manas_course import checks

    def give_up(*_: Any) -> None:
        raise TimeoutError("goes on for ever")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(LIMIT_S)
    try:
        scope = dict(mutant.scope)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(mutant.source, scope)
            return bool(getattr(checks, mutant.exercise)(scope[mutant.function], seed=0).passed)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def every_mutant() -> list[Mutated]:
    """Return the mutants of all solutions."""
    return [mutant for solution in solutions() for mutant in mutated(*solution)]


def sampled(count: int, seed: int = 0) -> list[Mutated]:
    """Return some mutants of the solutions, those of slow checkers left out."""
    quick = [m for m in every_mutant() if m.exercise not in ("nested_bootstrap", "rank_agreement", "mutants")]
    return random.Random(seed).sample(quick, count)


def reasons() -> dict[tuple[str, ...], str]:
    """Return why each known survivor may live, by its key."""
    with open(SURVIVORS, newline="", encoding="utf-8") as file:
        return {tuple(row[field] for field in FIELDS[:4]): row["reason"] for row in csv.DictReader(file)}


def main() -> None:
    """Try every mutant, and write the survivors; the reasons of known ones are kept."""
    known = reasons() if SURVIVORS.exists() else {}
    tried = every_mutant()
    alive = [mutant for mutant in tried if survives(mutant)]
    with open(SURVIVORS, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(FIELDS)
        rows.writerows([*mutant.key, known.get(mutant.key, "")] for mutant in alive)
    print(f"{len(tried)} mutants of the solutions tried, {len(alive)} survived ({len(alive) / len(tried):.1%})")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
