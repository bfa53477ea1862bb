"""Change the code in one small place, run the tests, and see whether one fails: which lines do no tests hold to?

    python scripts/mutants.py                          every module of the table below, as far as it is not done yet
    python scripts/mutants.py --only bilevel           modules whose name holds this text (may be given several times)
    python scripts/mutants.py --sample 200 --seed 1    this many mutants of them, drawn at random
    python scripts/mutants.py --survivors              those not killed, once more: after writing tests
    python scripts/mutants.py --page                   docs/mutation.md from the results, and nothing else

Results go to results/mutation/mutants.csv after every mutant, so a run can be stopped and continued. A result counts as
long as the function that it is of stays as it was. Why a survivor may live stands in results/mutation/reasons.csv.

No file is changed: a mutant lives in a child process alone. The parent has imported torch, and a child starts as a copy
of it, imports the package with one changed module, and runs the tests that reach the changed line, the fastest first,
until one fails. That takes about a second per mutant. Not changed are annotations, docstrings, decorators, error
messages, asserts and `strict=`.
"""

import argparse
import ast
import contextlib
import csv
import gc
import hashlib
import importlib
import importlib.abc
import importlib.util
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results" / "mutation" / "mutants.csv"
REASONS = ROOT / "results" / "mutation" / "reasons.csv"
PAGE = ROOT / "docs" / "mutation.md"
FIELDS = ("module", "function", "line", "operator", "change", "count", "outcome", "by", "digest")
GRACE_S = 30
MEMORY = 12 << 30

HAND, RESUME = "test_steps_by_hand", "test_resume"
TESTS: dict[str, tuple[str, ...]] = {
    "bilevel": ("test_bilevel",),
    "losses": ("test_losses", "test_extending", "test_settings", "test_older_runs"),
    "networks.relaxation": ("test_relaxation", "test_backbone"),
    "networks.ops": ("test_ops", "test_space", "test_attention", "test_extending"),
    "networks.modules": ("test_modules", "test_space", "test_backbone"),
    "networks.attention": ("test_attention", "test_modules", "test_backbone"),
    "networks.recomputing": ("test_recomputing",),
    "networks.backbone": ("test_backbone", "test_recomputing", "test_tiling", "test_space"),
    "networks.space": ("test_space", "test_genotype", "test_settings", "test_backbone"),
    "networks.costs": ("test_space",),
    "networks.genotype": ("test_genotype", "test_space", "test_discretize"),
    "networks.nets": ("test_backbone", "test_discretize", "test_relaxation"),
    "networks.discretize": ("test_discretize", HAND),
    "networks.budget": ("test_budget",),
    "training.loop": (HAND, "test_training", "test_searching", RESUME, "test_memory_switches", "test_record"),
    "training.monitoring": ("test_searching",),
    "training.retraining": (HAND, "test_training", RESUME),
    "training.searching": (HAND, "test_searching", RESUME),
    "training.schedules": ("test_searching", "test_training", "test_settings"),
    "training.evaluation": ("test_inference", "test_training"),
    "training.balance": ("test_balance", "test_searching"),
    "training.paths": ("test_paths",),
    "training.demo": ("test_demo",),
    "photos.zoo": ("test_zoo", "test_inference", "test_models"),
}
"""The tests of each module, the nearest first. A mutant must survive them all to count as a survivor."""


# --- mutants ---

COMPARISONS = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
ARITHMETIC = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
OPPOSITES = {"min": "max", "amin": "amax", "argmin": "argmax", "any": "all", "mean": "sum", "zeros": "ones"}
OPPOSITES |= {new: old for old, new in OPPOSITES.items()} | {"zeros_like": "ones_like", "new_zeros": "new_ones"}
SYMMETRIC = {"min", "max", "maximum", "minimum", "isinstance", "set"}  # a swap of their arguments changes nothing
NOT_DROPPED = {"strict", "repr"}
MESSAGES = {"say", "print", "warn"}


@dataclass
class Mutant:
    """One change. `apply` makes it in the tree that the mutant was found in."""

    function: str
    first: int
    last: int
    operator: str
    change: str
    apply: Callable[[], None]
    digest: str
    count: int = 0
    """Tells equal changes in one function apart."""

    def key(self, module: str) -> tuple[str, ...]:
        return module, self.function, self.operator, self.change, str(self.count)


