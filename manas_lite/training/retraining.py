"""Retraining a derived network (method section 7) on multi-to-one scenes (section 5), or tuning it: `retrain()`."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic

import torch
from torch import Tensor, nn

from manas_lite.compute.footprint import explain_out_of_memory, shortage
from manas_lite.compute.runtime import Compute, Net
from manas_lite.data import SceneBatch, Split, open_split, sealed
from manas_lite.losses import DerainLoss
from manas_lite.networks.genotype import Genotype
from manas_lite.networks.nets import DerainNet
from manas_lite.networks.zoo import fingerprint, save_network
from manas_lite.runs.checkpoint import Stateful
from manas_lite.training.evaluation import validation_psnr
from manas_lite.training.loop import (
    Loop,
    add_terms,
    cosine,
    note_data,
    parts_of,
    set_rate,
    settings_record,
    step_memory,
    training_batches,
    update,
)
from manas_lite.training.schedules import RetrainSettings


@dataclass(frozen=True)
class RetrainResult:
    """net: the best network, on the CPU, in eval mode; best_psnr (RGB, validation pictures) at best_epoch; log: the
    records of log.jsonl; seconds: over all resumed stretches."""

    net: DerainNet = field(repr=False)
    genotype: Genotype = field(repr=False)
    path: Path
    best_psnr: float
    best_epoch: int
    log: list[dict[str, Any]] = field(repr=False)
    seconds: float


class Average(Generic[Net]):
    """Exponential moving average of a network's weights; buffers are copied. Its decay rises from 0 with its age,
    so that the random start is soon forgotten."""

    def __init__(self, net: Net, decay: float) -> None:
        self.net, self.decay = copy.deepcopy(net), decay

    @torch.no_grad()
    def follow(self, net: nn.Module, step: int) -> None:
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        for mine, theirs in zip(self.net.parameters(), net.parameters(), strict=True):
            mine.data.lerp_(theirs, share)
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
) -> RetrainResult:
    """Train a genotype's network from scratch; the same call on the same run directory continues one that was cut.

    start: a trained network of this genotype, whose weights are then tuned: on other data, with another loss. On the
    validation pictures the result is never worse than its start.
    data: see `data.open_split`; the test scenes are sealed, the validation scenes choose the best checkpoint.
    settings: RetrainSettings or a preset's name.
    Writes weights.safetensors, genotype.json, metrics.json, manifest.json, log.jsonl in `runs_dir/name`.

    Raises DivergedError on NaN, ValueError when the run directory was started with other settings or another start,
    and for a start of another genotype.
    """
    settings = RetrainSettings.preset(settings) if isinstance(settings, str) else settings
    split = open_split(data)
    if not split.val:
        raise ValueError(
            "the split has no validation scenes, and the best checkpoint is chosen on them: move some there"
        )
    compute = Compute(settings.compute, genotype.space.channels[0], together=True)
    processes = compute.processes
    net = compute.prepare(DerainNet(genotype, seed=settings.seed))
    if start is not None:
        if start.genotype != genotype:
            raise ValueError(f"the start is a network of genotype {start.genotype.id}, not of {genotype.id}")
        net.load_state_dict(start.state_dict())
    net.save_memory(settings.compute.checkpoint)
    fast = compute.compiled(net, settings.epochs * settings.steps)
    average = Average(net, settings.ema) if settings.ema is not None else None
    judged = average.net if average is not None else net
    best = copy.deepcopy(judged)
    optimizer = torch.optim.Adam(net.parameters(), settings.rate, weight_decay=settings.weight_decay)
    loss = DerainLoss(settings.loss)
    memory: dict[str, Any] = {"best_psnr": float("-inf"), "best_epoch": -1}
    record = {
        "genotype": genotype.id,
        "settings": settings_record(settings),
        "split": split.sha256,
        "start": None if start is None else fingerprint(start),
    }
    path = Path(runs_dir) / name

    memory_needed = step_memory(genotype.space, settings, compute, split.train, genotype)
    with (
        explain_out_of_memory(memory_needed, compute.device),
        processes.open(path, record, kind="retrain") as run,
        sealed(split.test),
        compute.session(),
    ):
        run.write_text("genotype.json", genotype.to_json())
        run.note(compute=compute.facts())
        note_data(run, (*split.train, *split.val), processes)
        state: dict[str, Stateful] = {"net": net, "judged": judged, "best": best, "optimizer": optimizer}
        total = settings.epochs * settings.steps
        loop = Loop(
            run,
            total=total,
            state=state,
            scaler=compute.scaler,
            memory=memory,
            identity=genotype.id,
            title="retrain",
            progress=progress,
            processes=processes,
        )
        if short := shortage(memory_needed, compute.device):
            loop.progress.say(f"warning: {short}")
        batches = training_batches(split.train, settings, seed=settings.seed, start=loop.start, processes=processes)

        def batch_loss(batch: SceneBatch, epoch: int) -> tuple[Tensor, dict[str, Tensor]]:
            with compute.autocast():
                outputs = (fast if net.training else net)(compute.images(batch.rainy))
            return loss(outputs.float().unflatten(0, batch.rainy.shape[:2]), batch.clean, epoch=epoch)

        def part_losses(batch: SceneBatch, epoch: int, terms: dict[str, Tensor]) -> Iterator[Tensor]:
            for share, part in parts_of(batch, settings.accumulate):
                value, found = batch_loss(part, epoch)
                add_terms(terms, share, {"train": value.detach(), **found})
                yield share * value

        scored = split.val[: settings.val_scenes]
        if start is not None and loop.start == 0:
            memory["best_psnr"] = processes.ask_first(partial(validation_psnr, judged, scored, compute))
        for step in loop:
            epoch = step // settings.steps
            net.train()
            set_rate(optimizer, cosine(step, total, settings.rate, settings.rate_end, settings.warmup))
            batch = next(batches).to(compute.device)
            terms: dict[str, Tensor] = {}

            losses = part_losses(batch, epoch, terms)
            update(optimizer, compute.scaler, losses, list(net.parameters()), settings.clip, processes)
            if average is not None:
                average.follow(net, step)
            loop.log(step, terms)
            if (step + 1) % settings.steps == 0:
                if (epoch + 1) % settings.validate_every == 0 or step + 1 == total:
                    score = processes.ask_first(partial(validation_psnr, judged, scored, compute))
                    if score > memory["best_psnr"]:
                        memory.update(best_psnr=score, best_epoch=epoch)
                        best.load_state_dict(judged.state_dict())
                    facts = {"epoch": epoch, "val_psnr_rgb": score, "best_psnr": memory["best_psnr"]}
                    loop.report(step, facts, ["val_psnr_rgb", "best_psnr"])
                if (epoch + 1) % settings.checkpoint_every == 0 or step + 1 == total:
                    with torch.no_grad():
                        net.eval()
                        loop.checkpoint(step + 1, batch_loss(batch, epoch)[0])
        best = best.cpu().eval()
        if processes.first:
            save_network(run.path, best)
        run.write_json(
            "metrics.json",
            {
                "genotype": genotype.id,
                "best_val_psnr_rgb": memory["best_psnr"],
                "best_epoch": memory["best_epoch"],
                "parameters": genotype.cost(),
                "flops_256": genotype.cost("flops"),
            },
        )
        seconds = run.finish()
        log = processes.ask_first(run.read_log)
    return RetrainResult(best, genotype, path, memory["best_psnr"], memory["best_epoch"], log, seconds)
