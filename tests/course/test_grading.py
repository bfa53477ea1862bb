"""Grading runs tagged cells of a handed-in file, and nothing else of it."""

import csv
from pathlib import Path

import nbformat
import pytest

from tools.course import contents, grading, sources
from tools.course.__main__ import main

NOTEBOOK = contents.notebooks()[0]


def hand_in(path: Path, version: str, extra: str = "", break_cell: str = "") -> None:
    built = sources.build(NOTEBOOK, version)
    if extra:
        built.cells.insert(5, nbformat.v4.new_code_cell(extra))
    for cell in built.cells:
        if break_cell and "exercise" in sources.tags(cell):
            cell.source = break_cell
            break
    nbformat.write(built, path)


def test_a_folder_becomes_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    marker = tmp_path / "was-run"
    hand_in(tmp_path / "ann.ipynb", "solution", extra=f"open({str(marker)!r}, 'w').close()")
    hand_in(tmp_path / "bob.ipynb", "student")
    (tmp_path / "dan.ipynb").write_text("no notebook")
    assert main(["grade", str(tmp_path), "--csv", str(tmp_path / "grades.csv"), "--timeout", "300"]) == 0
    assert "other people's code" in capsys.readouterr().err
    with open(tmp_path / "grades.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    passed = {name: [row["passed"] for row in rows if row["file"] == f"{name}.ipynb"] for name in ("ann", "bob")}
    assert passed == {"ann": ["1", "1"], "bob": ["0", "0"]}
    assert not marker.exists()  # an untagged cell is not run
    (broken,) = [row for row in rows if row["file"] == "dan.ipynb"]
    assert broken["passed"] == "0"


def test_a_notebook_that_hangs_is_given_up(tmp_path: Path) -> None:
    hand_in(tmp_path / "cat.ipynb", "solution", break_cell="def my_psnr(x, clean):\n    while True:\n        pass")
    (slow,) = grading.grade(tmp_path / "cat.ipynb", timeout=5)
    assert "took more than 5 s" in slow.message


def test_a_cell_that_raises_or_is_missing_fails_alone() -> None:
    built = sources.build(NOTEBOOK, "solution")
    exercises = [cell for cell in built.cells if "exercise" in sources.tags(cell)]
    exercises[0].source = "1 / 0"
    first, second = grading.check_cells(NOTEBOOK, built)
    assert "ZeroDivisionError" in first.message
    assert second.passed
    built.cells.remove(exercises[1])
    assert "missing" in grading.check_cells(NOTEBOOK, built)[1].message


@pytest.mark.parametrize("end", ["sys.exit()", "print('{', end=''); sys.exit()"])
def test_leaving_python_fails_alone_too(end: str) -> None:
    built = sources.build(NOTEBOOK, "solution")
    exercises = [cell for cell in built.cells if "exercise" in sources.tags(cell)]
    exercises[0].source = f"import sys\n{end}"
    first, second = grading.check_cells(NOTEBOOK, built)
    assert "SystemExit" in first.message
    assert second.passed
    exercises[0].source = f"import sys\n\n\ndef my_psnr(x, clean):\n    {end}"
    first, second = grading.check_cells(NOTEBOOK, built)
    assert "SystemExit" in first.message
    assert second.passed


def test_a_process_that_tells_nothing_is_a_failed_file(tmp_path: Path) -> None:
    end = "import os\nos.write(1, b'[] \\xff')\nos.write(2, b'bye \\xff')\nos._exit(0)"
    hand_in(tmp_path / "eve.ipynb", "solution", break_cell=end)
    (found,) = grading.grade(tmp_path / "eve.ipynb", timeout=300)
    assert (found.passed, found.message) == (False, "bye \ufffd")


def test_a_message_that_is_no_text_gets_into_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gil.ipynb").touch()
    monkeypatch.setattr(grading, "grade", lambda path, timeout: [grading.Check("all", False, "lone \ud800")])
    assert grading.grade_folder(tmp_path, tmp_path / "grades.csv") == 1
    assert "lone ?" in (tmp_path / "grades.csv").read_text(encoding="utf-8")


def test_a_function_of_another_name_fails_alone() -> None:
    built = sources.build(NOTEBOOK, "solution")
    exercises = [cell for cell in built.cells if "exercise" in sources.tags(cell)]
    exercises[0].source = exercises[0].source.replace("def my_psnr", "def psnr")
    first, second = grading.check_cells(NOTEBOOK, built)
    assert first.message == "name 'my_psnr' is not defined"
    assert second.passed


@pytest.mark.parametrize("above", ["%%time", "%matplotlib inline", "!nvidia-smi", "files = !ls", "x = (7\n%2)"])
def test_magics_do_not_spoil_a_right_answer(above: str) -> None:
    built = sources.build(NOTEBOOK, "solution")
    for cell in built.cells:
        if "exercise" in sources.tags(cell):
            cell.source = f"{above}\n{cell.source}"
    assert [str(check) for check in grading.check_cells(NOTEBOOK, built) if not check.passed] == []


def test_an_exercise_split_over_two_cells_is_one() -> None:
    built = sources.build(NOTEBOOK, "solution")
    first = next(k for k, cell in enumerate(built.cells) if "exercise" in sources.tags(cell))
    whole = built.cells[first]
    half = nbformat.v4.new_code_cell("%%time\nhelper = 1", metadata=whole.metadata)
    built.cells.insert(first + 1, half)
    assert all(check.passed for check in grading.check_cells(NOTEBOOK, built))
    whole.source, half.source = half.source, whole.source
    assert all(check.passed for check in grading.check_cells(NOTEBOOK, built))


def test_an_empty_folder_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grade", str(tmp_path), "--csv", str(tmp_path / "grades.csv")]) == 2
    assert "holds no .ipynb" in capsys.readouterr().err