def mutants_of(tree: ast.Module) -> list[Mutant]:
    """Return every mutant of a module, in the order of its text."""
    found: list[Mutant] = []
    seen: Counter = Counter()
    for node, (function, digest, statement) in _places(tree):
        first, last = statement.lineno, statement.end_lineno or statement.lineno
        body = getattr(statement, "body", None)
        if isinstance(body, list) and body:
            last = max(first, body[0].lineno - 1)  # the head of a compound statement
        for operator, old, new, apply in _changes(node):
            change = f"{_short(old)} -> {new if isinstance(new, str) else _short(new)}"
            seen[function, operator, change] += 1
            count = seen[function, operator, change]
            found.append(Mutant(function, first, last, operator, change, apply, digest, count))
    return found


def _short(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 70 else text[:67] + "..."


def _places(tree: ast.Module) -> Iterator[tuple[ast.AST, tuple[str, str, ast.stmt]]]:
    """Yield the nodes that may be changed, each with its function, that function's digest, and its statement."""

    def walk(node: ast.AST, place: tuple[str, str, ast.stmt]) -> Iterator[tuple[ast.AST, tuple[str, str, ast.stmt]]]:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            if isinstance(node, ast.ClassDef) and any(ast.unparse(base) == "Protocol" for base in node.bases):
                return
            name = f"{place[0]}.{node.name}".lstrip(".")
            inner = isinstance(node, ast.FunctionDef) and place[0] and not place[0][0].isupper()
            place = (place[0] if inner else name), (place[1] if inner else _digest(node)), node
        elif isinstance(node, ast.stmt):
            place = place[0], place[1] or _digest(node), node
        yield node, place
        for child in _children(node):
            yield from walk(child, place)

    for statement in tree.body:
        yield from walk(statement, ("", "", statement))


def _digest(node: ast.stmt) -> str:
    """Name the meaning of a statement: comments, line breaks and docstrings do not count."""
    copy = ast.parse(ast.unparse(node))
    for inner in ast.walk(copy):
        body = getattr(inner, "body", None)
        if isinstance(body, list):
            inner.body = [s for s in body if not _is_text(s)]  # type: ignore[attr-defined]
    return hashlib.sha256(ast.dump(copy).encode()).hexdigest()[:8]


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what may be changed below a node: no annotation, docstring, decorator, message or assert."""
    if isinstance(node, ast.Import | ast.ImportFrom | ast.Raise | ast.Assert | ast.JoinedStr) or _is_text(node):
        return
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call | ast.Subscript):
        of = node.value.func if isinstance(node.value, ast.Call) else node.value.value
        if ast.unparse(of) in ("TypeVar", "Literal", "Callable"):
            return
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "bases", "type_comment"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.keyword) and child.arg in NOT_DROPPED:
                continue
            if isinstance(node, ast.Call) and _name_of(node) in MESSAGES and isinstance(child, ast.Constant):
                continue
            if isinstance(child, ast.AST):
                yield child


def _name_of(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


Change = tuple[str, ast.AST, ast.AST | str, Callable[[], None]]


def _changes(node: ast.AST) -> Iterator[Change]:
    """Yield (operator, old, new, function that makes the change) for one node."""

    def put(owner: Any, field: str, value: Any) -> Callable[[], None]:
        return lambda: setattr(owner, field, value)

    def become(new: ast.AST) -> Callable[[], None]:
        """Turn the node into another, in its place."""

        def apply() -> None:
            ast.copy_location(new, node)
            inner = ast.copy_location(_copy(node), node)
            for child in ast.walk(new):
                for field, value in ast.iter_fields(child):
                    if value is node:
                        setattr(child, field, inner)
            node.__class__ = new.__class__  # type: ignore[assignment]
            node.__dict__.clear()
            node.__dict__.update(new.__dict__)

        return apply

    if isinstance(node, ast.Compare):
        for i, operator in enumerate(node.ops):
            if new := COMPARISONS.get(type(operator)):
                ops = [*node.ops[:i], new(), *node.ops[i + 1 :]]
                yield "comparison", node, ast.Compare(node.left, ops, node.comparators), put(node, "ops", ops)
    elif isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC and not _of_texts(node):
        op = ARITHMETIC[type(node.op)]()
        yield "arithmetic", node, ast.BinOp(node.left, op, node.right), put(node, "op", op)
    elif isinstance(node, ast.BoolOp):
        op = ast.And() if isinstance(node.op, ast.Or) else ast.Or()
        yield "boolean", node, ast.BoolOp(op, node.values), put(node, "op", op)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not):
        yield "sign" if isinstance(node.op, ast.USub) else "boolean", node, node.operand, become(node.operand)
    elif isinstance(node, ast.Constant):
        if new := _other_constant(node.value):
            yield "constant", node, ast.Constant(new[0]), put(node, "value", new[0])
    elif isinstance(node, ast.Call):
        yield from _call_changes(node, put)
    elif isinstance(node, ast.Attribute) and node.attr in OPPOSITES and isinstance(node.ctx, ast.Load):
        new_name = OPPOSITES[node.attr]
        yield "opposite", node, ast.Attribute(node.value, new_name, ast.Load()), put(node, "attr", new_name)
    elif isinstance(node, ast.Name) and node.id in OPPOSITES and isinstance(node.ctx, ast.Load):
        yield "opposite", node, ast.Name(OPPOSITES[node.id]), put(node, "id", OPPOSITES[node.id])

    if isinstance(node, ast.If | ast.While | ast.IfExp):
        negated = ast.UnaryOp(ast.Not(), node.test)
        yield "condition", node.test, negated, put(node, "test", negated)
    if isinstance(node, ast.comprehension):
        for i, test in enumerate(node.ifs):
            ifs = [*node.ifs[:i], ast.UnaryOp(ast.Not(), test), *node.ifs[i + 1 :]]
            yield "condition", test, ifs[i], put(node, "ifs", ifs)

    if isinstance(node, ast.AugAssign):
        op = ARITHMETIC.get(type(node.op))
        if op is not None:
            yield "arithmetic", node, ast.AugAssign(node.target, op(), node.value), put(node, "op", op())
    kept_out = isinstance(node, ast.Assign) and all(isinstance(t, ast.Attribute | ast.Subscript) for t in node.targets)
    called = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    if kept_out or called or isinstance(node, ast.AugAssign | ast.Raise | ast.Break | ast.Continue):
        yield "statement", node, "(nothing)", become(ast.Pass())
    nothing = isinstance(node, ast.Return) and isinstance(node.value, ast.Constant) and node.value.value is None
    if isinstance(node, ast.Return) and node.value is not None and not nothing:
        yield "return", node, "return None", put(node, "value", ast.Constant(None))


def _call_changes(node: ast.Call, put: Callable[..., Callable[[], None]]) -> Iterator[Change]:
    args = node.args
    if len(args) >= 2 and not any(isinstance(a, ast.Starred) for a in args[:2]) and _name_of(node) not in SYMMETRIC:
        swapped = [args[1], args[0], *args[2:]]
        if ast.dump(args[0]) != ast.dump(args[1]):
            yield "swap", node, ast.Call(node.func, swapped, node.keywords), put(node, "args", swapped)
    for i, keyword in enumerate(node.keywords):
        if keyword.arg is not None and keyword.arg not in NOT_DROPPED:
            fewer = [*node.keywords[:i], *node.keywords[i + 1 :]]
            yield "argument", node, f"without {ast.unparse(keyword)}", put(node, "keywords", fewer)


def _of_texts(node: ast.BinOp) -> bool:
    return any(isinstance(side, ast.JoinedStr) for side in (node.left, node.right))


def _other_constant(value: Any) -> tuple[Any] | None:
    """Return another constant in place of one, in a tuple, or None."""
    if isinstance(value, bool):
        return (not value,)
    if isinstance(value, int):
        return (value + 1,)
    if isinstance(value, float):
        return (2 * value if value else 1.0,)
    if isinstance(value, str):
        return (value + "XX",)
    return None


def _copy(node: ast.AST) -> ast.AST:
    new = node.__class__.__new__(node.__class__)
    new.__dict__.update(node.__dict__)
    return new


# --- children ---


class MutatedModule(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives one module's name the code of a changed tree."""

    def __init__(self, name: str, path: Path, tree: ast.Module) -> None:
        self.name, self.path, self.tree = name, path, tree

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        return (
            importlib.util.spec_from_file_location(fullname, self.path, loader=self) if fullname == self.name else None
        )

    def create_module(self, spec: Any) -> None:
        return None

    def exec_module(self, module: Any) -> None:
        exec(compile(ast.fix_missing_locations(self.tree), self.path, "exec"), module.__dict__)


class Tests:
    """A pytest plugin: keeps to the tests asked for, in their order, and tells of the one that failed."""

    def __init__(self, wanted: list[str] | None = None) -> None:
        self.wanted = None if wanted is None else {name: i for i, name in enumerate(wanted)}
        self.failed: str | None = None

    def pytest_collection_modifyitems(self, items: list) -> None:
        if self.wanted is not None:
            items[:] = sorted(
                (item for item in items if item.nodeid in self.wanted), key=lambda item: self.wanted[item.nodeid]
            )

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and self.failed is None:
            self.failed = report.nodeid

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed and self.failed is None:
            self.failed = f"{report.nodeid} (import)"


class Trace(Tests):
    """Also notes which lines of a module each test runs, and how long it takes."""

    def __init__(self, module: str, path: Path) -> None:
        super().__init__()
        self.module, self.path = module, str(path)
        self.lines: dict[str, set[int]] = defaultdict(set)
        self.seconds: dict[str, float] = defaultdict(float)
        self.now: set[int] = set()

    def _trace(self, frame: Any, event: str, arg: Any) -> Any:
        if frame.f_code.co_filename != self.path:
            return None
        self.now.add(frame.f_lineno)
        return self._trace

    def pytest_runtest_logstart(self, nodeid: str, location: Any) -> None:
        for value in vars(sys.modules.get(self.module, object)).values():
            if hasattr(value, "cache_clear"):  # else only the first test would be seen to reach what is cached
                value.cache_clear()
        self.now = self.lines[nodeid]
        sys.settrace(self._trace)

    def pytest_runtest_logreport(self, report: Any) -> None:
        super().pytest_runtest_logreport(report)
        self.seconds[report.nodeid] += report.duration
        if report.when == "setup":  # a fixture that tests of a file share runs in the first one that asks for it
            self.lines[report.nodeid.split("::")[0]] |= self.now

    def pytest_runtest_logfinish(self, nodeid: str, location: Any) -> None:
        sys.settrace(None)


def run_tests(files: list[str], plugin: Tests) -> str | None:
    """Run tests in this process, without a word, until the first failure; return its name."""
    import hypothesis
    import pytest

    hypothesis.settings.register_profile(
        "mutants", database=None, derandomize=True, phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate]
    )
    hypothesis.settings.load_profile("mutants")
    folder = tempfile.mkdtemp(prefix="mutants-")
    options = ["-x", "-q", "--tb=no", "-m", "not slow", "-p", "no:cacheprovider", "-p", "no:xdist"]
    try:
        code = pytest.main([*options, f"--basetemp={folder}/pytest", *files], plugins=[plugin])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return plugin.failed or (None if code in (0, 5) else f"pytest ended with {code}")


