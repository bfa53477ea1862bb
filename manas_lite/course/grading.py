"""Handed-in notebooks, graded: tagged cells only.

Of a student's file only the cells tagged `exercise` are run; imports and checkers come from the course's own source.
Still, that is running other people's code: do it in a container or on a machine that holds nothing of worth.
"""

import ast
import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import registry, sources
from .checks.base import Check
from .registry import Notebook

__all__ = ["check_cells", "grade", "grade_folder"]

WARNING = (
    "Grading runs other people's code on this machine, with your rights: use a container or an account that holds "
    "nothing of worth. Each notebook is given {seconds} s."
)


def check_cells(notebook: Notebook, handed_in: Any) -> list[Check]:
    """Run the exercises of a notebook (nbformat) in this process; a Check each, in the course's order."""
    theirs = {_exercise(cell): cell.source for cell in handed_in.cells if "exercise" in sources.tags(cell)}
    scope: dict[str, Any] = {"__name__": "exercises"}
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
                exec(theirs[name], scope)
            except Exception as error:
                outcomes.append(Check(name, False, f"the cell raised {type(error).__name__}: {error}"))
                theirs.pop(name)
        elif "check" in cell_tags and _exercise(cell) in theirs:
            outcomes.append(_last_value(cell.source, scope))
    return outcomes


def grade(path: Path, timeout: int = 120) -> list[Check]:
    """Grade one file in a process of its own. Never raises for what the file holds."""
    command = [sys.executable, "-c", "from manas_lite.course.grading import main; main()", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return [Check("all", False, f"took more than {timeout} s")]
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()
        return [Check("all", False, last[-1] if last else f"the process ended with code {done.returncode}")]
    return [Check(**item) for item in json.loads(done.stdout.splitlines()[-1])]


def grade_folder(folder: Path, table: Path, timeout: int = 120) -> int:
    """Grade every notebook below `folder` into a CSV: file, exercise, passed (0 or 1), message. Returns how many."""
    files = sorted(path for path in folder.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
    if not files:
        raise FileNotFoundError(f"{folder} holds no .ipynb file")
    with open(table, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "exercise", "passed", "message"])
        for path in files:
            for check in grade(path, timeout):
                rows.writerow([path.relative_to(folder), check.exercise, int(check.passed), check.message])
    return len(files)


def identify(handed_in: Any) -> Notebook:
    """Which notebook of the course a file is: by its exercises."""
    theirs = {_exercise(cell) for cell in handed_in.cells if "exercise" in sources.tags(cell)}
    known = registry.notebooks()
    best = max(known, key=lambda notebook: len(theirs & set(notebook.exercises)))
    if not theirs & set(best.exercises):
        raise ValueError("no exercise of this course in the file: were the cells' tags lost?")
    return best


def main() -> None:
    """Grade the file named on the command line; JSON on the last line of the output."""
    import nbformat

    handed_in = nbformat.read(sys.argv[1], as_version=4)
    checks = check_cells(identify(handed_in), handed_in)
    print("\n" + json.dumps([vars(check) for check in checks]))


def _exercise(cell: Any) -> str:
    """`exercise:psnr_y` or `check:psnr_y` among the tags -> psnr_y."""
    names: Iterator[str] = (tag.partition(":")[2] for tag in sources.tags(cell) if ":" in tag)
    return next(names, "")


def _last_value(source: str, scope: dict[str, Any]) -> Check:
    """Run a cell as a notebook does and return the value of its last line."""
    tree = ast.parse(source)
    last = tree.body.pop()
    assert isinstance(last, ast.Expr), "a check cell ends with the call of its checker"
    exec(compile(tree, "<check>", "exec"), scope)
    return eval(compile(ast.Expression(last.value), "<check>", "eval"), scope)
