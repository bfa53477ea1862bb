"""The exported assignments, put through the real tools: solutions get full marks, blanks none, wrong answers none."""

import csv
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest

from tools.course import contents, exports, grading, sources
from tools.course.__main__ import main

WITH_EXERCISES = [notebook for notebook in contents.notebooks() if notebook.exercises]
PLACES = [Path(sys.executable).parent, *filter(None, [os.environ.get("GRADERS_BIN")])]
PATH = os.pathsep.join([*map(str, PLACES), os.environ["PATH"]])
KNOWN = os.pathsep.join([str(contents.folder().parent), str(Path(__file__).parent)])  # the kit, and `answers`
SKIPPED = "no {package} here: install it into an environment of its own, and set GRADERS_BIN to its folder of programs"
needs_otter = pytest.mark.skipif(
    shutil.which("otter", path=PATH) is None, reason=SKIPPED.format(package="otter-grader")
)
needs_nbgrader = pytest.mark.skipif(
    shutil.which("nbgrader", path=PATH) is None, reason=SKIPPED.format(package="nbgrader")
)
every_notebook = pytest.mark.parametrize("notebook", WITH_EXERCISES, ids=lambda n: n.stem)


def run(*command: str, at: Path) -> str:
    environment = {**os.environ, "PATH": PATH, "PYTHONPATH": KNOWN, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=at, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def function_of(notebook: contents.Notebook, exercise: str) -> str:
    """Return the name of the function that an exercise asks for."""
    return grading._asked(notebook, exercise)[1]


def solution_of(notebook: contents.Notebook, exercise: str) -> str:
    """Return the code of an exercise's cell with its answer."""
    cells = sources.build(notebook, "solution").cells
    return next(cell.source for cell in cells if f"exercise:{exercise}" in sources.tags(cell))


def wrong(notebook: contents.Notebook, exercise: str, number: int) -> str:
    """Return code that makes a known wrong answer the asked function."""
    asked = function_of(notebook, exercise)
    return f"from answers import WRONG\n\n{asked} = WRONG[{exercise!r}][{number}][0]"


def hand_ins(notebook: contents.Notebook) -> dict[str, tuple[dict[str, str], set[str]]]:
    """Return hand-ins by name: the code of their exercises, and which of these are right."""
    exercises = notebook.exercises
    right = {exercise: solution_of(notebook, exercise) for exercise in exercises}
    first = exercises[0]
    cases = {
        "solution": (right, set(exercises)),
        "blank": ({}, set()),
        "first": ({e: right[e] if e == first else wrong(notebook, e, 0) for e in exercises}, {first}),
    }
    for number in range(3):
        cases[f"wrong_{number}"] = ({e: wrong(notebook, e, number) for e in exercises}, set())
    return cases


def hand_in(notebook: contents.Notebook, student: Path, codes: dict[str, str], to: Path) -> None:
    """Write a student's notebook with code in place of the cells of some exercises."""
    built = nbformat.read(student, as_version=4)
    for exercise, code in codes.items():
        head = f"def {function_of(notebook, exercise)}("
        (cell,) = [cell for cell in built.cells if cell.cell_type == "code" and head in cell.source]
        cell.source = code
    to.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(built, to)


def holds_no_answer(notebook: contents.Notebook, student: Path) -> bool:
    """Return whether the student's copy lacks the lines of every answer."""
    text = "\n".join(cell.source for cell in nbformat.read(student, as_version=4).cells)
    given = [cell.source for cell in sources.build(notebook, "student").cells if cell.cell_type == "code"]
    blanks = {line.strip() for source in given for line in source.splitlines()}
    answers = [line for e in notebook.exercises for line in solution_of(notebook, e).splitlines()]
    secret = [line for line in answers if len(line.strip()) > 12 and line.strip() not in blanks]
    assert len(secret) >= len(notebook.exercises)
    return not any(line in text for line in secret)


@pytest.mark.parametrize("tool", exports.TOOLS)
@every_notebook
def test_every_notebook_can_be_exported(notebook: contents.Notebook, tool: str, tmp_path: Path) -> None:
    path = exports.export(notebook, tool, tmp_path)
    made = nbformat.read(path, as_version=4)
    nbformat.validate(made)
    text = "\n".join(cell.source for cell in made.cells)
    assert text.count("BEGIN SOLUTION\n    ") + text.count("BEGIN SOLUTION\n        ") >= len(notebook.exercises)
    for exercise in notebook.exercises:
        assert f"checks.{exercise}(" in text
    scope = {"__name__": "exercises"}
    for cell in made.cells:
        if cell.cell_type == "code" and "assert found" not in cell.source:
            exec(cell.source, scope)  # the imports and the exercises need nothing else of the notebook


def test_the_command_says_what_to_do_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notebook = WITH_EXERCISES[0]
    assert main(["export", notebook.number, "--to", "otter", "--out", str(tmp_path)]) == 0
    assert f"otter assign {tmp_path / notebook.stem}.ipynb" in capsys.readouterr().out


@pytest.mark.slow
@needs_otter
@every_notebook
def test_otter_gives_the_marks_that_are_due(notebook: contents.Notebook, tmp_path: Path) -> None:
    master = exports.export(notebook, "otter", tmp_path)
    run("otter", "assign", "--no-pdfs", str(master), "dist", at=tmp_path)
    (archive,) = (tmp_path / "dist" / "autograder").glob("*.zip")
    assert zipfile.is_zipfile(archive)
    student = tmp_path / "dist" / "student" / master.name
    assert holds_no_answer(notebook, student)
    for name, (codes, right) in hand_ins(notebook).items():
        handed_in, out = tmp_path / "in" / f"{name}.ipynb", tmp_path / "out" / name
        hand_in(notebook, student, codes, handed_in)
        out.mkdir(parents=True)
        run("otter", "run", "-a", str(archive), "-o", str(out), "--no-logo", str(handed_in), at=tmp_path)
        tests = json.loads((out / "results.json").read_text())["tests"]
        marks = {test["name"]: test["score"] for test in tests if test["name"] in notebook.exercises}
        assert marks == {e: notebook.worth(e) if e in right else 0.0 for e in notebook.exercises}, name


@pytest.mark.slow
@needs_nbgrader
@every_notebook
def test_nbgrader_gives_the_marks_that_are_due(notebook: contents.Notebook, tmp_path: Path) -> None:
    stem = notebook.stem
    exports.export(notebook, "nbgrader", tmp_path)
    run("nbgrader", "generate_assignment", stem, at=tmp_path)
    student = tmp_path / "release" / stem / f"{stem}.ipynb"
    assert holds_no_answer(notebook, student)
    cases = hand_ins(notebook)
    for name, (codes, _) in cases.items():
        hand_in(notebook, student, codes, tmp_path / "submitted" / name / stem / f"{stem}.ipynb")
    run("nbgrader", "autograde", stem, at=tmp_path)
    for name, (_, right) in cases.items():
        graded = nbformat.read(tmp_path / "autograded" / name / stem / f"{stem}.ipynb", as_version=4)
        cells = {cell.metadata.get("nbgrader", {}).get("grade_id"): cell for cell in graded.cells}
        failed = {
            exercise
            for exercise in notebook.exercises
            if any(output.output_type == "error" for output in cells[f"{exercise}_test"].outputs)
        }
        assert failed == set(notebook.exercises) - right, name
    run("nbgrader", "export", at=tmp_path)
    with open(tmp_path / "grades.csv", newline="") as file:
        scores = {row["student_id"]: (float(row["score"]), float(row["max_score"])) for row in csv.DictReader(file)}
    most = sum(map(notebook.worth, notebook.exercises))
    assert scores == {name: (sum(map(notebook.worth, right)), most) for name, (_, right) in cases.items()}
