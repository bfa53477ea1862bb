"""Time `make demo` here, part by part, and write results/demo/time.json: the README's figure comes from there.

    python scripts/demo_time.py                 minutes; on a machine that does nothing else
    python scripts/demo_time.py --say           the sentence that the file stands for

The demo runs in a fresh folder, as a user's first one does, without the installation.
"""

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from manas_lite.runs.environment import describe_environment
from manas_lite.training import demo

FILE = Path(__file__).resolve().parents[1] / "results" / "demo" / "time.json"
PARTS = {
    "open_split": "data",
    "search": "search",
    "retrain": "retraining",
    "evaluate": "scores",
    "draw_pictures": "figures",
}
"""Functions that the demo calls, and what their time is counted as; the second process is a part of its own."""


def cpu_seconds() -> float:
    """Return the seconds that this process has computed so far, on all its threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def children_seconds() -> float:
    """Return the seconds that the processes started here, and ended, have computed."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(**options: Any) -> dict[str, Any]:
    """Run the demo with these options of `run_demo`; return its seconds on the clock and of computing, by part."""
    parts: dict[str, float] = dict.fromkeys(PARTS.values(), 0.0)

    def timed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            before = cpu_seconds()
            try:
                return function(*arguments, **named)
            finally:
                parts[part] += cpu_seconds() - before

        return run

    originals = {name: getattr(demo, name) for name in PARTS}
    began, own, children = time.perf_counter(), cpu_seconds(), children_seconds()
    try:
        for name, part in PARTS.items():
            setattr(demo, name, timed(part, originals[name]))
        demo.run_demo(**options)
    finally:
        for name, function in originals.items():
            setattr(demo, name, function)
    wall, own, children = time.perf_counter() - began, cpu_seconds() - own, children_seconds() - children
    parts["second process"] = children
    parts["rest"] = own - sum(seconds for part, seconds in parts.items() if part != "second process")
    return {
        "wall_seconds": round(wall, 1),
        "cpu_seconds": round(own + children, 1),
        "parts": {part: round(seconds, 1) for part, seconds in parts.items()},
    }


def sentence(found: dict[str, Any]) -> str:
    """Return what a README says of the file."""
    wall, computed = divmod(round(found["wall_seconds"]), 60), found["cpu_seconds"] / 60
    on = f"{found['cores']} cores of {found['cpu']}"
    return f"{wall[0]}:{wall[1]:02d} on {on}, {computed:.1f} minutes of computing ({found['date']})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--say", action="store_true", help="print the sentence of the file that is there")
    if not parser.parse_args().say:
        facts = describe_environment()
        load = os.getloadavg()[0]
        with tempfile.TemporaryDirectory() as folder:
            found = measure(runs_dir=folder, parallel=(os.cpu_count() or 1) > 1)
        found |= {"cpu": facts["cpu"]["name"], "cores": facts["cpu"]["count"], "load_before": round(load, 2)}
        found |= {"date": datetime.now(UTC).date().isoformat(), "versions": facts["versions"], "git": facts["git"]}
        FILE.write_text(json.dumps(found, indent=1) + "\n")
        if load > 0.5:
            print(f"the machine was busy before (load {load:.1f}): these are no times of a quiet one")
    print(sentence(json.loads(FILE.read_text())))


if __name__ == "__main__":
    main()
