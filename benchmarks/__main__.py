"""python -m benchmarks [--full] [--only pace search retrain derain loss sweeps loader ...] [--out FOLDER]

Prints tables and writes results.json and sweeps.png. Three parts run only when they are named: `compiled`, minutes of
warm-up; `growth`, pictures of 24 megapixels and folders of 10,000 pairs; `engines`, which exports two networks.
Without --full, batches are as small as a two-core machine wants (the network is the paper's all the same); --full
takes the paper's batches and is for a GPU or a long night.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch

from manas_lite.networks.space import SearchSpace
from manas_lite.runs.environment import describe_environment

from . import cases, engines, growth, loader, processes, report, targets
from .measure import convolution_rates, dispatches, flops, interleaved, matmul_rate, peak_memory, ratio, saved_bytes

HERE = Path(__file__).parent
PARTS = ("pace", "search", "retrain", "derain", "loss", "sweeps", "loader", "processes")
ON_REQUEST = ("compiled", "growth", "engines")


def compare(names: dict[str, str], size: dict[str, Any], rounds: int, threads: int) -> list[dict[str, Any]]:
    """Rows of one comparison; the first of `names` (label -> maker) is what the others are held against."""
    runs = {label: cases.MAKERS[maker](**size) for label, maker in names.items()}
    rate = matmul_rate()
    large = size.get("height", 0) * size.get("width", 0) > 10**6  # many seconds a run: once is enough
    seconds = interleaved(runs, rounds, warm_up=0 if large else 1)
    first, *_ = runs
    rows = []
    for label, run in runs.items():
        counted = 0 if large else flops(run)
        middle = statistics.median(seconds[label])
        row = {
            "what": names[label].split()[0],
            "who": label,
            "size": size,
            "seconds": seconds[label],
            "faster": ratio(seconds[first], seconds[label]),
            "flops": counted,
            "flops_a_second": counted / middle,
            "matmul_flops_a_second": rate,
            "dispatches": 0 if large else dispatches(run),
        }
        rows.append(row)
    del runs, run
    plain = {key: value for key, value in size.items() if key != "space"}
    for row in rows:
        row["memory"] = peak_memory(names[row["who"]], json.dumps(plain), str(threads))
    report.print_rows(rows)
    return rows


def steps(kind: str, batch: int, rounds: int, threads: int) -> list[dict[str, Any]]:
    extra = {"edges recomputed": "search kit, edges recomputed"} if kind == "search" else {}
    names = {"textbook": f"{kind} textbook", "kit": f"{kind} kit"}
    names |= extra | {"all recomputed": f"{kind} kit, all recomputed"}
    return compare(names, {"batch": batch}, rounds, threads)


def pictures(rounds: int, threads: int) -> list[dict[str, Any]]:
    names = {"textbook": "derain textbook", "kit": "derain kit", "kit, bf16": "derain kit, bf16"}
    rows = compare(names, {"height": 64, "width": 64}, 5 * rounds, threads)
    rows += compare(names, {"height": 321, "width": 481}, rounds, threads)
    tiled = {"textbook": "derain textbook", "kit, tiles": "derain kit, tiles"}
    rows += compare(tiled, {"height": 1080, "width": 1920}, 1, threads)
    return rows


def tiles() -> dict[str, float]:
    """How far tiles are from the whole picture, the gates' statistics carried or not; relative to its largest value."""
    size = {"height": 512, "width": 640}
    whole = cases.derain_kit(**size)()
    scale = whole.abs().max()
    return {
        "carried": float((cases.derain_kit(**size, tile=128)() - whole).abs().max() / scale),
        "on their own": float((cases.derain_kit(**size, tile=128, carry=False)() - whole).abs().max() / scale),
        "on their own, mean": float((cases.derain_kit(**size, tile=128, carry=False)() - whole).abs().mean() / scale),
    }


def compiled(rounds: int) -> dict[str, Any]:
    """torch.compile on one picture size: what warm-up costs and what it brings."""
    import time

    size = {"height": 320, "width": 480}
    runs: dict[str, Callable[[], Any]] = {
        "textbook": cases.derain_textbook(**size),
        "kit": cases.derain_kit(**size),
        "kit, compiled": cases.derain_kit(**size, compiled=True),
    }
    start = time.perf_counter()
    gap = float((runs["kit, compiled"]() - runs["textbook"]()).abs().max())
    warm_up = time.perf_counter() - start
    seconds = interleaved(runs, rounds)
    faster = {name: ratio(seconds["textbook"], values) for name, values in seconds.items()}
    return {"size": size, "warm_up_seconds": warm_up, "faster": faster, "seconds": seconds, "gap": gap}


