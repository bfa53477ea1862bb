"""Grading runs tagged cells of a handed-in file, and nothing else of it."""

import csv
from pathlib import Path

import nbformat
import pytest

from manas_lite.course import grading, registry, sources
from manas_lite.course.__main__ import main

NOTEBOOK = registry.notebooks()[0]


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


def test_an_empty_folder_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grade", str(tmp_path), "--csv", str(tmp_path / "grades.csv")]) == 2
    assert "holds no .ipynb" in capsys.readouterr().err
