"""The exported assignments, put through the real tools: solutions get full marks, blanks none, wrong answers none."""

import ast
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest

from tools.course import contents, exports, sources
from tools.course.__main__ import main

NOTEBOOK = contents.notebooks()[0]
WITH_EXERCISES = [notebook for notebook in contents.notebooks() if notebook.exercises]
PLACES = [Path(sys.executable).parent, *filter(None, [os.environ.get("GRADERS_BIN")])]
PATH = os.pathsep.join([*map(str, PLACES), os.environ["PATH"]])
WRONG = {
    "255 for the peak": {"my_psnr": "    return 20 * np.log10(255) - 10 * np.log10(np.mean((x - clean) ** 2))"},
    "a constant": {"my_psnr": "    return 30.0", "my_padding": "    return 0"},
    "an error": {"my_padding": "    return side // 0"},
}


def run(*command: str, at: Path) -> str:
    environment = {**os.environ, "PATH": PATH, "PYTHONPATH": str(contents.folder().parent)}
    done = subprocess.run(command, cwd=at, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def answered(student: Path, answers: dict[str, str], to: Path) -> Path:
    """A student's notebook with functions filled in: the last line of each is replaced by a body."""
    built = nbformat.read(student, as_version=4)
    for cell in built.cells:
        for name, body in answers.items():
            if cell.cell_type == "code" and f"def {name}(" in cell.source:
                head = cell.source[: cell.source.rindex('"""') + 3]
                cell.source = f"{head}\n{body}"
                ast.parse(cell.source)
    to.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(built, to)
    return to


def solutions() -> dict[str, str]:
    found = {}
    for cell in sources.build(NOTEBOOK, "solution").cells:
        if "exercise" in sources.tags(cell):
            name = cell.source[4 : cell.source.index("(")]
            found[name] = cell.source[cell.source.rindex('"""') + 4 :]
    return found


def hand_ins() -> dict[str, tuple[dict[str, str], list[bool]]]:
    """Answers by name, and which of the two exercises are right."""
    right = solutions()
    cases = {"solution": (right, [True, True]), "blank": ({}, [False, False])}
    for name, wrong in WRONG.items():
        cases[name] = (right | wrong, [function not in wrong for function in right])
    return cases


@pytest.mark.parametrize("tool", exports.TOOLS)
@pytest.mark.parametrize("notebook", WITH_EXERCISES, ids=lambda n: n.stem)
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
    assert main(["export", NOTEBOOK.number, "--to", "otter", "--out", str(tmp_path)]) == 0
    assert f"otter assign {tmp_path / NOTEBOOK.stem}.ipynb" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("otter", path=PATH) is None, reason="needs otter-grader (extra graders)")
def test_otter_gives_the_marks_that_are_due(tmp_path: Path) -> None:
    master = exports.export(NOTEBOOK, "otter", tmp_path)
    run("otter", "assign", "--no-pdfs", str(master), "dist", at=tmp_path)
    (archive,) = (tmp_path / "dist" / "autograder").glob("*.zip")
    assert zipfile.is_zipfile(archive)
    student = tmp_path / "dist" / "student" / master.name
    assert solutions()["my_padding"].strip() not in student.read_text()
    for name, (answers, right) in hand_ins().items():
        hand_in = answered(student, answers, tmp_path / "in" / f"{name}.ipynb")
        out = tmp_path / "out" / name
        out.mkdir(parents=True)
        run("otter", "run", "-a", str(archive), "-o", str(out), "--no-logo", str(hand_in), at=tmp_path)
        tests = json.loads((out / "results.json").read_text())["tests"]
        marks = {test["name"]: test["score"] for test in tests if test["name"] in NOTEBOOK.exercises}
        assert marks == dict(zip(NOTEBOOK.exercises, map(float, right), strict=True)), name


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nbgrader", path=PATH) is None, reason="needs nbgrader (extra graders)")
def test_nbgrader_gives_the_marks_that_are_due(tmp_path: Path) -> None:
    stem = NOTEBOOK.stem
    exports.export(NOTEBOOK, "nbgrader", tmp_path)
    run("nbgrader", "generate_assignment", stem, at=tmp_path)
    student = tmp_path / "release" / stem / f"{stem}.ipynb"
    assert solutions()["my_padding"].strip() not in student.read_text()
    names = {name.replace(" ", "_"): case for name, case in hand_ins().items()}
    for name, (answers, _) in names.items():
        answered(student, answers, tmp_path / "submitted" / name / stem / f"{stem}.ipynb")
    run("nbgrader", "autograde", stem, at=tmp_path)
    run("nbgrader", "export", at=tmp_path)
    rows = (tmp_path / "grades.csv").read_text().splitlines()
    header = rows[0].split(",")
    scores = {}
    for row in rows[1:]:
        cells = dict(zip(header, row.split(","), strict=False))
        scores[cells["student_id"]] = (float(cells["score"]), float(cells["max_score"]))
    assert scores == {name: (float(sum(right)), 2.0) for name, (_, right) in names.items()}
