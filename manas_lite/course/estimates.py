"""What a sweep will cost, before it is started: a few steps timed here, everything else multiplied."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from ..backbone import SuperNet
from ..data import open_split, scene_loader
from ..losses import DerainLoss
from ..runtime import Compute
from ..schedules import SearchSettings
from ..space import SearchSpace
from . import sources, sweeps
from .registry import find, preset

__all__ = ["describe", "step_seconds"]

STEPS = 20


def step_seconds(space: SearchSpace, settings: SearchSettings, data: str, steps: int = STEPS) -> float:
    """Median seconds of a weight step of the supernet, the dearest step there is, over `steps` of them, here."""
    compute = Compute(settings.compute, space.channels[0])
    net, loss = compute.prepare(SuperNet(space)), DerainLoss(settings.loss)
    scenes = open_split(data).train
    loader = scene_loader(scenes, batch=settings.batch, patch=settings.patch, seed=0, steps=steps + 1)
    times = []
    with compute.session():
        for batch in loader:
            batch = batch.to(compute.device)
            began = time.perf_counter()
            outputs = net(compute.images(batch.rainy)).unflatten(0, batch.rainy.shape[:2])
            total, _ = loss(outputs.float(), batch.clean, epoch=settings.epochs)
            torch.autograd.grad(total, net.weight_parameters(), allow_unused=True)
            float(total)  # waits for a GPU
            times.append(time.perf_counter() - began)
    return sorted(times[1:])[len(times[1:]) // 2]


def describe(sweep: sweeps.Sweep, runs: Sequence[sweeps.Run], out: Path) -> str:
    """Runs, hours, disk, and what is done already. Hours come from finished runs of this sweep where there are some,
    else from the notebook's recorded cost at this preset."""
    todo = [run for run in runs if not sweeps.finished(run, out)]
    notebook = find(sweep.notebook)
    seconds = _measured(runs, out)
    source = "measured on the runs that are done"
    if seconds is None:
        rows = [row["seconds"] for row in sources.measured_costs(notebook) if row["preset"] == sweep.preset]
        seconds, source = (rows[0], f"as notebook {notebook.number} took at `{sweep.preset}`") if rows else (None, "")
    size = {**preset(sweep.preset, notebook), **sweep.parameters}.get("size", "teach")
    settings = SearchSettings.preset(str(size))
    step = step_seconds(SearchSpace.preset(str(size)), settings, "photos")
    lines = [f"{len(runs)} runs of notebook {notebook.number} at preset {sweep.preset}: {len(todo)} still to do"]
    if seconds is not None:
        lines.append(f"{len(todo) * seconds / 3600:.2f} hours, one after another ({seconds:.0f} s a run, {source})")
    lines.append(f"{1000 * step:.0f} ms a supernet step of size `{size}` here (median of {STEPS})")
    existing = out if out.exists() else next(parent for parent in out.resolve().parents if parent.exists())
    lines.append(f"disk: {shutil.disk_usage(existing).free / 2**30:.0f} GiB free at {existing.name}")
    return "\n".join(lines)


def _measured(runs: Sequence[sweeps.Run], out: Path) -> float | None:
    import json

    done = [json.loads((out / f"{run.name}.json").read_text()) for run in runs if sweeps.finished(run, out)]
    return sum(fact["seconds"] for fact in done) / len(done) if done else None
