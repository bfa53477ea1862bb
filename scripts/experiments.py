"""What the experiments share: a training without a run directory, a timed search, CSV files that grow by rows."""

import csv
import os
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from manas_lite import RetrainSettings, SearchResult, SearchSettings, SearchSpace, search
from manas_lite.compute.runtime import Compute, ComputeSettings
from manas_lite.data import SceneBatch, Split
from manas_lite.losses import DerainLoss
from manas_lite.runs.record import plain, read_json, write_json
from manas_lite.training.loop import cosine, set_rate, weight_step
from manas_lite.training.retraining import Average

ONE_THREAD = ComputeSettings(device="cpu", threads=1)


def train(net: nn.Module, batches: Iterable[SceneBatch], recipe: RetrainSettings, compute: Compute) -> nn.Module:
    """`retrain` in memory, for any network: the moving average of its weights after the last step."""
    if recipe.ema is None:
        raise ValueError("the experiments judge the averaged weights: the recipe needs an ema")
    net = compute.prepare(net).train()
    average, loss = Average(net, recipe.ema), DerainLoss(recipe.loss)
    optimizer = torch.optim.Adam(net.parameters(), recipe.rate)
    total = recipe.epochs * recipe.steps
    for step, batch in enumerate(batches):
        set_rate(optimizer, cosine(step, total, recipe.rate, recipe.rate_end, recipe.warmup))

        def loss_of(part: SceneBatch, epoch: int = step // recipe.steps) -> tuple[Tensor, dict[str, Tensor]]:
            with compute.autocast():
                outputs = net(compute.images(part.rainy))
            return loss(outputs.float().unflatten(0, part.rainy.shape[:2]), part.clean, epoch=epoch)

        weight_step(optimizer, loss_of, batch.to(compute.device), clip=recipe.clip, scaler=compute.scaler)
        average.follow(net, step)
    return average.net.eval()


def timed_search(
    space: SearchSpace, split: Split, settings: SearchSettings, *, runs: Path, name: str
) -> tuple[SearchResult, float]:
    """A search and its CPU seconds, which stay beside the run. One that was cut is begun anew: what it cost before the
    cut is not known, and a search that looks cheaper than it was would win comparisons at equal cost."""
    file = runs / name / "cpu_seconds.json"
    if not file.exists():
        shutil.rmtree(runs / name, ignore_errors=True)
    start = time.process_time()
    found = search(space, split, settings, runs_dir=runs, name=name, progress=False)
    if not file.exists():
        write_json(file, {"seconds": round(time.process_time() - start, 2)})
    return found, float(read_json(file)["seconds"])


def check_protocol(path: Path, protocol: Mapping[str, Any]) -> None:
    """Holds rows to one protocol: what is in the JSON file `path` must be this; the file is written if missing.

    Raises ValueError naming the parts that differ: rows of two protocols would be compared as if they were of one.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, protocol)
    found = read_json(path)
    wrong = [
        name for name, part in plain(protocol).items() if without_machine(found.get(name)) != without_machine(part)
    ]
    if wrong:
        raise ValueError(f"{path} was begun with another {' and '.join(wrong)}: move {path.parent} away to begin anew")


def without_machine(part: Any) -> Any:
    """Return a part of a protocol without the settings of the machine, which change names and not results."""
    if not isinstance(part, dict):
        return part
    return {name: without_machine(value) for name, value in part.items() if name != "compute"}


def append(path: Path, row: Mapping[str, Any]) -> None:
    """A row at the end of a CSV file, on the disk when this returns."""
    fresh = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if fresh:
            writer.writeheader()
        writer.writerow(row)
        file.flush()
        os.fsync(file.fileno())


def rewrite(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """These rows in place of the file's, all or none."""
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    for row in rows:
        append(part, row)
    os.replace(part, path)


def rows(path: Path) -> list[dict[str, str]]:
    """All rows of a CSV file; none where there is no file yet."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
