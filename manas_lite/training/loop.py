"""The loop that search and retraining share: it can be cut at any moment, and the same call continues it exactly.

Everything random in a run is a function of (seed, step), so a checkpoint holds weights, optimisers, scaler and the
number of steps done, and nothing of loaders, schedules or generators.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from manas_lite.compute.footprint import StepMemory
from manas_lite.compute.processes import ALONE, Processes
from manas_lite.compute.runtime import Compute
from manas_lite.data import Scene, SceneBatch, one_to_one, scene_loader
from manas_lite.networks.genotype import Genotype
from manas_lite.networks.space import SearchSpace
from manas_lite.runs import checkpoint
from manas_lite.runs.progress import Progress, summary
from manas_lite.runs.record import RunDirectory, hash_files
from manas_lite.runs.settings import to_dict
from manas_lite.training.schedules import RetrainSettings, SearchSettings


class DivergedError(RuntimeError):
    """A loss became NaN or infinite; the last good checkpoint is kept."""


class Loop:
    """Iterates over the steps still to do, and keeps the run's log and checkpoints.

    run: the run directory, open. state: what a checkpoint saves, by name; the scaler too where fp16 needs it.
    memory: plain values (numbers, strings, lists) saved along, such as the best score so far; the caller may change
    them in place. identity: what a checkpoint must have been made by (the genotype's or the space's id).
    processes: those of the run; the first one reads and writes for all.
    """

    def __init__(
        self,
        run: RunDirectory,
        *,
        total: int,
        state: Mapping[str, checkpoint.Stateful],
        scaler: torch.amp.GradScaler,
        memory: dict[str, Any],
        identity: str,
        title: str,
        log_every: int = 10,
        progress: bool = True,
        processes: Processes = ALONE,
    ) -> None:
        self.run, self.total, self.memory, self.processes = run, total, memory, processes
        self.state = {"scaler": scaler, **state} if scaler.is_enabled() else dict(state)
        self.identity, self.log_every = identity, log_every
        self.path = run.path / "checkpoint.safetensors"
        self.pending: list[tuple[int, dict[str, Tensor]]] = []
        self.start = self._resume()
        self.progress = Progress(total, title, start=self.start, show=progress and processes.first)
        if 0 < self.start < total:
            self.progress.say(f"continues from step {self.start}")

    def _resume(self) -> int:
        saved = self.processes.ask_first(
            lambda: checkpoint.load(self.path, identity=self.identity) if self.path.exists() else None
        )
        if saved is None:
            self.run.truncate_log(0)
            return 0
        tensors, meta = saved
        for name, holder in self.state.items():
            if name == "scaler" and name not in meta["state"]:
                continue  # the run began where no scaler was needed; this one starts afresh
            checkpoint.restore(holder, tensors.get(name, {}), meta["state"][name])
        self.memory.update(meta["memory"])
        self.run.truncate_log(meta["step"])
        return meta["step"]

    def __iter__(self) -> Iterator[int]:
        with self.progress:
            for step in range(self.start, self.total):
                yield step
                if len(self.pending) >= self.log_every:
                    self.flush()
                self.progress.step()
            self.flush()

    def log(self, step: int, terms: Mapping[str, Tensor]) -> None:
        """Note a step's scalars; they are fetched from the device in bulk, so that no step waits for another.

        Of several processes, the log holds the mean.
        """
        self.pending.append((step, dict(terms)))

    def flush(self) -> None:
        """Write the steps noted so far. Raises DivergedError at the first that is not finite."""
        if not self.pending:
            return
        names = [name for _, terms in self.pending for name in terms]
        scalars = torch.stack([t.detach().float() for _, terms in self.pending for t in terms.values()])
        self.processes.average([scalars])
        values = scalars.tolist()
        cursor, pending, self.pending = 0, self.pending, []
        for step, terms in pending:
            record = dict(zip(names[cursor:], values[cursor : cursor + len(terms)], strict=False))
            cursor += len(terms)
            broken = [name for name, value in record.items() if not math.isfinite(value)]
            if broken:
                raise self._diverged(f"{', '.join(broken)} became {record[broken[0]]}", step)
            self.run.log({"kind": "step", "step": step, **record})

    def _diverged(self, what: str, step: int) -> DivergedError:
        kept = f"the last good checkpoint is {self.path}" if self.path.exists() else "there is no checkpoint yet"
        cure = "Lower the learning rate, clip gradients, or use precision='fp32'"
        return DivergedError(f"{what} at step {step}; {kept}. {cure}")

    def report(self, step: int, record: Mapping[str, Any], shown: Sequence[str]) -> None:
        """Write a record of an epoch, and show some of its facts."""
        self.flush()
        self.run.log({"kind": "epoch", "step": step, **record})
        self.progress.say(summary({name: record[name] for name in shown if record.get(name) is not None}))

    def checkpoint(self, done: int, probe: Tensor) -> None:
        """Save everything after `done` steps, atomically; what was logged so far is on disk first.

        probe: a loss of the weights as they are now. The harm of an update shows only in the loss after it, and
        weights without a finite loss must not replace the last good checkpoint.
        """
        self.flush()
        self.processes.average([probe])
        if not math.isfinite(float(probe)):
            raise self._diverged(f"the loss after the update became {float(probe)}", done - 1)
        if not self.processes.first:
            return
        tensors, plain = {}, {}
        for name, holder in self.state.items():
            tensors[name], plain[name] = checkpoint.dump(holder)
        meta = {"step": done, "memory": self.memory, "state": plain}
        checkpoint.save(self.path, tensors, meta, identity=self.identity)


def note_data(run: RunDirectory, scenes: Iterable[Scene], processes: Processes = ALONE) -> None:
    """Put a hash over the files of `scenes` into the manifest; ValueError where a continued run, or another of the
    run's processes, finds other files."""
    now, before = hash_files({file for scene in scenes for file in scene.files()}), run.manifest["notes"].get("data")
    if processes.ask_first(lambda: now) != now:
        raise ValueError(
            f"process {processes.rank} of {processes.count} reads other data than the first: "
            f"{now['files']} files of {now['bytes']:,} bytes here. Give every machine the same files"
        )
    if before not in (None, now):
        raise ValueError(
            f"{run.path} was started on other data: {before['files']} files of {before['bytes']:,} bytes there, "
            f"{now['files']} of {now['bytes']:,} here, or changed contents. Use another name or runs_dir"
        )
    run.note(data=now)


