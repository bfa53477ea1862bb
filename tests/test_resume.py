"""A run that was cut, called again, ends exactly as one that was not: by SIGKILL, and by errors at many moments."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import tiny
from safetensors import safe_open
from torch.optim.optimizer import register_optimizer_step_pre_hook

from manas_lite.data import Split
from manas_lite.networks.genotype import Genotype
from manas_lite.runs import checkpoint as checkpoints
from manas_lite.training.retraining import RetrainResult, retrain
from manas_lite.training.searching import SearchResult, search

PROGRAM = Path(tiny.__file__)


def start(what: str, data: Path, runs: Path, name: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(PROGRAM.parents[1])}
    return subprocess.Popen([sys.executable, str(PROGRAM), what, str(data), str(runs), name], env=environment)


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def steps_done(path: Path) -> int:
    return checkpoints.read(path)[1]["step"] if path.exists() else 0


def tensors(path: Path) -> dict:
    with safe_open(path, "numpy") as file:
        return {key: file.get_tensor(key).tobytes() for key in file.keys()}  # noqa: SIM118


@pytest.mark.parametrize("what", ["search", "retrain"])
def test_a_killed_run_resumes_bit_exactly(what, tmp_path):
    data = tmp_path / "data"
    assert start(what, data, tmp_path, "whole").wait(120) == 0

    log = tmp_path / "cut" / "log.jsonl"
    checkpoint = tmp_path / "cut" / "checkpoint.safetensors"
    process = start(what, data, tmp_path, "cut")
    deadline = time.monotonic() + 120
    while steps_done(checkpoint) < 8 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)  # past the warm-up: the architecture's optimiser has a state to lose
    process.send_signal(signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL, "the run ended before it could be killed"
    done = len(records(log)) if log.exists() else 0
    assert 0 < done < len(records(tmp_path / "whole" / "log.jsonl"))

    assert start(what, data, tmp_path, "cut").wait(120) == 0
    assert records(log) == records(tmp_path / "whole" / "log.jsonl")
    for file in (
        "checkpoint.safetensors",
        "supernet.safetensors" if what == "search" else "weights.safetensors",
    ):
        assert tensors(tmp_path / "cut" / file) == tensors(tmp_path / "whole" / file), file
    assert (tmp_path / "cut" / "genotype.json").read_text() == (tmp_path / "whole" / "genotype.json").read_text()


# --- cut within one process: fast, and at many moments ---


class Cut(Exception):
    pass


@contextmanager
def cut_at(update: int | None) -> Iterator[list[int]]:
    """Let the optimiser step number `update`, counted from 0 over all optimisers, raise instead; None: none does."""
    count = [0]

    def note(*_) -> None:
        if count[0] == update:
            raise Cut
        count[0] += 1

    handle = register_optimizer_step_pre_hook(note)
    try:
        yield count
    finally:
        handle.remove()


# The rate rises until it ruins the network: the best epoch lies before most cuts, and later ones are worse.
RETRAIN = replace(tiny.RETRAIN, epochs=4, steps=8, batch=6, rate=3e-4, rate_end=0.3, warmup=3, checkpoint_every=2)
RETRAINED = Genotype.hand_made(replace(tiny.SPACE, norm="none"))
SEARCH = replace(
    tiny.SEARCH,
    epochs=5,
    steps=3,
    relaxation="gumbel",
    temperature=3.0,
    temperature_end=0.5,
    eigenvalue_every=0,
    checkpoint_every=2,
    early_stop=False,
)


@pytest.fixture(scope="module")
def split(tmp_path_factory) -> Split:
    return tiny.tiny_split(tmp_path_factory.mktemp("pictures"))


def run(what: str, split: Split, runs: Path, name: str) -> SearchResult | RetrainResult:
    if what == "search":
        return search(tiny.SPACE, split, SEARCH, runs_dir=runs, name=name, progress=False)
    return retrain(RETRAINED, split, RETRAIN, runs_dir=runs, name=name, progress=False)


@pytest.fixture(scope="module")
def whole(split, tmp_path_factory) -> Callable[[str], tuple[Path, int]]:
    """The folder of an uncut run, and how many optimiser steps it took."""

    @cache
    def made(what: str) -> tuple[Path, int]:
        runs = tmp_path_factory.mktemp("whole")
        with cut_at(None) as count:
            run(what, split, runs, what)
        return runs / what, count[0]

    return made


def facts(folder: Path) -> dict:
    """All that a run leaves, bit by bit, but for the times in its manifest."""
    files = {path.name: path for path in folder.iterdir() if path.name != "manifest.json"}
    texts = {name: path.read_text() for name, path in files.items() if path.suffix in (".json", ".jsonl")}
    saved = {name: tensors(path) for name, path in files.items() if path.suffix == ".safetensors"}
    _, meta = checkpoints.read(files["checkpoint.safetensors"])
    return {**texts, **saved, "meta": meta}


# Both checkpoint after two epochs and at the end: a retraining after updates 16 and 32; a search, whose first epoch
# moves the weights alone, after 3 + 2 * 3 = 9, and after 21 of 27 (updates of both optimisers).
@pytest.mark.parametrize(
    ("what", "updates"),
    [
        ("retrain", (1,)),  # before any checkpoint
        ("retrain", (14,)),  # with a log that is ahead of the checkpoint, as there is none yet
        ("retrain", (16,)),  # right after a checkpoint
        ("retrain", (28,)),  # an epoch and more after it: the log is ahead of it
        ("retrain", (10, 12, 9)),  # twice more, counted from where it goes on
        ("search", (8,)),  # with an epoch in the log, and no checkpoint yet
        ("search", (10,)),  # between an architecture step and the weight step after it
        ("search", (18, 11)),
    ],
)
def test_a_cut_run_goes_on_bit_exactly(split, whole, tmp_path, what, updates):
    folder, total = whole(what)
    expected = facts(folder)
    for update in updates:
        with cut_at(update) as count, pytest.raises(Cut):
            run(what, split, tmp_path, "cut")
        assert count[0] == update < total
    result = run(what, split, tmp_path, "cut")
    found = facts(tmp_path / "cut")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == value, name
    assert result.log == records(folder / "log.jsonl")


def test_the_cut_retraining_has_its_best_epoch_before_the_cuts(whole):
    """What the test above relies on: a best score that is forgotten would make a later, worse epoch the best."""
    folder, _ = whole("retrain")
    scores = [record["val_psnr_rgb"] for record in records(folder / "log.jsonl") if record["kind"] == "epoch"]
    best = scores.index(max(scores))
    assert best < 2
    assert json.loads((folder / "metrics.json").read_text())["best_epoch"] == best
