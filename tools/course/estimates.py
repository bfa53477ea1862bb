"""What a sweep, or a preset too long to run, will cost: a few steps timed here, everything else multiplied."""

import json
import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from manas_course.chance import SEARCH_DEVIATION, Chance
from manas_course.support import device_name
from manas_lite.compute.footprint import StepFootprint
from manas_lite.compute.runtime import Compute
from manas_lite.data import open_split, scene_loader
from manas_lite.losses import DerainLoss
from manas_lite.networks.genotype import Genotype
from manas_lite.networks.nets import DerainNet, SuperNet
from manas_lite.networks.space import SearchSpace
from manas_lite.training.schedules import RetrainSettings, SearchSettings
from tools.course import runner, sources, sweeps
from tools.course.contents import Notebook, find, preset
from tools.course.parameters import arm_of

__all__ = ["StepTime", "describe", "extrapolated", "steps_of", "time_step", "trainings"]

STEPS = 20

Network = SearchSpace | Genotype
Settings = SearchSettings | RetrainSettings


class StepTime(NamedTuple):
    """How long a training step takes."""

    seconds: float
    """Seconds on the clock."""

    cpu_seconds: float
    """Seconds of computing by this process, on all its threads."""


def time_step(
    network: Network, settings: Settings, data: str = "photos", *, steps: int = STEPS, scenes: int | None = None
) -> StepTime:
    """Return what a weight step takes here: the medians over some steps.

    Args:
        network: a space, whose supernet is trained, or a genotype, whose network is.
        settings: those of the training.
        data: as in `open_split`.
        steps: how many to time.
        scenes: how many of the settings' `batch` scenes are really computed, for batches that would take this machine
            minutes per step. The time is multiplied accordingly.
    """
    scenes = settings.batch if scenes is None else min(scenes, settings.batch)
    space = network if isinstance(network, SearchSpace) else network.space
    compute = Compute(settings.compute, space.channels[0])
    net = compute.prepare(SuperNet(network) if isinstance(network, SearchSpace) else DerainNet(network, seed=0))
    weights = net.weight_parameters() if isinstance(net, SuperNet) else list(net.parameters())
    loss = DerainLoss(settings.loss)
    loader = scene_loader(open_split(data).train, batch=scenes, patch=settings.patch, seed=0, steps=steps + 1)
    times, computed = [], []
    with compute.session():
        for batch in loader:
            batch = batch.to(compute.device)
            began, before = time.perf_counter(), time.process_time()
            outputs = net(compute.images(batch.rainy)).unflatten(0, batch.rainy.shape[:2])
            total, _ = loss(outputs.float(), batch.clean, epoch=settings.epochs)
            torch.autograd.grad(total, weights, allow_unused=True)
            float(total.detach())  # waits for a GPU
            times.append(time.perf_counter() - began)
            computed.append(time.process_time() - before)
    scale = settings.batch / scenes  # the first step warms up
    return StepTime(scale * statistics.median(times[1:]), scale * statistics.median(computed[1:]))


def extrapolated(
    notebook: Notebook, preset_name: str, *, steps: int = STEPS, scenes: int | None = None
) -> dict[str, Any]:
    """Return a row of a cost table that was not run: seconds per step, measured here, times the steps.

    Where there is no GPU, the seconds are those of computing on one thread. Other work on the machine does not count
    then, nor how long threads wait for each other beside it (which took ten times what they computed). An architecture
    step (first order) is counted as a weight step of the supernet. Memory is the estimate of `compute.footprint` for
    the largest of the trainings.

    Args:
        notebook: one that trains.
        preset_name: the preset whose row it is.
        steps, scenes: see `time_step`.

    Raises:
        ValueError: for a notebook that trains nothing, whose costs can be measured.
    """
    rows = []
    for network, settings in trainings(notebook, preset_name):
        alone = replace(settings, compute=replace(settings.compute, threads=1))
        step = time_step(network, alone, steps=steps, scenes=scenes)
        seconds = steps_of(settings) * (step.seconds if torch.cuda.is_available() else step.cpu_seconds)
        space, genotype = (network, None) if isinstance(network, SearchSpace) else (network.space, network)
        memory = StepFootprint(space, settings.batch, settings.patch, genotype=genotype)
        rows.append((seconds, memory.bytes))
    if not rows:
        raise ValueError(f"notebook {notebook.number} trains nothing: `course run {notebook.number}` measures its cost")
    return {
        "preset": preset_name,
        "device": device_name(),
        "seconds": round(sum(row[0] for row in rows)),
        "bytes": max(row[1] for row in rows),
        "extrapolated": True,
    }


