"""The job array of `notebooks/sweeps/slurm.sh`: its tasks run here one by one, and are merged in one report."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tools.course import contents, sweeps
from tools.course.__main__ import main

SCRIPT = contents.folder() / "sweeps" / "slurm.sh"
STUDY = {
    "notebook": "06",
    "preset": "smoke",
    "parameters": {"search_steps": 5, "retrain_steps": 2},
    "arms": {"full": {}, "no_tv": {"tv": 0.0}},
    "grid": {"search_seed": [0, 1]},
    "seeds": ["search_seed"],
}
STAND_IN = """\
#!{python}
import sys
from dataclasses import asdict

sys.path[:0] = [{root!r}, {tests!r}]
import nbformat
import test_sweeps
from manas_lite.runs.record import write_json
from tools.course import runner, sweeps
from tools.course.__main__ import main

assert sys.argv[1:3] == ["-m", "tools.course"], sys.argv
study = sweeps.read(sys.argv[4])
runs = {{run.name: run for run in study.runs()}}


def fake(notebook, *, preset, parameters, out, name, runs_dir, timeout, imports):
    test_sweeps.finish(study, (runs[name],), out, first=list(runs).index(name))
    copy = out / f"{{name}}.ipynb"
    nbformat.write(nbformat.v4.new_notebook(), copy)
    outcome = runner.Outcome(notebook.stem, preset, dict(parameters), "done", "", 1.0, 1, "CPU", copy)
    write_json(out / f"{{name}}.json", {{**asdict(outcome), "metrics": {{"psnr_rgb": 24.0}}}})


runner.run = fake
sys.exit(main(sys.argv[3:]))
"""
needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="SLURM's scripts are for bash")


def task(part: int | None, parts: int, arguments: list[str], at: Path, programs: Path) -> subprocess.CompletedProcess:
    """Run the script as SLURM would for one task of an array."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    environment |= {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(contents.folder().parent)}
    if part is not None:
        environment |= {"SLURM_ARRAY_TASK_ID": str(part), "SLURM_ARRAY_TASK_COUNT": str(parts)}
    return subprocess.run(["bash", SCRIPT, *arguments], cwd=at, env=environment, capture_output=True, text=True)


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def merged(file: Path, out: Path, parts: int) -> dict[str, dict[str, str]]:
    """Run every task's shard into its part, then the report; return the table of comparisons by arm."""
    folders = [out / f"part-{part}" for part in range(1, parts + 1)]
    done = [{row["run"] for row in rows(folder / "results.csv") if row["status"] == "done"} for folder in folders]
    runs = [run.name for run in sweeps.read(file).runs()]
    assert sorted(name for part in done for name in part) == sorted(runs)  # each run once, in one part
    assert main(["sweep", str(file), "--out", str(out), "--report", *map(str, folders)]) == 0
    assert {row["status"] for row in rows(out / "results.csv")} == {"done"}
    return {row["arm"]: row for row in rows(out / "report" / "table.csv")}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(STUDY, sort_keys=False))
    return path


@needs_bash
def test_tasks_run_disjoint_parts_that_are_merged(study: Path, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    python = programs / "python"
    root, tests = str(contents.folder().parent), str(Path(__file__).parent)
    python.write_text(STAND_IN.format(python=sys.executable, root=root, tests=tests))
    python.chmod(0o755)
    for part in (1, 2):
        done = task(part, 2, [str(study), str(tmp_path / "out")], tmp_path, programs)
        assert done.returncode == 0, done.stderr
    table = merged(study, tmp_path / "out", 2)
    assert float(table["no_tv"]["mean"]) == pytest.approx(-3, abs=0.3)
    assert table["no_tv"]["searches"] == "2"


@needs_bash
@pytest.mark.parametrize(
    ("part", "arguments", "said"),
    [(None, ["a.yaml", "out"], "--array=1-8"), (1, [], "name the sweep file"), (1, ["a.yaml"], "name the folder")],
)
def test_what_is_missing_is_said(part: int | None, arguments: list[str], said: str, tmp_path: Path) -> None:
    done = task(part, 2, arguments, tmp_path, tmp_path)
    assert done.returncode != 0
    assert said in done.stderr


@pytest.mark.slow
@needs_bash
def test_real_tasks_of_a_tiny_sweep_are_merged(study: Path, tmp_path: Path) -> None:
    for part in (1, 2):
        done = task(part, 2, [str(study), str(tmp_path / "out")], tmp_path, Path(sys.executable).parent)
        assert done.returncode == 0, done.stdout + done.stderr
    table = merged(study, tmp_path / "out", 2)
    assert table["no_tv"]["searches"] == "2"
    line = (tmp_path / "out" / "report" / "protocol.txt").read_text()
    assert line.startswith("4 runs of this sweep: 1 arms, each paired with full over 2 searches")
