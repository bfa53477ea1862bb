"""What the experiments share: a training without a run directory, and CSV files that grow a row at a time."""

import csv
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from manas_lite import RetrainSettings
from manas_lite.data import SceneBatch
from manas_lite.loop import cosine, set_rate, update
from manas_lite.losses import DerainLoss
from manas_lite.runtime import Compute, ComputeSettings
from manas_lite.training import Average

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
        part = batch.to(compute.device)
        outputs = net(compute.images(part.rainy)).unflatten(0, part.rainy.shape[:2])
        value, _ = loss(outputs, part.clean, epoch=step // recipe.steps)
        update(optimizer, compute.scaler, iter([value]), list(net.parameters()), recipe.clip)
        average.follow(net, step)
    return average.net.eval()


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


def rows(path: Path) -> list[dict[str, str]]:
    """All rows of a CSV file; none where there is no file yet."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
