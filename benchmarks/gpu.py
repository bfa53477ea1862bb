"""python -m benchmarks.gpu [--out FOLDER] [--minutes 15] [--only PART ...] [--again]: everything that a GPU must show.

Each part writes one file, FOLDER/<part>.json, with the device and the date. A part whose file is there, of this device
and this commit, is not done again: the same command continues. A part begins only while minutes are left; those that
are not begun are named, and the exit status is 1 where a test failed or a part is missing. Without a GPU every part
runs on the CPU at tiny sizes: that tries the program and measures nothing.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks import cases, loader
from benchmarks.measure import convolution_rates, dispatches, interleaved, matmul_rate, ratio
from manas_lite.networks.space import SearchSpace
from manas_lite.runs.environment import describe_environment

ROOT = Path(__file__).resolve().parents[1]
CUDA = torch.cuda.is_available()
ROUNDS = 5 if CUDA else 1
TINY = SearchSpace((8, 12), 1)
SPACES = {name: SearchSpace.preset(name) for name in ("lite", "teach", "paper")} if CUDA else {"tiny": TINY}
TARGETS = {"search": 4.0, "retrain": 3.0}
"""Times faster than the textbook, in paper size."""


def outcomes(left: float, where: str) -> dict[str, Any]:
    """Run the tests in a process of its own, for at most `left` seconds, and return what became of each."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "junit.xml"
        command = [sys.executable, "-m", "pytest", "-q", where, f"--junitxml={file}"]
        status = subprocess.run(command, cwd=ROOT, check=False, timeout=left).returncode
        found: dict[str, list[Any]] = {"passed": [], "failed": [], "skipped": []}
        for case in ET.parse(file).iter("testcase"):
            bad = next((child for child in case if child.tag in ("failure", "error")), None)
            skipped = next((child for child in case if child.tag == "skipped"), None)
            kind, child = ("failed", bad) if bad is not None else ("skipped", skipped)
            if child is None:
                found["passed"].append(case.get("name"))
            else:
                found[kind].append(f"{case.get('name')}: {(child.get('message') or '').splitlines()[0]}")
    return {"ok": status == 0, **found}


def waits(run: Callable[[], Any]) -> int | None:
    """Return how often the host waits for the GPU in a run; None without a GPU."""
    if not CUDA:
        return None
    import warnings

    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)


def steps(kind: str) -> list[dict[str, Any]]:
    """Time steps of each space at its own batch: the textbook, the kit in float32, as auto has it, and recomputed."""
    maker = {"search": cases.search_kit, "retrain": cases.retrain_kit}[kind]
    plain = {"search": cases.search_textbook, "retrain": cases.retrain_textbook}[kind]
    rows = []
    for name, space in SPACES.items():
        large = CUDA and torch.cuda.get_device_properties(0).total_memory > 30 * 2**30  # 1 GiB a scene
        batch = {"paper": 16 if large else 4, "lite": 16, "teach": 8}.get(name, 1)
        size = cases.Size(space, batch=batch, patch=64 if CUDA else 16)
        # The textbook is of the published frame alone; where it has no twin, the kit in float32 is the measure.
        twin = {"textbook": lambda size=size: plain(size)} if space.stem == "bottleneck" else {}
        makers: dict[str, Callable[[], Callable[[], Any]]] = {
            **twin,
            "kit, fp32": lambda size=size: maker(size),
            "kit, auto": lambda size=size: maker(size, precision="auto"),
            "kit, bf16": lambda size=size: maker(size, precision="bf16"),
            "kit, all recomputed": lambda size=size: maker(size, checkpoint="all"),
        }
        runs, peaks = {}, {}
        for label, make in makers.items():
            before = torch.cuda.memory_allocated() if CUDA else 0
            runs[label] = make()
            if CUDA:
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
            runs[label]()
            peaks[label] = torch.cuda.max_memory_allocated() - before if CUDA else None
        seconds = interleaved(runs, ROUNDS)
        for label, run in runs.items():
            rows.append(
                {
                    "space": name,
                    "batch": f"{size.batch}x{size.rains} patches of {size.patch}",
                    "who": label,
                    "seconds": seconds[label],
                    "faster": ratio(seconds[next(iter(makers))], seconds[label]),
                    "peak_bytes": peaks[label],
                    "dispatches": dispatches(run),
                    "waits": waits(run),
                }
            )
            print(f"  {name} {label}: {rows[-1]['faster']}", flush=True)
    return rows


def pictures() -> list[dict[str, Any]]:
    """Time pictures: the textbook, the kit in float32 and in bf16."""
    rows = []
    for height, width in ((321, 481), (1080, 1920)) if CUDA else ((32, 48),):
        space = {} if CUDA else {"space": TINY}
        size: dict[str, Any] = {"height": height, "width": width, **space}
        runs = {
            "textbook": cases.derain_textbook(**size),
            "kit": cases.derain_kit(**size),
            "kit, bf16": cases.derain_kit(**size, precision="bf16"),
        }
        seconds = interleaved(runs, ROUNDS)
        rows += [
            {"size": [height, width], "who": who, "seconds": s, "faster": ratio(seconds["textbook"], s)}
            for who, s in seconds.items()
        ]
    return rows


