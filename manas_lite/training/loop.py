"""What search and retraining share: one way to set up and open a run, one loop over its steps, one weight step.

A run can be cut at any moment, and the same call continues it exactly. Everything random in it is a function of (seed,
step), so a checkpoint holds weights, optimisers, scaler and the number of steps done, and nothing of the loaders.
"""

import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from manas_lite.compute.footprint import StepFootprint, explain_out_of_memory, shortage
from manas_lite.compute.processes import ALONE, Processes
from manas_lite.compute.runtime import Compute, loading_processes
from manas_lite.data import Scene, SceneBatch, Split, one_to_one, scene_loader, sealed
from manas_lite.losses import DerainLoss
from manas_lite.networks.backbone import Backbone
from manas_lite.networks.genotype import Genotype
from manas_lite.networks.space import SearchSpace
from manas_lite.runs import checkpoint
from manas_lite.runs.documents import about, document, first_few, read_json
from manas_lite.runs.progress import Progress
from manas_lite.runs.record import DATA, DataTable, RunDirectory, hash_files, look_at
from manas_lite.runs.settings import to_dict
from manas_lite.training.monitoring import LogTo, followed
from manas_lite.training.schedules import RetrainSettings, SearchSettings

Settings = SearchSettings | RetrainSettings
LossOf = Callable[[SceneBatch], tuple[Tensor, dict[str, Tensor]]]  # a batch -> its loss, and the terms for the log

CHECKPOINT = "checkpoint.safetensors"

LOG_EVERY = 10
"""Steps between two writes of the log."""

SAVE_EVERY = 240.0
"""The most seconds of steps between two saves of a run, unless one step takes longer. The end of an epoch, with its
eigenvalue or its validation, is not cut into parts: when it begins, at most a quarter of these seconds is unsaved."""


@dataclass(frozen=True)
class _Saved:
    """What a checkpoint of a run holds beside its tensors."""

    step: int
    memory: dict[str, Any]
    state: dict[str, dict[str, Any]]
    ended: bool = True  # False: the last step ended an epoch, and what follows an epoch is not done


class DivergedError(RuntimeError):
    """A loss became NaN or infinite; the last good checkpoint is kept."""


# --- one run ---


