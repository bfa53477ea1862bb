"""Every notebook at smoke size: prepared by papermill, run and compared by nbval."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from manas_lite.course import registry, runner


@pytest.mark.parametrize("notebook", registry.notebooks(), ids=lambda n: n.stem)
def test_notebook_runs_at_smoke_size(notebook: registry.Notebook, tmp_path: Path) -> None:
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
