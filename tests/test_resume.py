"""A killed run, called again, ends exactly as one that was never killed (a real SIGKILL, on CPU)."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
from safetensors import safe_open

from manas_lite.runs import checkpoint as checkpoints

PROGRAM = Path(tiny.__file__)


def start(what: str, data: Path, runs: Path, name: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(PROGRAM.parents[1])}
    return subprocess.Popen([sys.executable, str(PROGRAM), what, str(data), str(runs), name], env=environment)


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def steps_done(path: Path) -> int:
    return checkpoints.load(path)[1]["step"] if path.exists() else 0


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
