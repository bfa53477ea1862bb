"""Runs on a real two-worker cluster, one worker killed in the middle, and the sweep complete all the same."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from manas_lite.runs.settings import parse
from tools.course import sweeps

pytest.importorskip("distributed", reason="the dask extra is not installed: pip install 'manas_lite[dask]'")


@pytest.mark.slow
def test_a_sweep_survives_the_death_of_a_worker(tmp_path: Path) -> None:
    from tools.course.distributed_sweeps import run_on_cluster

    sweep = parse(sweeps.Sweep, {"notebook": "02", "preset": "smoke", "grid": {"seed": [0, 1, 2]}})
    killed: list[int] = []

    def kill_one(client) -> None:
        def later() -> None:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                busy = [address for address, keys in client.processing().items() if keys]
                if busy:
                    time.sleep(2)
                    pid = client.run(os.getpid, workers=busy[:1])[busy[0]]
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
                    return
                time.sleep(0.2)

        threading.Thread(target=later, daemon=True).start()

    facts = run_on_cluster(sweep.runs(), tmp_path, "local:2", started=kill_one)
    assert len(killed) == 1
    assert [fact["status"] for fact in facts] == ["done"] * 3
    began = time.monotonic()
    again = run_on_cluster(sweep.runs(), tmp_path, "local:1")
    assert [fact["seconds"] for fact in again] == [fact["seconds"] for fact in facts]  # nothing was repeated
    assert time.monotonic() - began < 60


def test_where_must_be_understood(tmp_path: Path) -> None:
    from tools.course.distributed_sweeps import run_on_cluster

    with pytest.raises(ValueError, match="local:N"):
        run_on_cluster([], tmp_path, "local:many")
