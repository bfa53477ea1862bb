"""What a sweep will cost, before it is started: a few steps timed here, everything else multiplied."""

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..backbone import SuperNet
from ..data import open_split, scene_loader
from ..losses import DerainLoss
from ..runtime import Compute
from ..schedules import SearchSettings
from ..space import SearchSpace
from . import runner, sources, sweeps
from .differences import detectable
from .registry import find, preset

__all__ = ["describe", "step_seconds"]

STEPS = 20
SEED_DEVIATION = 0.55  # dB between searches: a probe on Rain100L with small networks found 0.5 to 0.65


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
            float(total.detach())  # waits for a GPU
            times.append(time.perf_counter() - began)
    return sorted(times[1:])[len(times[1:]) // 2]


def describe(sweep: sweeps.Sweep, runs: Sequence[sweeps.Run], out: Path) -> str:
    """Runs, hours, disk, what is done already, and what the searches will be able to tell apart.

    Seconds a run: those of finished runs of this sweep; else those recorded for the notebook at this preset; else steps
    times what a step takes here.
    """
    notebook = find(sweep.notebook)
    todo = [run for run in runs if not sweeps.finished(run, out)]
    defaults = {p.name: p.default for p in runner.parameters_of(sources.build(notebook, "solution"))}
    values = {**defaults, **preset(sweep.preset, notebook), **sweep.parameters}
    size = str(values.get("size", "teach"))
    step = step_seconds(SearchSpace.preset(size), SearchSettings.preset(size), "photos")
    lines = [f"{len(runs)} runs of notebook {notebook.number} at preset {sweep.preset}: {len(todo)} still to do"]
    lines.append(f"{1000 * step:.0f} ms a supernet step of size `{size}` here (median of {STEPS})")
    seconds, source = _seconds_a_run(sweep, runs, out, step, values)
    if seconds is not None:
        lines.append(f"{len(todo) * seconds / 3600:.1f} hours, one after another ({seconds:.0f} s a run, {source})")
    sizes = [file.stat().st_size for file in out.rglob("*") if file.is_file()] if out.exists() else []
    existing = out if out.exists() else next(parent for parent in out.resolve().parents if parent.exists())
    lines.append(f"disk: {sum(sizes) / 2**20:.0f} MiB used, {shutil.disk_usage(existing).free / 2**30:.0f} GiB free")
    if "search_seed" in sweep.grid:
        n = len(sweep.grid["search_seed"])
        spread = np.linspace(-1, 1, n).reshape(n, 1, 1) if n > 1 else np.zeros((1, 1, 1))
        found = detectable(SEED_DEVIATION * spread / (spread.std(ddof=1) if n > 1 else 1))
        lines.append(
            f"{n} searches an arm find differences from about {found:.1f} dB (seeds differ by {SEED_DEVIATION} dB)"
        )
    return "\n".join(lines)


def _seconds_a_run(
    sweep: sweeps.Sweep, runs: Sequence[sweeps.Run], out: Path, step: float, values: Mapping[str, Any]
) -> tuple[float | None, str]:
    measured = _measured(runs, out)
    if measured is not None:
        return measured, "measured on the runs that are done"
    rows = [r["seconds"] for r in sources.measured_costs(find(sweep.notebook)) if r["preset"] == sweep.preset]
    if rows:
        return rows[0], f"as notebook {sweep.notebook} took at `{sweep.preset}`"
    if {"search_steps", "retrain_steps"} <= set(values):  # an architecture step costs about a weight step
        steps = 2 * values["search_steps"] + values["retrain_steps"]
        return steps * step, f"extrapolated: {steps} steps, an architecture step counted as a supernet step"
    return None, ""


def _measured(runs: Sequence[sweeps.Run], out: Path) -> float | None:
    import json

    done = [json.loads((out / f"{run.name}.json").read_text()) for run in runs if sweeps.finished(run, out)]
    return sum(fact["seconds"] for fact in done) / len(done) if done else None
