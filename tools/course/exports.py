"""The exercises of a notebook as an assignment for otter-grader or nbgrader, with its autograder.

The assignment holds the imports, the exercises with their texts, and a test per exercise that calls the course's
checker. The other cells stay out, so that no training is repeated for each hand-in. Both tools run the checker in the
student's own process: a hand-in could replace it. `course grade` keeps the two apart.
"""

import re
from pathlib import Path
from typing import Any

from tools.course import sources
from tools.course.contents import Notebook

__all__ = ["NEXT", "TOOLS", "export"]

TOOLS = ("nbgrader", "otter")
NEXT = {
    "otter": "next: otter assign {file} dist, then otter run -a dist/autograder/*.zip HAND_IN.ipynb",
    "nbgrader": "next, in {folder}: nbgrader generate_assignment {stem}; after collecting, nbgrader autograde {stem}",
}
CONFIG = """\
c = get_config()  # noqa: F821
c.CourseDirectory.course_id = "manas_lite"
# nbgrader's own limits, 30 and 4 seconds a cell, are less than a busy machine takes to import PyTorch.
c.ExecutePreprocessor.timeout = 600
c.ExecutePreprocessor.iopub_timeout = 60
c.ExecutePreprocessor.startup_timeout = 300
"""
MARK = re.compile(r"^([ \t]*)# (BEGIN|END) SOLUTION", re.MULTILINE)


def export(notebook: Notebook, tool: str, out: Path) -> Path:
    """Write the assignment of a notebook and return the path of its master copy, which holds the solutions.

    Args:
        notebook: which one.
        tool: "otter" or "nbgrader".
        out: folder to write to.

    Raises:
        ValueError: where the notebook has no exercise.
    """
    import nbformat
    from nbformat.v4 import new_markdown_cell, new_notebook

    if not notebook.exercises:
        raise ValueError(f"{notebook.stem} has no exercise: there is nothing to grade in it")
    title = new_markdown_cell(f"# {notebook.number} · {notebook.title}: exercises\n\n{notebook.purpose}")
    cells, text = [title], None
    for cell in sources.read(notebook):
        named = {tag.partition(":")[0]: tag.partition(":")[2] for tag in sources.tags(cell) if ":" in tag}
        if cell.cell_type == "markdown":
            text = cell.source
        elif "imports" in sources.tags(cell):
            cells.append(_code(cell.source))
        elif "exercise" in named:
            asked = [new_markdown_cell(text)] if text else []
            parts = _otter if tool == "otter" else _nbgrader
            cells += parts(named["exercise"], notebook, asked, cell.source, _check(notebook, named["exercise"]))
            text = None
    if tool == "otter":
        settings = f"# ASSIGNMENT CONFIG\nname: {notebook.stem}\nexport_cell: false\ngenerate: true"
        cells.insert(0, _raw(settings))
    for number, cell in enumerate(cells):
        cell["id"] = f"{notebook.number}-{tool}-{number:03d}"
    path = out / f"{notebook.stem}.ipynb"
    if tool == "nbgrader":
        path = out / "source" / notebook.stem / f"{notebook.stem}.ipynb"
        (out / "nbgrader_config.py").parent.mkdir(parents=True, exist_ok=True)
        (out / "nbgrader_config.py").write_text(CONFIG, encoding="utf-8")
    path.parent.mkdir(parents=True, exist_ok=True)
    made = new_notebook(cells=cells, metadata={"kernelspec": sources.KERNEL, "language_info": {"name": "python"}})
    nbformat.write(made, path)
    return path


def _check(notebook: Notebook, exercise: str) -> str:
    """Return the call of an exercise's checker, as it stands in the course."""
    built = sources.build(notebook, "student").cells
    return next(cell.source for cell in built if f"check:{exercise}" in sources.tags(cell))


def _test(call: str) -> str:
    return f"from manas_course import checks\n\nfound = {call}\nassert found.passed, str(found)"


def _otter(exercise: str, notebook: Notebook, asked: list[Any], source: str, call: str) -> list[Any]:
    points = f"{notebook.worth(exercise):g}"
    lines = f"# BEGIN QUESTION\nname: {exercise}\npoints: {points}"
    return [
        _raw(lines),
        *asked,
        _raw("# BEGIN SOLUTION"),
        _code(source),
        _raw("# END SOLUTION"),
        _raw("# BEGIN TESTS"),
        _code(_test(call)),
        _raw("# END TESTS"),
        _raw("# END QUESTION"),
    ]


def _nbgrader(exercise: str, notebook: Notebook, asked: list[Any], source: str, call: str) -> list[Any]:
    same = {"schema_version": 3, "task": False}
    answer = same | {"grade": False, "grade_id": exercise, "locked": False, "solution": True}
    test = same | {"grade": True, "grade_id": f"{exercise}_test", "locked": True, "solution": False}
    return [
        *asked,
        _code(MARK.sub(r"\1### \2 SOLUTION", source), {"nbgrader": answer}),
        _code(_test(call), {"nbgrader": test | {"points": notebook.worth(exercise)}}),
    ]


def _code(source: str, metadata: dict[str, Any] | None = None) -> Any:
    from nbformat.v4 import new_code_cell

    return new_code_cell(source, metadata=metadata or {})


def _raw(source: str) -> Any:
    from nbformat.v4 import new_raw_cell

    return new_raw_cell(source)