def in_child(work: Callable[[], Any], limit_s: float) -> tuple[str, Any]:
    """Do some work in a copy of this process; return ("done", its result), ("timeout", None) or ("died", None)."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)  # to be ended with all that it starts; a new session would lose the low priority
        os.close(read)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        status = 1
        with contextlib.suppress(BaseException):
            with os.fdopen(write, "w") as pipe:
                json.dump(work(), pipe)
            status = 0
        os._exit(status)
    os.close(write)
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(TimeoutError))
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    text, outcome = "", "died"
    try:
        with os.fdopen(read) as pipe:
            text = pipe.read()
    except TimeoutError:
        outcome = "timeout"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    try:
        return ("done", json.loads(text)) if outcome == "died" else (outcome, None)
    except json.JSONDecodeError:
        return outcome, None


# --- one module ---


def source_of(module: str) -> Path:
    return ROOT / "manas_lite" / (module.replace(".", "/") + ".py")


def files_of(module: str) -> list[str]:
    return [f"tests/{name}.py" for name in TESTS[module]]


def measure(module: str) -> dict[str, Any]:
    """Run the tests of a module unchanged; return the lines that each reaches, its seconds, and what they import."""

    def work() -> dict[str, Any]:
        trace = Trace(f"manas_lite.{module}", source_of(module))
        failed = run_tests(files_of(module), trace)
        ours = (str(ROOT), os.path.dirname(os.__file__) + "/encodings")
        loaded = [
            name
            for name, held in list(sys.modules.items())
            if getattr(held, "__file__", None) and not str(held.__file__).startswith(ours) and "conftest" not in name
        ]
        lines = {name: sorted(found) for name, found in trace.lines.items()}
        return {"failed": failed, "lines": lines, "seconds": trace.seconds, "loaded": loaded}

    outcome, found = in_child(work, 1800)
    if outcome != "done" or found["failed"]:
        sys.exit(f"{module}: its tests must pass before it is changed: {found['failed'] if found else outcome}")
    with open(os.devnull, "w") as silence, contextlib.redirect_stderr(silence):
        for name in found["loaded"]:  # once, here, and not again in every child
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    gc.freeze()
    return found


def try_mutant(module: str, index: int, mutant: Mutant, facts: dict[str, Any]) -> tuple[str, str]:
    """Return ("killed", the test), ("timeout", the tests' file) or ("survived", "")."""
    reached = set(range(mutant.first, mutant.last + 1))
    at_import = not any(reached & set(lines) for lines in facts["lines"].values())
    for file in files_of(module):
        shared = facts["lines"].get(file, ())
        tests = [name for name in facts["seconds"] if name.split("::")[0] == file]
        if not at_import and not reached & set(shared):
            tests = [name for name in tests if reached & set(facts["lines"][name])]
        if not tests:
            continue
        tests.sort(key=lambda name: facts["seconds"][name])

        def work(file: str = file, tests: list[str] = tests) -> str | None:
            path = source_of(module)
            tree = ast.parse(path.read_text(encoding="utf-8"))
            mutants_of(tree)[index].apply()
            sys.meta_path.insert(0, MutatedModule(f"manas_lite.{module}", path, tree))
            return run_tests([file], Tests(tests))

        limit = GRACE_S + 8 * sum(facts["seconds"][name] for name in tests)
        outcome, failed = in_child(work, limit)
        if outcome == "timeout":
            return "timeout", file
        if outcome == "died" or failed:
            return "killed", failed or f"{file} (the process died)"
    return "survived", ""


# --- results ---


def read_rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def key_of(row: dict[str, str]) -> tuple[str, ...]:
    return tuple(row[name] for name in ("module", "function", "operator", "change", "count"))


def write_rows(rows: dict[tuple[str, ...], dict[str, str]]) -> None:
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    order = {module: i for i, module in enumerate(TESTS)}
    temporary = RESULTS.with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            sorted(rows.values(), key=lambda row: (order.get(row["module"], 99), int(row["line"]), key_of(row)))
        )
    os.replace(temporary, RESULTS)


