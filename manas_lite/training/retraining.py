"""Retraining a derived network (method section 7) on multi-to-one scenes (section 5), or tuning it: `retrain()`."""

import copy
import math
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic

import torch
from torch import Tensor, nn

from manas_lite import draw
from manas_lite.compute.runtime import Net
from manas_lite.data import SceneBatch, Split, open_split
from manas_lite.networks.genotype import Genotype
from manas_lite.networks.nets import DerainNet
from manas_lite.photos.inference import derain
from manas_lite.photos.zoo import fingerprint, save_network
from manas_lite.runs.record import run_path
from manas_lite.training.evaluation import require_scorable, validation_psnr
from manas_lite.training.loop import Loop, Training, cosine, set_rate, training_batches, weight_step
from manas_lite.training.monitoring import LogTo
from manas_lite.training.schedules import RetrainSettings


@dataclass(frozen=True)
class RetrainResult:
    """What a retraining returns."""

    net: DerainNet = field(repr=False)
    """The best network, on the CPU, in eval mode."""
    genotype: Genotype = field(repr=False)
    """Its architecture."""
    path: Path
    """The run directory."""
    best_psnr: float
    """PSNR (RGB, dB) of the best network on the validation pictures."""
    best_epoch: int
    """The epoch that it is from; -1 where the start of a tuning was never surpassed."""
    log: list[dict[str, Any]] = field(repr=False)
    """The records of log.jsonl."""
    seconds: float
    """Time over all resumed stretches."""


@dataclass
class Memory:
    """The plain values in a checkpoint of a retraining."""

    best_psnr: Any = -math.inf
    """PSNR (RGB, dB) of the best network so far: a number; minus infinity where none was scored yet."""
    best_epoch: int = -1
    """The epoch that it is from."""

    def __post_init__(self) -> None:
        if type(self.best_psnr) not in (int, float) or not self.best_psnr < math.inf:
            raise ValueError(f"best_psnr: expected a number, got {self.best_psnr!r}")


