"""Handed-in notebooks, graded: tagged cells only.

Only the cells tagged `exercise` of a student's file are run; imports and checkers come from the course's own source.
Still, that is running other people's code: do it in a container or on a machine that holds nothing of worth.
"""

import ast
import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from manas_course.checks.base import Check
from tools.course import contents, sources
from tools.course.contents import Notebook

__all__ = ["check_cells", "grade", "grade_folder"]

WARNING = (
    "Grading runs other people's code on this machine, with your rights: use a container or an account that holds "
    "nothing of worth. Each notebook is given {seconds} s."
)


def check_cells(notebook: Notebook, handed_in: Any) -> list[Check]:
    """Run the exercises of a notebook (nbformat) in this process; return a Check for each, in the course's order.

    An exercise split over several cells is put together again. Magics and lines for the shell do nothing.
    """
    theirs: dict[str, list[str]] = {}
    for cell in handed_in.cells:
        if "exercise" in sources.tags(cell):
            theirs.setdefault(_exercise(cell), []).append(cell.source)
    scope: dict[str, Any] = {"__name__": "exercises"}
    scope["get_ipython"] = lambda: _Shell(scope)
    outcomes = []
    for cell in sources.build(notebook, "student").cells:
        cell_tags = sources.tags(cell)
        if "imports" in cell_tags:
            exec(cell.source, scope)
        elif "exercise" in cell_tags:
            name = _exercise(cell)
            if name not in theirs:
                outcomes.append(Check(name, False, "the cell is missing, or lost its tag"))
                continue
            try:
                exec("\n".join(map(_python, theirs[name])), scope)
            except (Exception, SystemExit) as error:
                outcomes.append(Check(name, False, f"the cell raised {type(error).__name__}: {error}"))
                theirs.pop(name)
        elif "check" in cell_tags and _exercise(cell) in theirs:
            try:
                outcomes.append(_last_value(cell.source, scope))
            except NameError as error:  # checkers raise nothing: the function was given another name
                outcomes.append(Check(_exercise(cell), False, str(error)))
    return outcomes


def grade(path: Path, timeout: int = 120) -> list[Check]:
    """Grade one file in a process of its own, whatever the file holds; return its checks."""
    program = "from tools.course.grading import main; main()"
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "checks.json"  # not the output: a student's code writes there too
        command = [sys.executable, "-c", program, str(path), str(result)]
        try:
            done = subprocess.run(
                command, capture_output=True, errors="replace", timeout=timeout, stdin=subprocess.DEVNULL
            )
        except subprocess.TimeoutExpired:
            return [Check("all", False, f"took more than {timeout} s")]
        try:
            return [Check(**item) for item in json.loads(result.read_text(encoding="utf-8"))]
        except (OSError, ValueError, TypeError):
            ended = f"the process ended with code {done.returncode}, and without a result"
            return [Check("all", False, (done.stderr.strip().splitlines() or [ended])[-1])]


def grade_folder(folder: Path, table: Path, timeout: int = 120) -> int:
    """Grade every notebook below `folder` into a CSV: file, exercise, passed (0 or 1), message; return how many."""
    files = sorted(path for path in folder.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
    if not files:
        raise FileNotFoundError(f"{folder} holds no .ipynb file")
    with open(table, "w", newline="", encoding="utf-8", errors="replace") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "exercise", "passed", "message"])
        for path in files:
            for check in grade(path, timeout):
                rows.writerow([path.relative_to(folder), check.exercise, int(check.passed), check.message])
    return len(files)


def identify(handed_in: Any) -> Notebook:
    """Return which notebook of the course a file is, judged by its exercises."""
    theirs = {_exercise(cell) for cell in handed_in.cells if "exercise" in sources.tags(cell)}
    known = contents.notebooks()
    best = max(known, key=lambda notebook: len(theirs & set(notebook.exercises)))
    if not theirs & set(best.exercises):
        raise ValueError("no exercise of this course in the file: were the cells' tags lost?")
    return best


def main() -> None:
    """Grade the file named first on the command line; the checks go to the second, as JSON."""
    import nbformat

    handed_in = nbformat.read(sys.argv[1], as_version=4)
    checks = check_cells(identify(handed_in), handed_in)
    Path(sys.argv[2]).write_text(json.dumps([vars(check) for check in checks]), encoding="utf-8")


def _exercise(cell: Any) -> str:
    """Return the name in the tag `exercise:NAME` or `check:NAME`, or an empty text."""
    names: Iterator[str] = (tag.partition(":")[2] for tag in sources.tags(cell) if ":" in tag)
    return next(names, "")


def _python(source: str) -> str:
    """Return a cell's source, magics and lines for the shell turned into calls of `get_ipython()` as IPython does."""
    from IPython.core.inputtransformer2 import TransformerManager

    return TransformerManager().transform_cell(source)


class _Shell:
    """What stands in for IPython: a cell under `%%time` is run, other magics and the shell do nothing."""

    def __init__(self, scope: dict[str, Any]) -> None:
        self.scope = scope

    def run_cell_magic(self, name: str, line: str, cell: str) -> None:
        exec(_python(cell), self.scope)

    def run_line_magic(self, *_: Any) -> None:
        """Do nothing."""

    system = getoutput = run_line_magic


def _last_value(source: str, scope: dict[str, Any]) -> Check:
    """Run a cell as a notebook does and return the value of its last line."""
    tree = ast.parse(source)
    last = tree.body.pop()
    assert isinstance(last, ast.Expr), "a check cell ends with the call of its checker"
    exec(compile(tree, "<check>", "exec"), scope)
    return eval(compile(ast.Expression(last.value), "<check>", "eval"), scope)