def steps_of(settings: Settings) -> int:
    """Return how many steps a training takes, an architecture step counted as a step of the weights."""
    count = settings.epochs * settings.steps
    if isinstance(settings, SearchSettings):
        count += (settings.epochs - settings.warmup) * settings.steps
    return count


def trainings(notebook: Notebook, preset_name: str) -> Sequence[tuple[Network, Settings]]:
    """Return what a notebook trains at a preset: (space or genotype, settings) of each search and retraining."""
    built = sources.build(notebook, "solution")
    values = {p.name: p.default for p in runner.parameters_of(built)}
    values |= runner.settle(notebook, built, preset_name, {}, Path("."))
    if not notebook.trains:
        return []
    if "architecture" in values:  # an arm
        plan = arm_of(values).plan
        return [(plan.space, plan.search), (Genotype.hand_made(plan.space), plan.retrain)]
    schedule = {"epochs": values["epochs"], "steps": values["steps"]}
    space = SearchSpace.preset(values["size"])
    if "search_name" in values:  # two retrainings, multi-to-one and one-to-one
        settings = RetrainSettings.preset(values["size"], **schedule)
        return 2 * [(Genotype.hand_made(space), settings)]
    warmup = min(max(1, values["epochs"] // 4), SearchSettings.preset(values["size"]).warmup)  # as notebook 03 has it
    return [(space, SearchSettings.preset(values["size"], warmup=warmup, **schedule))]


def describe(sweep: sweeps.Sweep, runs: Sequence[sweeps.Run], out: Path) -> str:
    """Tell runs, hours, disk, what is done already, and what the searches will be able to tell apart.

    The seconds of a run are those of finished runs of this sweep, else those recorded for the notebook at this preset,
    else the steps times what a step takes here.
    """
    notebook = find(sweep.notebook)
    todo = [run for run in runs if not sweeps.finished(run, out)]
    defaults = {p.name: p.default for p in runner.parameters_of(sources.build(notebook, "solution"))}
    values = {**defaults, **preset(sweep.preset, notebook), **sweep.parameters}
    size = str(values.get("size", "teach"))
    step = time_step(SearchSpace.preset(size), SearchSettings.preset(size)).seconds
    lines = [f"{len(runs)} runs of notebook {notebook.number} at preset {sweep.preset}: {len(todo)} still to do"]
    lines.append(f"{1000 * step:.0f} ms a supernet step of size `{size}` here (median of {STEPS})")
    seconds, source = _seconds_a_run(sweep, runs, out, step, values)
    if seconds is not None:
        lines.append(f"{len(todo) * seconds / 3600:.1f} hours, one after another ({seconds:.0f} s a run, {source})")
    sizes = [file.stat().st_size for file in out.rglob("*") if file.is_file()] if out.exists() else []
    existing = out if out.exists() else next(parent for parent in out.resolve().parents if parent.exists())
    lines.append(f"disk: {sum(sizes) / 2**20:.0f} MiB used, {shutil.disk_usage(existing).free / 2**30:.0f} GiB free")
    if "search_seed" in sweep.grid:
        n, compared = len(sweep.grid["search_seed"]), max(1, len(sweep.arms) - 1)
        plan = Chance.planned(n)
        found = f"{n} searches an arm find differences from about {plan.detectable():.1f} dB"
        if compared > 1:
            found += f", the strictest of {compared} comparisons from {plan.detectable(compared):.1f} dB"
        lines.append(f"{found}, 4 times in 5 (runs of one arm differ by {SEARCH_DEVIATION} dB)")
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
    done = [json.loads((out / f"{run.name}.json").read_text("utf-8")) for run in runs if sweeps.finished(run, out)]
    return sum(fact["seconds"] for fact in done) / len(done) if done else None
