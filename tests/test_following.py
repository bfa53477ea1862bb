"""Who follows a run: TensorBoard, read by its own reader, or a function; neither changes, doubles or ends the run."""

import dataclasses
import sys
import warnings
from pathlib import Path

import pytest
import tiny
import torch
from matplotlib.figure import Figure

from manas_lite.__main__ import main
from manas_lite.data import Split
from manas_lite.runs.record import RunDirectory, read_log
from manas_lite.training.retraining import retrain
from manas_lite.training.searching import search


@pytest.fixture(scope="module")
def split(tmp_path_factory) -> Split:
    return tiny.tiny_split(tmp_path_factory.mktemp("pictures"))


def run(kind: str, split: Split, folder: Path, name: str = "run", log_to=None, **changes):
    common = {"runs_dir": folder, "name": name, "progress": False, "log_to": log_to}
    if kind == "search":
        return search(tiny.SPACE, split, dataclasses.replace(tiny.SEARCH, **changes), **common)
    return retrain(tiny.GENOTYPE, split, dataclasses.replace(tiny.RETRAIN, **changes), **common)


def events(folder: Path):
    """TensorBoard's own reader, over all event files of a folder."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    return reader.EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0}).Reload()


def points(found, tag: str) -> dict[int, float]:
    """Values by step; every step must be there once."""
    scalars = found.Scalars(tag)
    assert len({scalar.step for scalar in scalars}) == len(scalars)
    return {scalar.step: scalar.value for scalar in scalars}


@pytest.mark.parametrize("kind", ["search", "retrain"])
def test_a_function_is_told_every_record_and_changes_nothing(kind: str, split: Split, tmp_path: Path) -> None:
    told: list[dict] = []
    followed, alone = run(kind, split, tmp_path, "followed", told.append), run(kind, split, tmp_path, "alone")
    kept = [
        {name: value for name, value in record.items() if name in written}
        for record, written in zip(told, followed.log, strict=True)
    ]
    assert kept == followed.log == alone.log
    net, other = (getattr(result, "net", None) or result.supernet for result in (followed, alone))
    for one, two in zip(net.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(one, two)
    drawn = [name for record in told for name, value in record.items() if isinstance(value, Figure)]
    assert set(drawn) == ({"architecture", "mixture"} if kind == "search" else {"architecture", "comparison"})
    assert not any(isinstance(value, Figure) for record in read_log(followed.path) for value in record.values())


@pytest.mark.parametrize("kind", ["search", "retrain"])
def test_tensorboard_holds_each_point_once_also_after_a_cut(
    kind: str, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = RunDirectory.log

    def cut(self, record) -> None:
        log(self, record)
        if record["step"] == 6:
            monkeypatch.setattr(RunDirectory, "log", log)
            raise KeyboardInterrupt

    monkeypatch.setattr(RunDirectory, "log", cut)
    with pytest.raises(KeyboardInterrupt):
        run(kind, split, tmp_path, log_to="tensorboard")
    assert 5 in points(events(tmp_path / "run"), "step/train")  # of the epoch that was cut: step 4 is where it goes on
    result = run(kind, split, tmp_path, log_to="tensorboard")
    run(kind, split, tmp_path, log_to="tensorboard")  # a finished run, opened again
    found = events(result.path)
    steps = {record["step"]: record for record in result.log if record["kind"] == "step"}
    values = points(found, "step/train")
    assert list(values) == list(steps) == list(range(12))
    assert [*values.values()] == pytest.approx([record["train"] for record in steps.values()])
    epochs = [record for record in result.log if record["kind"] == "epoch"]
    scalar = "expected_cost" if kind == "search" else "val_psnr_rgb"
    assert points(found, f"epoch/{scalar}") == pytest.approx({r["step"]: r[scalar] for r in epochs})
    for tag in ("architecture", "mixture" if kind == "search" else "comparison"):
        assert [image.step for image in found.Images(f"epoch/{tag}")] == [record["step"] for record in epochs]


def test_tensorboard_holds_the_weights_of_each_place_by_name(split: Split, tmp_path: Path) -> None:
    result = run("search", split, tmp_path, log_to="tensorboard", epochs=2)
    found = events(result.path)
    for record in result.epochs:
        for name, value in zip(tiny.SPACE.operations, record["beta"][2], strict=True):
            assert points(found, f"epoch/weights/edge 2/{name}")[record["step"]] == pytest.approx(value, abs=1e-6)
        assert points(found, "epoch/weights/module 0/fusion")[record["step"]] == pytest.approx(record["alpha"][0][1])


def test_a_search_that_stops_early_leaves_its_points(split: Split, tmp_path: Path) -> None:
    result = run("search", split, tmp_path, log_to="tensorboard", max_skip_share=-1.0, eigenvalue_ratio=None)
    assert result.stopped
    done = [record["step"] for record in result.log if record["kind"] == "step"]
    assert list(points(events(result.path), "step/train")) == done


@pytest.mark.parametrize("kind", ["search", "retrain"])
def test_a_fault_of_who_follows_is_told_once_and_loses_nothing(kind: str, split: Split, tmp_path: Path) -> None:
    calls = 0

    def faulty(record) -> None:
        nonlocal calls
        calls += 1
        raise RuntimeError("the network is down")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = run(kind, split, tmp_path, log_to=faulty)
    told = [str(warning.message) for warning in caught if "log_to" in str(warning.message)]
    assert len(told) == 1
    assert "RuntimeError: the network is down. The run goes on" in told[0]
    assert calls == len(result.log)  # it is tried again each time: the network may come back
    assert (result.path / "metrics.json").is_file()


def test_without_log_to_nothing_is_drawn_and_no_event_file_written(split: Split, tmp_path: Path, monkeypatch) -> None:
    from manas_lite import draw

    monkeypatch.setattr(draw, "architecture", None)
    for kind in ("search", "retrain"):
        result = run(kind, split, tmp_path, kind, epochs=1, **({"warmup": 0} if kind == "search" else {}))
        assert not list(result.path.glob("events.*"))


def test_another_log_to_is_told_and_loses_nothing(split: Split, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="log_to failed: TypeError: 'str' object is not callable"):
        result = run("retrain", split, tmp_path, log_to="wandb")
    assert (result.path / "metrics.json").is_file()


def test_a_missing_tensorboard_is_one_line(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    options = ["--genotype", "hand_made:smoke", "--preset", "smoke", "--device", "cpu", "--runs-dir", str(tmp_path)]
    assert main(["retrain", *options, "--log-to", "tensorboard"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == "error: log_to='tensorboard' needs an extra: pip install 'manas_lite[tensorboard]'"
