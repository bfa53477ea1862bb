"""Costs told beforehand: the arithmetic against counts by hand, with clocks that are made up."""

import itertools
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from manas_lite import RetrainSettings, SearchSettings, SearchSpace
from manas_lite.networks.genotype import Genotype
from manas_lite.runs.record import write_json
from manas_lite.runs.settings import parse
from tools.course import contents, estimates, sources, sweeps
from tools.course.__main__ import main

SWEEP = {"notebook": "06", "preset": "smoke", "grid": {"search_seed": [0, 1, 2]}, "seeds": ["search_seed"]}


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clocks that move each time one of them is read: a step takes two seconds, and six of computing."""
    ticks = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(ticks)))
    monkeypatch.setattr(time, "process_time", lambda: 3.0 * next(ticks))


def test_a_step_is_timed_and_multiplied_by_the_scenes_left_out(ticking: None) -> None:
    space = SearchSpace((4, 8), modules_per_cell=1, stem="unshuffle", norm="none", residual=True)
    settings = SearchSettings.preset("smoke", batch=4, patch=16)
    assert estimates.time_step(space, settings, steps=2) == (2, 6)
    assert estimates.time_step(space, settings, steps=2, scenes=1) == (8, 24)
    retraining = RetrainSettings.preset("smoke", batch=2, patch=16)
    assert estimates.time_step(Genotype.hand_made(space), retraining, steps=2, scenes=8) == (2, 6)


@pytest.mark.parametrize(
    ("number", "steps"),
    [
        ("03", 200_000 + 190 * 1000),  # the first ten epochs move the weights alone, as in the released schedule
        ("04", 2 * 100_000),
        ("06", 200_000 + 160_000 + 100_000),  # one epoch of five moves the weights alone
    ],
)
def test_paper_rows_are_steps_times_seconds(number: str, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates, "time_step", lambda *_, **__: estimates.StepTime(0.5, 0.25))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(estimates, "StepFootprint", lambda *_, **__: SimpleNamespace(bytes=2**34))
    row = estimates.extrapolated(contents.find(number), "paper")
    assert row["seconds"] == steps / 4
    assert row["extrapolated"] is True
    assert row["bytes"] == 2**34
    assert row["device"]


def test_a_notebook_that_trains_nothing_is_to_be_measured() -> None:
    with pytest.raises(ValueError, match="trains nothing"):
        estimates.extrapolated(contents.find("02"), "paper")


def test_a_dry_run_tells_runs_hours_disk_and_what_will_be_detectable(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(estimates, "time_step", lambda *_, **__: estimates.StepTime(0.5, 0.25))
    monkeypatch.setattr(sources, "measured_costs", lambda notebook: [])
    sweep = parse(sweeps.Sweep, SWEEP)
    told = estimates.describe(sweep, sweep.runs(), tmp_path / "out")
    assert "3 runs of notebook 06 at preset smoke: 3 still to do" in told
    assert "500 ms a supernet step of size `smoke`" in told
    assert "extrapolated: 30 steps" in told  # 2 x 10 search, 10 retrain
    assert "GiB free" in told
    assert "3 searches an arm find differences from about 2.5 dB" in told  # 5.66 x sqrt(2) x 0.55 / sqrt(3)


def test_a_dry_run_believes_finished_runs_first(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(estimates, "time_step", lambda *_, **__: estimates.StepTime(0.5, 0.25))
    sweep = parse(sweeps.Sweep, SWEEP)
    runs = sweep.runs()
    write_json(tmp_path / f"{runs[0].name}.json", {"status": "done", "seconds": 1800.0})
    told = estimates.describe(sweep, runs, tmp_path)
    assert "2 still to do" in told
    assert "1.0 hours" in told
    assert "1800 s a run, measured on the runs that are done" in told


def test_dry_run_and_cost_as_commands(monkeypatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(estimates, "time_step", lambda *_, **__: estimates.StepTime(0.5, 0.25))
    assert main(["sweep", "arms.yaml", "--dry-run", "--out", str(tmp_path)]) == 0
    assert "39 runs of notebook 06" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    assert main(["cost", "02"]) == 2
    assert "trains nothing" in capsys.readouterr().err
