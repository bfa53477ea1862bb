"""Runs in a process of their own: they end like ordinary ones, continue, and a failure is told."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from manas_lite import Genotype, RetrainSettings, SearchSettings, SearchSpace
from manas_lite.course import jobs, support

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