def training_batches(
    scenes: tuple[Scene, ...],
    settings: SearchSettings | RetrainSettings,
    *,
    seed: int,
    start: int,
    processes: Processes = ALONE,
) -> Iterator[SceneBatch]:
    """The batches of a run from step `start` on; of each, the scenes that are this process's.

    With `multi_to_one=False` every rainy image is a scene of its own, and a batch holds as many images as before:
    `batch` times the versions that a scene would have had.
    """
    batch, rains, fresh = _scenes_a_step(settings, scenes), settings.rains, settings.fresh_rain
    if not settings.multi_to_one:
        if fresh:
            raise ValueError(
                "fresh_rain makes several versions of one background, which multi_to_one=False forbids: "
                "leave one of them, or add the versions to the scenes with data.with_extra_rain"
            )
        scenes, rains = one_to_one(scenes), None
    loader = scene_loader(
        scenes,
        batch=batch,
        patch=settings.patch,
        seed=seed,
        steps=settings.epochs * settings.steps,
        start=start,
        share=processes.share(batch),
        rains=rains,
        fresh_rain=fresh,
        workers=settings.compute.workers,
    )
    return iter(loader)


def _scenes_a_step(settings: SearchSettings | RetrainSettings, scenes: tuple[Scene, ...]) -> int:
    """The scenes of a batch of all processes; of single rainy images where `multi_to_one` is off."""
    return settings.batch if settings.multi_to_one else settings.batch * _rains(settings, scenes)


def _rains(settings: SearchSettings | RetrainSettings, scenes: tuple[Scene, ...]) -> int:
    return min(len(scene.rainy) for scene in scenes) if settings.rains is None else settings.rains


def step_memory(
    space: SearchSpace,
    settings: SearchSettings | RetrainSettings,
    compute: Compute,
    scenes: tuple[Scene, ...],
    genotype: Genotype | None = None,
) -> StepMemory:
    """What decides the memory of a step of this run, for an estimate and for advice.

    Raises ValueError for a batch that the processes cannot share: here, before anything is made.
    """
    compute.processes.share(_scenes_a_step(settings, scenes))
    batch = -(-settings.batch // compute.processes.count)
    return StepMemory(
        space,
        batch,
        _rains(settings, scenes) + len(settings.fresh_rain),
        settings.patch,
        genotype,
        accumulate=min(settings.accumulate, batch),
        checkpoint=settings.compute.checkpoint,
        order=settings.order if isinstance(settings, SearchSettings) else "first",
        precision={torch.bfloat16: "bf16", torch.float16: "fp16"}.get(compute.dtype, "fp32"),
        optimizer=settings.optimizer if isinstance(settings, SearchSettings) else "adam",
        ema=isinstance(settings, RetrainSettings) and settings.ema is not None,
    )


def settings_record(settings: SearchSettings | RetrainSettings) -> dict[str, Any]:
    """The settings as a run directory compares them: without those of the machine, which may change on resuming."""
    return {name: value for name, value in to_dict(settings).items() if name not in ("compute", "checkpoint_every")}


def cosine(step: int, total: int, high: float, low: float, warmup: int = 0) -> float:
    """Learning rate at `step` of `total`: a linear rise over `warmup` steps, then a half cosine from high to low."""
    if step < warmup:
        return high * (step + 1) / warmup
    share = (step - warmup) / max(1, total - warmup)
    return low + (high - low) * (1 + math.cos(math.pi * share)) / 2


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def parts_of(batch: SceneBatch, count: int) -> list[tuple[float, SceneBatch]]:
    """The scenes of a batch in `count` parts or fewer, each with its share of them: the weight of its mean loss."""
    scenes = len(batch.rainy)
    pieces = zip(*(tensor.chunk(count) for tensor in batch), strict=True)
    return [(len(piece[0]) / scenes, SceneBatch(*piece)) for piece in pieces]


def add_terms(total: dict[str, Tensor], share: float, terms: Mapping[str, Tensor]) -> None:
    """Add the terms of a part of a batch, by their share, to those of the whole."""
    for name, value in terms.items():
        total[name] = total.get(name, 0.0) + share * value


def update(
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    losses: Iterable[Tensor],
    parameters: Sequence[nn.Parameter],
    clip: float | None,
    processes: Processes = ALONE,
) -> None:
    """One optimiser step down the sum of `losses`, with gradient clipping, through the scaler (which does nothing
    unless fp16). Each loss is differentiated before the next is asked for, so that one graph lives at a time.
    Gradients are the mean over the processes."""
    for parameter in parameters:
        parameter.grad = None
    for loss in losses:
        gradients = torch.autograd.grad(scaler.scale(loss), parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if parameter.grad is None:
                parameter.grad = gradient
            elif gradient is not None:
                parameter.grad += gradient
        del loss, gradients
    processes.average([parameter.grad for parameter in parameters])
    if clip is not None:
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(parameters, clip)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)


def seed_of(*numbers: int) -> int:
    """One 63-bit seed from several numbers (a run's seed, a step): the same on every machine."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