def switches() -> dict[str, Any]:
    """Time what no default does: cuDNN's own search for kernels, TF32 switched off, and compiling."""
    name, batch, patch = ("lite", 16, 64) if CUDA else ("smoke", 1, 16)
    size = cases.Size(SearchSpace.preset(name), batch=batch, patch=patch)
    step = cases.retrain_kit(size)

    def under(**flags: bool) -> Callable[[], Any]:
        def run() -> Any:
            before = {name: getattr(torch.backends.cudnn, name) for name in flags}
            try:
                for name, value in flags.items():
                    setattr(torch.backends.cudnn, name, value)
                return step()
            finally:
                for name, value in before.items():
                    setattr(torch.backends.cudnn, name, value)

        return run

    runs = {"as it is": step, "cudnn.benchmark": under(benchmark=True), "without TF32": under(allow_tf32=False)}
    seconds = interleaved(runs, ROUNDS, warm_up=2 if CUDA else 0)
    found: dict[str, Any] = {name: ratio(seconds["as it is"], values) for name, values in seconds.items()}
    if CUDA:
        picture = {"height": 320, "width": 480}
        eager, compiled = cases.derain_kit(**picture), cases.derain_kit(**picture, compiled=True)
        began = time.perf_counter()
        compiled()
        found["compiled picture, warm-up seconds"] = time.perf_counter() - began
        both = interleaved({"eager": eager, "compiled": compiled}, ROUNDS)
        found["compiled picture"] = ratio(both["eager"], both["compiled"])
    return found


def presets() -> list[dict[str, Any]]:
    """Return what each notebook that trains takes at the preset `gpu`: some steps timed, the rest multiplied."""
    from tools.course.contents import notebooks
    from tools.course.estimates import extrapolated

    preset, timed, scenes = ("gpu", 20, None) if CUDA else ("smoke", 1, 1)
    rows = []
    for notebook in notebooks():
        if notebook.trains:
            rows.append({"notebook": notebook.stem, **extrapolated(notebook, preset, steps=timed, scenes=scenes)})
            print(f"  {rows[-1]}", flush=True)
    return rows


def pace() -> dict[str, float]:
    """Return the FLOP/s of one operation at a time."""
    return (
        {"matrix product": matmul_rate(), **convolution_rates()} if CUDA else {"matrix product": matmul_rate(side=64)}
    )


def loading() -> dict[str, Any]:
    """Return how long a step waits for its batch, without and with a loading process."""
    return loader.idle() if CUDA else loader.idle(steps=2, space="smoke", batch=1, patch=16)


PARTS: dict[str, Callable[[float], Any]] = {
    "tests": lambda left: outcomes(left, "tests/gpu"),
    "pace": lambda left: pace(),
    "search": lambda left: steps("search"),
    "retrain": lambda left: steps("retrain"),
    "derain": lambda left: pictures(),
    "loader": lambda left: loading(),
    "switches": lambda left: switches(),
    "presets": lambda left: presets(),
}
"""The parts in their order, each given the seconds that are left."""


def device_name() -> str:
    return torch.cuda.get_device_name() if CUDA else "cpu (nothing is measured)"


def run_parts(
    parts: dict[str, Callable[[float], Any]], out: Path, *, minutes: float, again: bool = False, commit: Any = None
) -> list[str]:
    """Do the parts that have no file yet, while minutes are left; return the names of those that are not done."""
    out.mkdir(parents=True, exist_ok=True)
    end, missing = time.monotonic() + 60 * minutes, []
    for name, part in parts.items():
        file = out / f"{name}.json"
        known = json.loads(file.read_text()) if file.exists() and not again else {}
        if (known.get("device"), known.get("commit")) == (device_name(), commit) and "error" not in known:
            print(f"{name}: done on {known['date']}", flush=True)
            continue
        left = end - time.monotonic()
        if left <= 0:
            missing.append(name)
            continue
        print(f"{name}:", flush=True)
        entry = {"device": device_name(), "commit": commit, "date": datetime.now(UTC).isoformat(timespec="seconds")}
        try:
            entry["found"] = part(left)
        except Exception as error:  # one part that fails must not take the others' time on the device along
            entry["error"] = f"{type(error).__name__}: {error}"
            missing.append(name)
            print(f"  failed: {entry['error']}", flush=True)
        entry["seconds"] = round(time.monotonic() - (end - left), 1)
        file.write_text(json.dumps(entry, indent=1) + "\n")
    return missing


def verdicts(out: Path) -> list[str]:
    """Return a line per target, from the files of the parts."""
    lines = []
    for kind, least in TARGETS.items():
        file = out / f"{kind}.json"
        rows = json.loads(file.read_text()).get("found", []) if file.exists() else []
        paper = {row["who"]: row for row in rows if row["space"] == "paper"}
        if paper:
            faster = paper["kit, auto"]["faster"]["median"]
            share = paper["kit, auto"]["peak_bytes"] / paper["textbook"]["peak_bytes"]
            reached = "reached" if faster >= least else "missed"
            lines.append(f"{kind}: {faster:.2f}x (target {least:g}x, {reached}), {share:.2f} of the textbook's memory")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "gpu")
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=[*PARTS])
    parser.add_argument("--again", action="store_true", help="also what is done already")
    options = parser.parse_args()
    if not CUDA:
        print("no CUDA device is here: tiny sizes on the CPU, which try the program and measure nothing")
        torch.set_num_threads(1)
        if options.out == ROOT / "results" / "gpu":
            options.out = Path(tempfile.mkdtemp(prefix="gpu-"))  # what is no measurement is not kept beside results
    git = describe_environment()["git"]
    chosen = {name: PARTS[name] for name in options.only}
    commit = git and git["commit"]
    missing = run_parts(chosen, options.out, minutes=options.minutes, again=options.again, commit=commit)
    print("\n".join([*verdicts(options.out), f"files: {options.out}"]))
    if missing:
        print(f"not done: {', '.join(missing)}; the same command goes on with them")
    file = options.out / "tests.json"
    failed = file.exists() and not json.loads(file.read_text()).get("found", {}).get("ok")
    return int(bool(missing) or bool(failed))


if __name__ == "__main__":
    sys.exit(main())