class Average(Generic[Net]):
    """Exponential moving average of a network's weights; buffers are copied.

    Its decay rises from 0 with its age, so that the random start is soon forgotten.
    """

    def __init__(self, net: Net, decay: float) -> None:
        self.net, self.decay = copy.deepcopy(net), decay

    @torch.no_grad()
    def follow(self, net: nn.Module, step: int) -> None:
        """Move the average towards `net` after `step`, counted from 0."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_([*self.net.parameters()], [*net.parameters()], share)  # on a GPU, one kernel for all
        for own, other in zip(self.net.buffers(), net.buffers(), strict=True):
            own.copy_(other)


def retrain(
    genotype: Genotype,
    data: Split | str | Path = "photos",
    settings: RetrainSettings | str = "teach",
    *,
    start: DerainNet | None = None,
    runs_dir: str | Path = "runs",
    name: str = "retrain",
    progress: bool = True,
    log_to: LogTo = None,
) -> RetrainResult:
    """Train a genotype's network; the same call on the same run directory continues one that was cut.

    Writes weights.safetensors, genotype.json, metrics.json, manifest.json and log.jsonl.

    Args:
        genotype: the architecture.
        data: see `data.open_split`. The test scenes are sealed, the validation scenes choose the best network.
        settings: RetrainSettings, or the name of a preset.
        start: a trained network of this genotype, whose weights are then tuned: on other data, with another loss. On
            the validation pictures the result is never worse than its start. None trains from scratch.
        runs_dir, name, progress, log_to: see `search`.

    Raises:
        DivergedError: where a loss becomes NaN or infinite.
        ValueError: where the run directory was started with other settings or another start, where the start is of
            another genotype, and where the split has no validation scenes.
    """
    settings = RetrainSettings.preset(settings) if isinstance(settings, str) else settings
    run = _Retraining(genotype, open_split(data), settings, start, run_path(runs_dir, name), progress)
    run.log_to = log_to
    return run.run()


class _Retraining(Training):
    """One retraining: what its steps share."""

    kind = "retrain"
    settings: RetrainSettings
    net: DerainNet

    def __init__(
        self,
        genotype: Genotype,
        split: Split,
        settings: RetrainSettings,
        start: DerainNet | None,
        path: Path,
        progress: bool,
    ) -> None:
        super().__init__(DerainNet(genotype, seed=settings.seed), split, settings, path, progress)
        if not split.val:
            raise ValueError("the split has no validation scenes to choose the best checkpoint on: move some there")
        require_scorable(split.val[: settings.val_scenes])
        if start is not None:
            if start.genotype != genotype:
                raise ValueError(f"the start is a network of genotype {start.genotype.id}, not of {genotype.id}")
            self.net.load_state_dict(start.state_dict())
        self.genotype, self.start = genotype, start
        self.average = None if settings.ema is None else Average(self.net, settings.ema)
        self.judged = self.net if self.average is None else self.average.net
        self.best = copy.deepcopy(self.judged)
        self.optimizer = torch.optim.Adam(
            self.net.parameters(), settings.rate, weight_decay=settings.weight_decay, fused=self.compute.fused
        )

    def run(self) -> RetrainResult:
        settings, split = self.settings, self.split
        record = {"genotype": self.genotype.id, "start": None if self.start is None else fingerprint(self.start)}
        state = {"net": self.net, "judged": self.judged, "best": self.best, "optimizer": self.optimizer}
        scenes = (*split.train, *split.val)
        with self.open(record, scenes, state=state, saved=Memory(), identity=self.genotype.id) as loop:
            loop.run.write_text("genotype.json", self.genotype.to_json())
            if self.start is not None and loop.start == 0:
                loop.saved.best_psnr = self._score()
            batches = training_batches(
                split.train, settings, seed=settings.seed, start=loop.first, processes=self.processes
            )
            self.train(loop, batches)
            return self._finish(loop.run, loop.saved)

    def _step(self, step: int, epoch: int, batch: SceneBatch) -> dict[str, Tensor]:
        """Take one step; return its terms for the log."""
        self._prepare(step)
        settings = self.settings
        set_rate(self.optimizer, cosine(step, self.total, settings.rate, settings.rate_end, settings.warmup))
        loss_of = partial(self.image_loss, epoch=epoch, scaled=True, fast=True)
        terms = weight_step(self.optimizer, loss_of, batch, **self.step_options)
        if self.average is not None:
            self.average.follow(self.net, step)
        return terms

    def _end_epoch(self, step: int, epoch: int, loop: Loop) -> bool:
        """Score the network, as often as it is due, and keep it where it is the best so far; never stop early."""
        saved = loop.saved
        if (epoch + 1) % self.settings.validate_every == 0 or step + 1 == self.total:
            score = self._score()
            if score > saved.best_psnr:
                saved.best_psnr, saved.best_epoch = score, epoch
                self.best.load_state_dict(self.judged.state_dict())
            facts = {"epoch": epoch, "val_psnr_rgb": score, "best_psnr": saved.best_psnr}
            loop.report(step, facts, ["val_psnr_rgb", "best_psnr"], self._followed)
        return False

    def _followed(self) -> dict[str, Any]:
        """Return what only those who follow the training are told: the architecture and a validation picture, drawn."""
        rainy, clean = self.split.val[0].read()
        derained = derain(rainy[0], self.judged, compute=self.settings.compute)
        pictures = draw.comparison(rainy[0], derained, clean)
        return {"architecture": draw.architecture(self.genotype), "comparison": pictures}

    def _score(self) -> float:
        """Return the PSNR (RGB) of the network as it is now, on the validation pictures."""
        scored = self.split.val[: self.settings.val_scenes]
        return self.processes.ask_first(partial(validation_psnr, self.judged, scored, self.compute))

    def _finish(self, run: Any, saved: Memory) -> RetrainResult:
        genotype, best = self.genotype, self.best.cpu().eval()
        if self.processes.first:
            save_network(run.path, best)
        metrics = {
            "genotype": genotype.id,
            "best_val_psnr_rgb": saved.best_psnr,
            "best_epoch": saved.best_epoch,
            "parameters": genotype.cost(),
            "flops_256": genotype.cost("flops"),
        }
        run.write_json("metrics.json", metrics)
        seconds = run.finish()
        log = self.processes.ask_first(run.read_log)
        return RetrainResult(best, genotype, self.path, saved.best_psnr, saved.best_epoch, log, seconds)