def wanted_mutants(only: list[str]) -> list[tuple[str, int, Mutant]]:
    return [
        (module, index, mutant)
        for module in TESTS
        if not only or any(text in module for text in only)
        for index, mutant in enumerate(mutants_of(ast.parse(source_of(module).read_text(encoding="utf-8"))))
    ]


def run(only: list[str], sample: int | None, seed: int, again: bool) -> None:
    rows = {key_of(row): row for row in read_rows(RESULTS)}
    mutants = wanted_mutants(only)
    now = {mutant.key(module): mutant for module, _, mutant in wanted_mutants([])}
    for key, row in list(rows.items()):
        if key not in now or now[key].digest != row["digest"]:
            del rows[key]  # the function is another one today
        else:
            row["line"] = str(now[key].first)
    if sample is not None:
        mutants = sorted(random.Random(seed).sample(mutants, min(sample, len(mutants))), key=lambda m: m[:2])
    todo = [
        (module, index, mutant)
        for module, index, mutant in mutants
        if (row := rows.get(mutant.key(module))) is None or (again and row["outcome"] != "killed")
    ]
    facts: dict[str, Any] = {}
    start = time.monotonic()
    for number, (module, index, mutant) in enumerate(todo):
        if module not in facts:
            facts = {module: measure(module)}
        outcome, by = try_mutant(module, index, mutant, facts[module])
        row = dict(zip(FIELDS[:6], (*mutant.key(module)[:2], str(mutant.first), *mutant.key(module)[2:]), strict=True))
        rows[mutant.key(module)] = {**row, "outcome": outcome, "by": by, "digest": mutant.digest}
        write_rows(rows)
        each = (time.monotonic() - start) / (number + 1)
        print(
            f"{number + 1}/{len(todo)} {each:.1f} s each  {outcome:<8} {module}:{mutant.first} {mutant.change}",
            flush=True,
        )


