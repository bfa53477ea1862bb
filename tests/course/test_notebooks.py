"""Every notebook at smoke size: prepared by papermill, run and compared by nbval."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest

import manas_course as course
from tools.course import contents, runner, sources


def run_cell(number: str, holds: str, **values: Any) -> dict[str, Any]:
    """The names that the one cell of a notebook holding this text leaves behind, run after its imports alone."""
    code = [cell for cell in sources.build(contents.find(number)).cells if cell.cell_type == "code"]
    (cell,) = (cell.source for cell in code if holds in cell.source and "imports" not in sources.tags(cell))
    scope = {"course": course, **values}
    exec(next(cell.source for cell in code if "imports" in sources.tags(cell)), scope)
    exec(cell, scope)
    return scope


def test_rain_of_a_level_that_is_a_number() -> None:
    """The runner hands over text, as the parameter's default is one."""
    left = run_cell("01", "rain_streaks(", clean=np.zeros((40, 50, 3), np.uint8), level="2.5", seed=0)
    assert left["parameters"].level == 2.5
    assert left["by_screen"].max() > 0


def test_a_replayed_search_is_the_one_of_the_package(tmp_path: Path) -> None:
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "genotype.json").write_text("{}")  # the reader's own is not looked at
    left = run_cell("03", "if replayed:", replayed=True, runs_dir=str(tmp_path))
    assert left["run"] == course.shipped("search")


@pytest.mark.parametrize("notebook", contents.notebooks(), ids=lambda n: n.stem)
def test_notebook_runs_at_smoke_size(notebook: contents.Notebook, tmp_path: Path) -> None:
    stored = nbformat.read(notebook.path, as_version=4)
    copy = tmp_path / notebook.path.name
    runner.prepare(notebook, copy, preset="smoke", runs_dir=tmp_path / "runs", stored=stored)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbval-lax",
        "--nbval-cell-timeout=120",
        "-q",
        "-p",
        "no:cacheprovider",
    ]
    environment = {**os.environ, runner.HEADLESS: "1"}
    result = subprocess.run(
        [*command, "--rootdir", str(tmp_path), str(copy)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
