"""Runs in a process of their own: they end like ordinary ones, continue, and a failure is told."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from manas_course import jobs, support
from manas_course.jobs import HEADLESS
from manas_lite import Genotype, RetrainSettings, SearchSettings, SearchSpace
from manas_lite.runs.record import MANIFEST, BusyError, read_json

SPACE = SearchSpace((4, 8), modules_per_cell=1, stem="unshuffle", norm="none", residual=True)
SETTINGS = SearchSettings.preset("smoke", epochs=2, steps=2, batch=2, patch=16)


def test_a_search_in_another_process(tmp_path: Path) -> None:
    job = jobs.Background.start(SPACE, SETTINGS, runs_dir=tmp_path, name="search")
    result = job.wait(live=False)
    assert job.status() == "search: step 4 of 4, ended with code 0"
    assert result.genotype.space == SPACE
    assert (tmp_path / "search" / "genotype.json").is_file()
    again = jobs.Background.start(SPACE, SETTINGS, runs_dir=tmp_path, name="search").wait(live=False)
    assert again.genotype == result.genotype


KERNEL = """
import sys
from manas_course import jobs
sys.path.insert(0, sys.argv[1])
from test_jobs import SPACE, SETTINGS
jobs.Background.start(SPACE, SETTINGS, runs_dir=sys.argv[2], name="search")
print("started", flush=True)
sys.stdin.read()
"""


def kernel_started_and_killed(runs_dir: Path, **environment: str) -> None:
    """A kernel that starts the search, and is killed as Jupyter does it: with its whole process group."""
    command = [sys.executable, "-c", KERNEL, str(Path(__file__).parent), str(runs_dir)]
    variables = {**os.environ, HEADLESS: "", **environment}
    kernel = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=variables, start_new_session=True, text=True
    )
    with kernel:
        assert kernel.stdout is not None
        assert "runs in process" in kernel.stdout.readline()
        assert kernel.stdout.readline() == "started\n"
        os.killpg(kernel.pid, signal.SIGKILL)


posix = pytest.mark.skipif(os.name == "nt", reason="process groups as POSIX has them")


@posix
def test_a_search_outlives_its_kernel_and_is_found_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kernel_started_and_killed(tmp_path)
    job = jobs.Background.start(SPACE, SETTINGS, runs_dir=tmp_path, name="search")
    held = read_json(tmp_path / "search" / "job.json")
    assert capsys.readouterr().out == f"search 'search' runs already, in process {held['process']}; read on\n"
    assert job.process is None
    assert job.status().endswith("of 4, running")
    with pytest.raises(BusyError, match=f"process {held['process']} is writing .* with other settings"):
        jobs.Background.start(SPACE, SETTINGS, runs_dir=tmp_path, name="search", seed=1)
    assert read_json(tmp_path / "search" / "job.json") == held
    result = job.wait(live=False, every=0.2)
    assert job.status() == "search: step 4 of 4, ended"
    assert result.genotype.space == SPACE
    stretches = read_json(tmp_path / "search" / MANIFEST)["stretches"]
    assert [stretch["process"] for stretch in stretches] == [held["process"], os.getpid()]  # searched; read


@posix
def test_a_search_that_was_found_and_then_stopped_has_failed(tmp_path: Path) -> None:
    kernel_started_and_killed(tmp_path)
    job = jobs.Background.start(SPACE, SETTINGS, runs_dir=tmp_path, name="search")
    os.kill(read_json(tmp_path / "search" / "job.json")["process"], signal.SIGKILL)
    with pytest.raises(RuntimeError, match="failed"):
        job.wait(live=False, every=0.2)


@posix
def test_with_no_one_looking_a_search_ends_with_its_kernel(tmp_path: Path) -> None:
    kernel_started_and_killed(tmp_path, **{HEADLESS: "1"})
    with FileLock(tmp_path / "search" / jobs.LOCK, timeout=2):  # its imports alone would take longer
        pass
    assert not (tmp_path / "search" / MANIFEST).exists()


def test_a_failure_shows_its_last_lines(tmp_path: Path) -> None:
    job = jobs.Background.start(SPACE, SETTINGS, runs_dir=tmp_path, name="search", data="./no-such-folder")
    with pytest.raises(RuntimeError, match="no-such-folder"):
        job.wait(live=False)


def test_settings_must_fit_what_is_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a retrain needs RetrainSettings, got SearchSettings"):
        jobs.Background.start(Genotype.hand_made(SPACE), SETTINGS, runs_dir=tmp_path, name="x")
    with pytest.raises(ValueError, match="a search needs SearchSettings"):
        jobs.Background.start(SPACE, RetrainSettings.preset("smoke"), runs_dir=tmp_path, name="x")


def test_a_missing_run_names_its_notebook_and_falls_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = support.find_run(tmp_path, "search", made_by="03", needs="genotype.json")
    assert found == support.shipped("search")
    assert "notebook 03 makes it" in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match="run notebook 77 first"):
        support.find_run(tmp_path, "nothing", made_by="77")


def test_where_runs_lie_does_not_depend_on_the_current_directory(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert support.runs_folder("runs").is_absolute()
    assert tmp_path not in support.runs_folder("runs").parents
    assert support.runs_folder(tmp_path) == tmp_path