# --- the page ---

INTRODUCTION = """\
# Mutants: which lines do the tests hold to?

Written by `python scripts/mutants.py --page` from results/mutation/mutants.csv and reasons.csv; that script makes one
small change at a time and runs the tests that reach it. A *survivor* is a change that no test sees. It is either
*equivalent* (the program does the same, or differs in speed or in the last bit alone), or it shows a missing test.

The libraries were looked at first. `cosmic-ray` starts a new process per mutant, and importing torch takes three
seconds. `mutmut` 3 forks as this script does, but skips functions with decorators (`@property`, `@torch.no_grad()`,
`@cache`) and everything outside functions (registries, constants, defaults of settings), which hold much of this kit's
meaning. Tests marked slow, and tests that start processes of their own, are left out.
"""


def page() -> str:
    """Return the text of docs/mutation.md."""
    now = {mutant.key(module): mutant for module, _, mutant in wanted_mutants([])}
    rows = {key_of(row): row for row in read_rows(RESULTS)}
    rows = {key: row for key, row in rows.items() if key in now and row["digest"] == now[key].digest}
    reasons = {key_of(row): row for row in read_rows(REASONS)}
    lines = [
        INTRODUCTION,
        "| module | mutants | run | killed | out of time | survive | of them equivalent | share that tests miss |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    sums = [0] * 6
    for module in TESTS:
        mine = [row for row in rows.values() if row["module"] == module]
        outcomes = Counter(row["outcome"] for row in mine)
        equivalent = sum(
            row["outcome"] == "survived" and reasons.get(key_of(row), {}).get("kind") == "equivalent" for row in mine
        )
        total = sum(key[0] == module for key in now)
        counts = [total, len(mine), outcomes["killed"], outcomes["timeout"], outcomes["survived"], equivalent]
        sums = [a + b for a, b in zip(sums, counts, strict=True)]
        lines.append(_table_row(f"`{module}`", counts))
    lines += [_table_row("all", sums), "", "## Survivors", ""]
    for module in TESTS:
        alive = [row for row in rows.values() if row["module"] == module and row["outcome"] == "survived"]
        if not alive:
            continue
        lines += [
            f"### {module}",
            "",
            "| line | function | change | what it is | why |",
            "| --- | --- | --- | --- | --- |",
        ]
        for row in sorted(alive, key=lambda row: now[key_of(row)].first):
            why = reasons.get(key_of(row), {"kind": "not looked at yet", "reason": ""})
            cells = (now[key_of(row)].first, row["function"], f"`{row['change']}`", why["kind"], why["reason"])
            lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _table_row(name: str, counts: list[int]) -> str:
    _, done, _, _, survived, equivalent = counts
    share = f"{(survived - equivalent) / (done - equivalent):.1%}" if done > equivalent else "–"
    return f"| {name} | " + " | ".join(map(str, counts)) + f" | {share} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", default=[], metavar="MODULE", help="modules whose name holds this")
    parser.add_argument("--sample", type=int, metavar="N", help="this many mutants, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--survivors", action="store_true", help="also run those again that were not killed")
    parser.add_argument("--page", action="store_true", help="only write docs/mutation.md")
    options = parser.parse_args()
    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    if not options.page:
        run(options.only, options.sample, options.seed, options.survivors)
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