class Training:
    """What a search and a retraining share: a network on a machine, its data and its loss, and the run that it fills.

    They differ in what a step does, `_step`, and in what ends an epoch, `_end_epoch`.

    Args:
        net: the network as it begins; it is moved to the device.
        split: its training scenes are read, its test scenes are sealed.
        settings, path, progress: the run's settings, its directory, and whether to show a progress bar.

    Raises:
        ValueError: where the split has nothing to train on, or a batch cannot be shared by the processes.
    """

    kind: str
    """`search` or `retrain`."""
    settings: Any
    net: Any
    log_to: LogTo = None
    """Who is told each record of the run, beside its log."""
    _step: Any
    """(step, epoch, batch, *more) -> the terms of a step for the log."""
    _end_epoch: Any
    """(step, epoch, loop) -> whether the run stops early."""

    def __init__(self, net: Backbone, split: Split, settings: Settings, path: Path, progress: bool) -> None:
        if not split.train:
            raise ValueError("the split has no training scenes: add pictures, or move some to its training part")
        self.split, self.settings, self.path, self.show = split, settings, path, progress
        self.compute = Compute(settings.compute, net.space.channels[0], search=self.kind == "search", together=True)
        self.processes = self.compute.processes
        self.footprint = step_footprint(net.space, settings, self.compute, split.train, getattr(net, "genotype", None))
        self.net = self.compute.prepare(net)
        self.net.set_recompute(settings.compute.recompute)
        self.total = settings.epochs * settings.steps
        self.fast = self.compute.compiled(self.net, self.total)
        self.loss = DerainLoss(settings.loss)
        self.step_options: dict[str, Any] = {"parts": settings.accumulate, "clip": settings.clip}
        self.step_options |= {"scaler": self.compute.scaler, "processes": self.processes}

    @contextmanager
    def open(self, record: Mapping[str, Any], scenes: Iterable[Scene], **kept: Any) -> Iterator["Loop"]:
        """Open the run's folder for the length of a `with` block; return the loop over the steps that are left.

        Within the block the folder is locked, the test scenes are sealed, the threads are those of the run, and an
        allocation that fails is explained.

        Args:
            record: what the run is started with, beside its settings; see `RunDirectory`.
            scenes: the scenes that the run reads; their files are hashed, and must be the same when it is continued.
                A warning is given where another picture of the split has changed.
            kept: `state`, `saved` and `identity`; see `Loop`.

        Raises:
            ValueError: where the folder was started with another record or on other data.
            BusyError: where another process writes the folder.
        """
        split, options = self.split, settings_record(self.settings)
        record = {**record, "settings": options, "split": split.sha256}
        defaults = {"settings": settings_record(type(self.settings)())}
        with (
            explain_out_of_memory(self.footprint, self.compute.device),
            self.processes.open(self.path, record, kind=self.kind, defaults=defaults) as run,
            sealed(split.test),
            self.compute.session(),
        ):
            run.note(compute=self.compute.facts())
            note_data(run, scenes, self.processes, (*split.train, *split.val, *split.test))
            try:
                yield Loop(run, self, **kept)
            except KeyboardInterrupt:
                stop = f"called again, the {self.kind} in {self.path} goes on from step {run.saved_step}"
                raise KeyboardInterrupt(stop) from None

    def train(self, loop: "Loop", batches: Iterator[SceneBatch], *more: Any) -> int:
        """Take the steps that are left, end their epochs, and save the run as often as it is due.

        Return how many steps of the run are done: all, unless it stops early. `more` is passed on to each step.
        """
        settings = self.settings
        for step in loop:
            epoch, batch = step // settings.steps, next(batches).to(self.compute.device)
            if step >= loop.start:
                loop.log(step, self._step(step, epoch, batch, *more))
            else:  # this step is done, but not the end of its epoch
                self._prepare(step)
            due = stop = False
            if (step + 1) % settings.steps == 0:
                if loop.due(ending=True):
                    self.save(step, epoch, batch, loop, ended=False)
                stop = self._end_epoch(step, epoch, loop)
                due = stop or (epoch + 1) % settings.checkpoint_every == 0 or step + 1 == self.total
            if due or loop.due():
                self.save(step, epoch, batch, loop)
            if stop:
                return step + 1
        return self.total

    def _prepare(self, step: int) -> None:
        """Set what a step computes with."""
        self.net.train()

    def image_loss(
        self, batch: SceneBatch, epoch: int, *, scaled: bool = False, fast: bool = False
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of the images that the network makes of a batch, and its terms for the log.

        Args:
            batch, epoch: the scenes, and the epoch, which decides which terms count.
            scaled: whether the loss goes through the gradient scaler; see `Compute.autocast`.
            fast: take the compiled network, if there is one. It is for the passes that every step repeats.
        """
        with self.compute.autocast(scaled=scaled):
            outputs = (self.fast if fast else self.net)(self.compute.images(batch.rainy))
        return self.loss(outputs.float().unflatten(0, batch.rainy.shape[:2]), batch.clean, epoch=epoch)

    @torch.no_grad()
    def save(self, step: int, epoch: int, batch: SceneBatch, loop: "Loop", *, ended: bool = True) -> None:
        """Save the run as it is after a step, if the loss of the step's batch is finite; see `Loop.save`."""
        self.net.eval()
        loop.save(step + 1, self.image_loss(batch, epoch)[0], ended=ended)
        self.net.train()


def settings_record(settings: Settings) -> dict[str, Any]:
    """Return the settings as a run directory compares them: without those of the machine, which may change."""
    return {name: value for name, value in to_dict(settings).items() if name not in ("compute", "checkpoint_every")}


def note_data(
    run: RunDirectory, scenes: Iterable[Scene], processes: Processes = ALONE, others: Iterable[Scene] = ()
) -> None:
    """Put a hash over the files of `scenes` into the manifest, and into data.json what every file looks like.

    Args:
        run: the run directory, open.
        scenes: the scenes that the run reads.
        processes: the run's processes.
        others: more scenes. Where one of their files has changed, a warning is given.

    Raises:
        ValueError: where a continued run, or another of the run's processes, finds other files.
    """
    path = run.path / DATA
    known = document(DataTable, read_json(path), path) if path.exists() else DataTable()
    read, every = ({file for scene in part for file in scene.files()} for part in ([*scenes], [*scenes, *others]))
    table = look_at(every, known)
    now, before = hash_files(read, table=table), run.manifest["notes"].get("data")
    if processes.ask_first(lambda: now) != now:
        raise ValueError(
            f"process {processes.rank} of {processes.count} reads other data than the first: "
            f"{now['files']} files of {now['bytes']:,} bytes here. Give every machine the same files"
        )
    changed = sorted(file for file, entry in table.files.items() if known.files.get(file, entry)[3] != entry[3])
    if before not in (None, now):
        raise ValueError(
            f"{run.path} was started on other data: {now['files']} files of {now['bytes']:,} bytes are here, and "
            f"{f'changed since: {first_few(changed)}' if changed else 'it had others'}. Use another name or runs_dir"
        )
    if changed:
        elsewhere = f"{run.path}: changed since, in parts that this run does not read: {first_few(changed)}"
        warnings.warn(elsewhere, stacklevel=2)
    if table != known:
        run.write_json(DATA, table)
    run.note(data=now)


# --- the loop ---


class Loop:
    """Iterates over the steps still to do, and keeps the run's log and checkpoints.

    Args:
        run: the run directory, open.
        training: what is trained: it names the steps, the machine and the memory of a step. The first process reads and
            writes for all, and a warning is shown where the machine has less memory.
        state: what a checkpoint saves, by name; the scaler too where fp16 needs it.
        saved: a dataclass of plain values (numbers, texts, lists) that are saved along, such as the best score so far.
            Those of a checkpoint take their place, so look at `loop.saved`, and change them there.
        identity: what a checkpoint must have been made by (the genotype's or the space's id).
    """

    def __init__(
        self,
        run: RunDirectory,
        training: Training,
        *,
        state: Mapping[str, checkpoint.Stateful],
        saved: Any,
        identity: str,
    ) -> None:
        self.run, self.training, self.total, self.saved = run, training, training.total, saved
        compute, self.processes = training.compute, training.compute.processes
        self.kept_at = self.asked_at = time.monotonic()
        self.unasked, self.meeting, self.first = 0, 1, 0
        self.state = {"scaler": compute.scaler, **state} if compute.scaler.is_enabled() else dict(state)
        self.identity, self.path = identity, run.path / CHECKPOINT
        self.pending: list[tuple[int, dict[str, Tensor]]] = []
        self.start = self._resume()
        shown = training.show and self.processes.first
        self.progress = Progress(self.total, training.kind, start=self.start, show=shown)
        if 0 < self.start < self.total:
            self.progress.say(f"continues from step {self.start}")
        elif not self.start and len(run.manifest.get("stretches", ())) > 1:
            self.progress.say("starts again from step 0: the run was cut before its first checkpoint")
        if short := shortage(training.footprint, compute.device):
            self.progress.say(f"warning: {short}")

    def _resume(self) -> int:
        """Take over the last checkpoint, if there is one; return the number of steps that are done."""
        found = self.processes.ask_first(
            lambda: checkpoint.read(self.path, identity=self.identity) if self.path.exists() else None
        )
        if found is None:
            self.run.truncate_log(0)
            return 0
        tensors, meta = found
        with about(self.path, checkpoint.CheckpointError):
            kept = document(_Saved, meta, "its header")
            if not (not kept.ended) <= kept.step <= self.total:
                raise ValueError(f"it is of step {kept.step}, and the run has {self.total}: delete it to start again")
            self.saved = document(type(self.saved), kept.memory, "its memory")
            for name, holder in self.state.items():
                if name == "scaler" and name not in kept.state:
                    continue  # the run began where no scaler was needed; this one starts afresh
                if name not in kept.state:
                    raise ValueError(f"it lacks the state of {name}: delete it to start again")
                checkpoint.restore(holder, tensors.get(name, {}), kept.state[name])
        self.run.truncate_log(kept.step, ended=kept.ended)
        self.run.saved_step, self.first = kept.step, kept.step - (not kept.ended)
        return kept.step

    def __iter__(self) -> Iterator[int]:
        """Yield the steps to do. Before `start` comes the last step done, where the end of its epoch alone is left."""
        log_to = self.training.log_to if self.processes.first and self.first < self.total else None
        with self.progress, followed(log_to, self.run.path, self.start) as self.tell:
            for step in range(self.first, self.total):
                yield step
                if len(self.pending) >= LOG_EVERY:
                    self.flush()
                if step >= self.start:
                    self.progress.step()
            self.flush()

    def log(self, step: int, terms: Mapping[str, Tensor]) -> None:
        """Note a step's scalars; of several processes, the log holds the mean.

        They are fetched from the device many at once, so that no step waits for another.
        """
        self.pending.append((step, dict(terms)))

    def flush(self) -> None:
        """Write the steps noted so far; DivergedError at the first that is not finite."""
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
            self.tell({"kind": "step", "step": step, **record})

    def _diverged(self, what: str, step: int) -> DivergedError:
        kept = f"the last good checkpoint is {self.path}" if self.path.exists() else "there is no checkpoint yet"
        cure = "Lower the learning rate, clip gradients, or use precision='fp32'"
        return DivergedError(f"{what} at step {step}; {kept}. {cure}")

    def report(
        self, step: int, record: Mapping[str, Any], shown: Sequence[str], more: Callable[[], Mapping[str, Any]]
    ) -> None:
        """Write a record of an epoch, and show some of its facts; `more` makes what only `log_to` is told."""
        self.flush()
        self.run.log({"kind": "epoch", "step": step, **record})
        self.tell({"kind": "epoch", "step": step, **record}, more)
        facts = {name: value for name in shown if (value := record.get(name)) is not None}
        self.progress.say("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in facts.items()))

    def due(self, ending: bool = False) -> bool:
        """Tell whether the run should be saved within an epoch, the same in all processes.

        Several processes ask the first one as seldom as the time of a step allows, since each question is a message.

        Args:
            ending: the epoch's last step is done, and its end is about to begin.
        """
        now = time.monotonic()
        left = SAVE_EVERY - (now - self.kept_at)
        if ending:
            return self.processes.ask_first(lambda: left <= 0.75 * SAVE_EVERY)
        self.unasked += 1
        if self.unasked < self.meeting:
            return False
        step = max((now - self.asked_at) / self.unasked, 1e-9)
        most = LOG_EVERY if self.processes.count > 1 else 1
        steps = int(min((left if left >= step else SAVE_EVERY) / step, most))  # that fit in before the next question
        due, self.meeting = self.processes.ask_first(lambda: (left < step, max(1, steps)))
        self.asked_at, self.unasked = now, 0
        return due

    def save(self, done: int, probe: Tensor, *, ended: bool = True) -> None:
        """Write a checkpoint after `done` steps, atomically; what was logged so far is on disk first.

        Args:
            done: the number of steps that are done.
            probe: a loss of the weights as they are now. The harm of an update shows only in the loss after it, and
                weights without a finite loss must not replace the last good checkpoint.
            ended: False where the last of these steps ended an epoch, and what follows an epoch is not done.

        Raises:
            DivergedError: where the probe is not finite.
        """
        self.flush()
        self.processes.average([probe])
        if not math.isfinite(float(probe)):
            raise self._diverged(f"the loss after the update became {float(probe)}", done - 1)
        self.run.saved_step, self.unasked = done, 0
        self.kept_at = self.asked_at = time.monotonic()
        if not self.processes.first:
            return
        tensors, plain = {}, {}
        for name, holder in self.state.items():
            tensors[name], plain[name] = checkpoint.dump(holder)
        meta = {"step": done, "memory": asdict(self.saved), "state": plain} | ({} if ended else {"ended": False})
        checkpoint.write(self.path, tensors, meta, identity=self.identity)


# --- one step ---


def weight_step(
    optimizer: torch.optim.Optimizer,
    loss_of: LossOf,
    batch: SceneBatch,
    *,
    parts: int = 1,
    clip: float | None = None,
    scaler: torch.amp.GradScaler,
    processes: Processes = ALONE,
) -> dict[str, Tensor]:
    """Take one step of the weights: forward, backward, clip, step.

    Args:
        optimizer: its parameters are the weights.
        loss_of: returns the loss of a batch, and its terms for the log.
        batch: the scenes of this step, or this process's share of them.
        parts: pieces in which the batch is taken, one after the other. One piece's graph lives at a time.
        clip: largest norm of the gradient; None does not clip.
        scaler: scales the loss where gradients are fp16; otherwise it does nothing.
        processes: gradients are the mean over them.

    Returns:
        The terms of the loss, and `train`, their weighted sum.
    """
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    terms: dict[str, Tensor] = {}
    for weight in weights:
        weight.grad = None
    for share, part in parts_of(batch, parts):
        loss, found = loss_of(part)  # forward
        # Not loss.backward(): in a search it would also fill the gradients of alpha and beta.
        gradients = torch.autograd.grad(scaler.scale(share * loss), weights, allow_unused=True)  # backward
        for weight, gradient in zip(weights, gradients, strict=True):
            if weight.grad is None:
                weight.grad = gradient
            elif gradient is not None:
                weight.grad += gradient
        add_terms(terms, share, {"train": loss.detach(), **found})
        del loss, gradients
    processes.average([weight.grad for weight in weights])
    if clip is not None:
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(weights, clip)  # clip
    scaler.step(optimizer)  # step
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    return terms


def parts_of(batch: SceneBatch, count: int) -> list[tuple[float, SceneBatch]]:
    """Cut a batch into `count` parts or fewer, each with its share of the scenes: the weight of its mean loss."""
    if count == 1:
        return [(1.0, batch)]
    scenes = len(batch.rainy)
    pieces = zip(*(tensor.chunk(count) for tensor in batch), strict=True)
    return [(len(piece[0]) / scenes, SceneBatch(*piece)) for piece in pieces]


def add_terms(total: dict[str, Tensor], share: float, terms: Mapping[str, Tensor]) -> None:
    """Add the terms of a part of a batch, by their share, to those of the whole."""
    for name, value in terms.items():
        total[name] = total.get(name, 0.0) + share * value


def cosine(step: int, total: int, high: float, low: float, warmup: int = 0) -> float:
    """Return the learning rate at `step` of `total`: a linear rise over `warmup` steps, then a half cosine down."""
    if step < warmup:
        return high * (step + 1) / warmup
    share = (step - warmup) / max(1, total - warmup)
    return low + (high - low) * (1 + math.cos(math.pi * share)) / 2


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def seed_of(*numbers: int) -> int:
    """Return one 63-bit seed from several numbers (a run's seed, a step): the same on every machine."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


# --- batches, and the memory that they take ---


def training_batches(
    scenes: tuple[Scene, ...], settings: Settings, *, seed: int, start: int, processes: Processes = ALONE
) -> Iterator[SceneBatch]:
    """Yield the batches of a run from step `start` on; of each, the scenes that are this process's.

    With `multi_to_one=False` every rainy image is a scene of its own. A batch then holds as many images as before:
    `batch` times the versions that a scene would have had.
    """
    batch, rains, fresh = _scenes_per_step(settings, scenes), settings.rains, settings.fresh_rain
    if not settings.multi_to_one:
        if fresh:
            several = "fresh_rain makes several versions of one background, which multi_to_one=False forbids"
            raise ValueError(f"{several}: leave one of them, or add versions to the scenes with data.with_extra_rain")
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
        symmetries=settings.symmetries,
        fresh_rain=fresh,
        workers=loading_processes(settings.compute),
    )
    return iter(loader)


def _scenes_per_step(settings: Settings, scenes: tuple[Scene, ...]) -> int:
    """Return the scenes in a batch of all processes; they are single rainy images where `multi_to_one` is off."""
    return settings.batch if settings.multi_to_one else settings.batch * _rains(settings, scenes)


def _rains(settings: Settings, scenes: tuple[Scene, ...]) -> int:
    return min(len(scene.rainy) for scene in scenes) if settings.rains is None else settings.rains


def step_footprint(
    space: SearchSpace,
    settings: Settings,
    compute: Compute,
    scenes: tuple[Scene, ...],
    genotype: Genotype | None = None,
) -> StepFootprint:
    """Return what decides the memory of a step of this run, for an estimate and for advice."""
    compute.processes.share(
        _scenes_per_step(settings, scenes)
    )  # a batch that they cannot share is refused first of all
    batch = -(-settings.batch // compute.processes.count)
    return StepFootprint(
        space,
        batch,
        settings.patch,
        _rains(settings, scenes) + len(settings.fresh_rain),
        genotype,
        accumulate=min(settings.accumulate, batch),
        recompute=settings.compute.recompute,
        order=settings.order if isinstance(settings, SearchSettings) else "first",
        precision={torch.bfloat16: "bf16", torch.float16: "fp16"}.get(compute.dtype, "fp32"),
        optimizer=settings.optimizer if isinstance(settings, SearchSettings) else "adam",
        ema=isinstance(settings, RetrainSettings) and settings.ema is not None,
    )