def losses() -> dict[str, Any]:
    """Dispatches of the loss at the paper's batch, forward and backward."""
    size = cases.Size(batch=16)
    counts = {"textbook": dispatches(cases.loss_textbook(size)), "kit": dispatches(cases.loss_kit(size))}
    return {"dispatches": counts, "fewer": counts["textbook"] / counts["kit"]}


def pace() -> dict[str, float]:
    """FLOP/s that this machine reaches on one operation at a time."""
    return {"matrix product": matmul_rate(), **convolution_rates()}


SWEPT: dict[str, list[Any]] = {
    "channels": [8, 16, 32, 64],
    "patch": [16, 32, 64, 128],
    "batch": [1, 2, 4, 8],
    "rains": [1, 2, 4, 8],
    "branches": [2, 3, 4],
}


def sweeps(rounds: int) -> list[dict[str, Any]]:
    """A search step as one size grows from a small base; the kit and the textbook in turns."""
    points = []
    for name, values in SWEPT.items():
        for value in values:
            base: dict[str, Any] = {"batch": 1, "rains": 3, "patch": 32}
            width, branches = (value if name == "channels" else 16), (value if name == "branches" else 3)
            space = SearchSpace(tuple(width * 2**i for i in range(branches)), modules_per_cell=2)
            size = cases.Size(space, **(base | ({name: value} if name in base else {})))
            runs = {"textbook": cases.search_textbook(size), "kit": cases.search_kit(size)}
            seconds = interleaved(runs, rounds)
            saved = {who: _saved(who, size) for who in runs}
            middle = {who: statistics.median(values) for who, values in seconds.items()}
            points.append({"swept": name, "value": value, "seconds": middle, "saved_bytes": saved})
            print(f"  {name:>9} {value:>4}  " + "  ".join(f"{who} {s * 1e3:8.1f} ms" for who, s in middle.items()))
    return points


def _saved(who: str, size: cases.Size) -> int:
    from manas_lite.networks.nets import SuperNet

    from . import kit

    net: Any = SuperNet(size.space).train()
    net = kit.twin(net) if who == "textbook" else net.to(memory_format=torch.channels_last)
    ((rainy, _),) = size.batches(torch.device("cpu"), 1)
    return saved_bytes(net, rainy.flatten(0, 1))


def saved() -> dict[str, int]:
    """Bytes that a forward pass of the paper's supernet keeps, weights left out, on 3 images of 64 x 64."""
    from manas_lite.networks.nets import SuperNet

    from . import kit

    net = SuperNet(cases.PAPER).train()
    twin, x = kit.twin(net), torch.rand(3, 3, 64, 64)
    result = {"textbook": saved_bytes(twin, x)}
    for checkpoint in ("none", "edges", "all"):
        net.set_recompute(checkpoint)  # type: ignore[arg-type]
        result[f"kit, {checkpoint} recomputed" if checkpoint != "none" else "kit"] = saved_bytes(net, x)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="the paper's batches")
    parser.add_argument("--only", nargs="+", choices=PARTS + ON_REQUEST, default=PARTS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    chosen.out.mkdir(parents=True, exist_ok=True)
    file = chosen.out / "results.json"
    results: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    batches = {"search": 16, "retrain": 32} if chosen.full else {"search": 4, "retrain": 4}

    parts: dict[str, Callable[[], Any]] = {
        "pace": pace,
        "search": lambda: {
            "rows": steps("search", batches["search"], chosen.rounds, chosen.threads),
            "saved_bytes": saved(),
        },
        "retrain": lambda: {"rows": steps("retrain", batches["retrain"], chosen.rounds, chosen.threads)},
        "derain": lambda: {"rows": pictures(chosen.rounds, chosen.threads), "tiles": tiles()},
        "compiled": lambda: compiled(chosen.rounds),
        "growth": growth.growth,
        "engines": lambda: engines.engines(chosen.rounds),
        "loss": losses,
        "sweeps": lambda: sweeps(chosen.rounds),
        "loader": loader.idle,
        "processes": lambda: processes.scaling(chosen.rounds),
    }
    for name in chosen.only:
        print(f"{name}:")
        facts = describe_environment()
        results[name] = {
            "found": parts[name](),
            "date": date.today().isoformat(),
            "threads": chosen.threads,
            "machine": {key: facts[key] for key in ("platform", "cpu", "gpus", "versions", "git")},
        }
        file.write_text(json.dumps(results, indent=1) + "\n")
    if "sweeps" in results:
        report.plot(results["sweeps"]["found"], chosen.out / "sweeps.png")
    text = report.summary({name: results[name] for name in PARTS + ON_REQUEST if name in results})
    print(text)
    if chosen.out == HERE / "results" and not chosen.full:
        report.write_tables(text, HERE / "README.md", "tables")
        report.write_tables(targets.table(results), HERE / "README.md", "targets")


if __name__ == "__main__":
    main()
