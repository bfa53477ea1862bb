"""Bilevel architecture search (method section 6): `search()`.

Each step takes an architecture step on the architecture part of the training scenes, then a weight step on the
weight part. The first epochs move the weights alone. The test scenes are sealed throughout.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from manas_lite.bilevel import Loss, dominant_eigenvalue, functional_loss, hypergradient, virtual_step
from manas_lite.compute.footprint import explain_out_of_memory, shortage
from manas_lite.compute.runtime import Compute
from manas_lite.data import SceneBatch, Split, open_split, scene_loader, sealed, split_scenes
from manas_lite.losses import DerainLoss
from manas_lite.networks.costs import Costs, measure_costs
from manas_lite.networks.discretize import perturbation
from manas_lite.networks.genotype import Genotype
from manas_lite.networks.nets import SuperNet
from manas_lite.networks.relaxation import Relaxation
from manas_lite.networks.space import SearchSpace
from manas_lite.networks.zoo import save_tensors
from manas_lite.runs.checkpoint import Stateful
from manas_lite.runs.settings import to_dict
from manas_lite.training.loop import (
    Loop,
    add_terms,
    cosine,
    note_data,
    parts_of,
    seed_of,
    set_rate,
    settings_record,
    step_memory,
    training_batches,
    update,
)
from manas_lite.training.monitoring import WINDOW, eigenvalue_rise, report, skip_collapse
from manas_lite.training.schedules import SearchSettings


@dataclass(frozen=True)
class SearchResult:
    """genotype: the architecture found; supernet: with its trained weights, and the logits and the temperature from
    which it was derived, on the device that searched, in eval mode; log: the records of log.jsonl; stopped: why the
    search stopped early, or None; seconds: over all resumed stretches."""

    genotype: Genotype
    supernet: SuperNet = field(repr=False)
    path: Path
    log: list[dict[str, Any]] = field(repr=False)
    stopped: str | None
    seconds: float

    @property
    def epochs(self) -> list[dict[str, Any]]:
        """The per-epoch reports: alpha and beta weights, entropy, skip share, expected cost, gradient norm, ..."""
        return [record for record in self.log if record["kind"] == "epoch"]


def search(
    space: SearchSpace | str = "teach",
    data: Split | str | Path = "photos",
    settings: SearchSettings | str | None = None,
    *,
    runs_dir: str | Path = "runs",
    name: str = "search",
    progress: bool = True,
) -> SearchResult:
    """Search an architecture; the same call on the same run directory continues a search that was cut.

    space: a SearchSpace or the name of a preset. data: see `data.open_split`; only its training scenes are read.
    settings: SearchSettings or a preset's name (default: the preset named like the space, else `teach`).
    Writes genotype.json, supernet.safetensors, metrics.json, manifest.json, log.jsonl in `runs_dir/name`.

    Raises LeakError on any reading of a test file, DivergedError on NaN, ValueError when the run directory was
    started with other settings.
    """
    if settings is None:
        settings = space if isinstance(space, str) else "teach"
    settings = SearchSettings.preset(settings) if isinstance(settings, str) else settings
    space = SearchSpace.preset(space) if isinstance(space, str) else space
    split = open_split(data)
    return _Search(space, split, settings, Path(runs_dir) / name, progress).run()


class _Search:
    """One search: what its steps share."""

    def __init__(self, space: SearchSpace, split: Split, settings: SearchSettings, path: Path, progress: bool) -> None:
        self.space, self.split, self.settings, self.path, self.show = space, split, settings, path, progress
        self.compute = Compute(settings.compute, space.channels[0], together=True)
        self.processes = self.compute.processes
        parts = split_scenes(split.train, settings.seed, val=settings.arch_share, test=0)
        self.weight_scenes, self.arch_scenes = parts.train, parts.val
        relaxation = Relaxation(settings.relaxation, settings.temperature, settings.hard, settings.sampled)
        net = SuperNet(space, seed=settings.seed, arch_seed=settings.arch_seed, relaxation=relaxation)
        self.net: SuperNet = self.compute.prepare(net)
        self.net.save_memory(settings.compute.checkpoint)
        self.fast = self.compute.compiled(self.net, settings.epochs * settings.steps)
        self.memory = step_memory(space, settings, self.compute, split.train)
        self.weights, self.arch = self.net.weight_parameters(), self.net.arch_parameters()
        if settings.optimizer == "sgd":
            self.weight_optimizer: torch.optim.Optimizer = torch.optim.SGD(
                self.weights, settings.weight_rate, settings.momentum, weight_decay=settings.weight_decay
            )
        else:
            self.weight_optimizer = torch.optim.Adam(
                self.weights, settings.weight_rate, weight_decay=settings.weight_decay
            )
        self.arch_optimizer = torch.optim.Adam(
            self.arch, settings.arch_rate, betas=settings.arch_betas, weight_decay=settings.arch_decay
        )
        self.loss = DerainLoss(settings.loss)
        self.costs: Costs = measure_costs(space, settings.loss.complexity_unit)
        self.norms: list[list[Tensor]] = []  # of this epoch's architecture gradients: alpha's, beta's

    # --- the loop ---

    def run(self) -> SearchResult:
        settings = self.settings
        memory: dict[str, Any] = {
            "stopped": None,
            "healthy": self._logits(),  # what a stop returns to, and how many epochs that is `back`
            "back": 1,
            "eigenvalues": [],
            "measured": [],  # the logits of the last eigenvalues, oldest first; checkpoints of older runs lack them
        }
        record = {"space": to_dict(self.space), "settings": settings_record(settings), "split": self.split.sha256}
        state: dict[str, Stateful] = {
            "supernet": self.net,
            "weight_optimizer": self.weight_optimizer,
            "arch_optimizer": self.arch_optimizer,
        }
        total = settings.epochs * settings.steps
        with (
            explain_out_of_memory(self.memory, self.compute.device),
            self.processes.open(self.path, record, kind="search") as run,
            sealed(self.split.test),
            self.compute.session(),
        ):
            parts = {"weight_scenes": self.weight_scenes, "arch_scenes": self.arch_scenes}
            run.note(**{part: [scene.name for scene in scenes] for part, scenes in parts.items()})
            run.note(compute=self.compute.facts())
            note_data(run, self.split.train, self.processes)
            loop = Loop(
                run,
                total=total,
                state=state,
                scaler=self.compute.scaler,
                memory=memory,
                identity=self.space.id,
                title="search",
                progress=self.show,
                processes=self.processes,
            )
            if short := shortage(self.memory, self.compute.device):
                loop.progress.say(f"warning: {short}")
            done = loop.start
            if memory["stopped"] is None:
                weight_batches = self._batches("weights", loop.start)
                arch_batches = self._batches("architecture", max(loop.start, settings.warmup * settings.steps))
                for step in loop:
                    epoch = step // settings.steps
                    train = next(weight_batches).to(self.compute.device)
                    self._step(step, epoch, train, arch_batches, loop)
                    done = step + 1
                    if (step + 1) % settings.steps == 0:
                        self._end_epoch(step, epoch, loop, memory)
                        if memory["stopped"] or (epoch + 1) % settings.checkpoint_every == 0 or step + 1 == total:
                            loop.checkpoint(step + 1, self._probe(train, epoch))
                        if memory["stopped"]:
                            loop.progress.say(f"stops early: {memory['stopped']}")
                            break
            log = self.processes.ask_first(run.read_log)
            kept = self._restore(done, memory)
            genotype = self._derive()
            run.write_text("genotype.json", genotype.to_json())
            if self.processes.first:
                weights = self.net.state_dict()
                save_tensors(run.path / "supernet.safetensors", weights, kind="supernet", genotype=genotype)
            record = next((r for r in log if r["kind"] == "epoch" and r["step"] == kept), {})
            facts = {**record, **report(self.net, self.costs)}
            run.write_json(
                "metrics.json",
                {
                    "genotype": genotype.id,
                    "stopped": memory["stopped"],
                    "parameters": genotype.cost(),
                    "flops_256": genotype.cost("flops"),
                    **{name: value for name, value in facts.items() if isinstance(value, int | float)},
                },
            )
            seconds = run.finish()
        return SearchResult(genotype, self.net.eval(), self.path, log, memory["stopped"], seconds)

    def _batches(self, part: str, start: int) -> Iterator[SceneBatch]:
        scenes, stream = {"weights": (self.weight_scenes, 0), "architecture": (self.arch_scenes, 1)}[part]
        seed = 2 * self.settings.seed + stream
        return training_batches(scenes, self.settings, seed=seed, start=start, processes=self.processes)

    # --- one step ---

    def _step(self, step: int, epoch: int, train: SceneBatch, arch_batches: Iterator[SceneBatch], loop: Loop) -> None:
        settings = self.settings
        self.net.train()
        set_rate(
            self.weight_optimizer,
            cosine(step, loop.total, settings.weight_rate, settings.weight_rate_end),
        )
        self._relax(step, loop.total)
        terms: dict[str, Tensor] = {}
        if epoch >= settings.warmup:
            terms |= self._architecture_step(epoch, train, next(arch_batches).to(self.compute.device))
        image_terms: dict[str, Tensor] = {}

        def losses() -> Iterator[Tensor]:
            for share, part in parts_of(train, settings.accumulate):
                value, found = self._image_loss(self.net, part, epoch, scaled=True, fast=True)
                add_terms(image_terms, share, {"train": value.detach(), **found})
                yield share * value

        update(self.weight_optimizer, self.compute.scaler, losses(), self.weights, settings.clip, self.processes)
        loop.log(step, image_terms | terms)

    def _relax(self, step: int, total: int) -> None:
        """This step's temperature and noise, functions of (seed, step)."""
        settings = self.settings
        share = step / max(1, total - 1)
        temperature = settings.temperature ** (1 - share) * settings.temperature_end**share
        self.net.relaxation = replace(self.net.relaxation, temperature=temperature)
        self.net.resample(torch.Generator().manual_seed(seed_of(settings.seed, step)))

    def _image_loss(
        self, net: SuperNet, batch: SceneBatch, epoch: int, *, scaled: bool = False, fast: bool = False
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """fast: by the compiled network, if there is one; the passes of steps alone, which repeat."""
        with self.compute.autocast(scaled=scaled):
            outputs = (self.fast if fast else net)(self.compute.images(batch.rainy))
        return self.loss(outputs.float().unflatten(0, batch.rainy.shape[:2]), batch.clean, epoch=epoch)

    def _architecture_loss(
        self, net: SuperNet, batch: SceneBatch, epoch: int, *, fast: bool = False
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Image terms, plus the terms of the architecture itself (method section 4)."""
        image, _ = self._image_loss(net, batch, epoch, fast=fast)
        own, terms = self.loss.architecture(net.alpha, net.beta, *net.weights(), self.costs)
        return image + own, terms

    def _architecture_step(self, epoch: int, train: SceneBatch, val: SceneBatch) -> dict[str, Tensor]:
        """Gradients with batch statistics; BatchNorm's running ones, weights and optimiser state stay as they are."""
        settings = self.settings
        terms: dict[str, Tensor] = {}
        higher = settings.order != "first"
        gradients = [torch.zeros_like(parameter) for parameter in self.arch]
        for share, part in parts_of(val, settings.accumulate):
            own: dict[str, Tensor] = {}

            def val_objective(net: SuperNet, part: SceneBatch = part, own: dict[str, Tensor] = own) -> Tensor:
                total, found = self._architecture_loss(net, part, epoch, fast=True)
                own.update(found)
                return total

            found = hypergradient(
                settings.order,
                self._pure(lambda net: self._image_loss(net, train, epoch, fast=True)[0]) if higher else None,
                self._pure(val_objective),
                self.weights,
                self.arch,
                step=virtual_step(self.weight_optimizer, settings.clip) if higher else None,
                radius=settings.radius,
            )
            for total, gradient in zip(gradients, found.gradients, strict=True):
                total += share * gradient
            add_terms(terms, share, {"arch": found.val_loss, **own})
        for parameter, value in zip(self.arch, gradients, strict=True):
            parameter.grad = value
        self.arch_optimizer.step()
        self.arch_optimizer.zero_grad(set_to_none=True)
        norms = [torch.linalg.vector_norm(g) for g in gradients]
        self.norms.append(norms)
        return {**terms, "alpha_gradient": norms[0], "beta_gradient": norms[1]}

    @torch.no_grad()
    def _probe(self, batch: SceneBatch, epoch: int) -> Tensor:
        """The loss of the weights as they are now."""
        self.net.eval()
        return self._image_loss(self.net, batch, epoch)[0]

    # --- reports, early stop, discretisation ---

    def _end_epoch(self, step: int, epoch: int, loop: Loop, memory: dict[str, Any]) -> None:
        settings = self.settings
        record: dict[str, Any] = {"epoch": epoch, **report(self.net, self.costs), "eigenvalue": None}
        for name, norms in zip(("alpha_gradient", "beta_gradient"), zip(*self.norms, strict=True), strict=False):
            record[name] = float(torch.stack(norms).mean())
        self.norms.clear()
        searching = epoch >= settings.warmup
        if searching and settings.eigenvalue_every and (epoch + 1) % settings.eigenvalue_every == 0:
            record["eigenvalue"] = self._eigenvalue(epoch)
            memory["eigenvalues"].append(record["eigenvalue"])
        shown = ["alpha_entropy", "beta_entropy", "skip_share", "expected_cost", "eigenvalue"]
        loop.report(step, record, shown)
        if searching and settings.early_stop:
            self._stop_on_collapse(record["skip_edges"], memory)
        if memory["stopped"] is None:
            memory["healthy"] = self._logits()
            if record["eigenvalue"] is not None:
                memory["measured"] = [*memory["measured"], memory["healthy"]][-WINDOW:]

    def _stop_on_collapse(self, skip_edges: float, memory: dict[str, Any]) -> None:
        """Note in `memory` why to stop, if at all, and what to return to. The eigenvalue's rule comes first: it goes
        back further, and where both rules hold, the epoch before has risen already."""
        settings, measured = self.settings, memory["measured"]
        memory["stopped"] = eigenvalue_rise(memory["eigenvalues"], settings.eigenvalue_ratio)
        if memory["stopped"] and measured:  # an older run, continued, goes back as far as it can
            memory.update(healthy=measured[0], back=len(measured) * settings.eigenvalue_every)
        elif memory["stopped"] is None and len(self.space.choices) > 1:  # where edges can only skip, it says nothing
            memory["stopped"] = skip_collapse(skip_edges, settings.max_skip_share)

    def _logits(self) -> list[Any]:
        return [parameter.detach().tolist() for parameter in self.arch]

    def _eigenvalue(self, epoch: int) -> float:
        """Of the architecture Hessian of the validation loss, on two scenes fixed by the seed."""
        pair, patch = min(2, len(self.arch_scenes)), self.settings.patch
        loader = scene_loader(self.arch_scenes, batch=pair, patch=patch, seed=self.settings.seed, steps=1, rains=1)
        batch = next(iter(loader)).to(self.compute.device)
        pure = self._pure(lambda net: self._architecture_loss(net, batch, epoch)[0])
        weights = [w.detach() for w in self.weights]
        return dominant_eigenvalue(lambda arch: pure(weights, arch), self.arch, iterations=10, tolerance=1e-2).value

    @torch.no_grad()
    def _restore(self, done: int, memory: dict[str, Any]) -> int:
        """Give the supernet the relaxation of the last of `done` steps, which a finished search that is opened again
        never took; after an early stop, the logits from before the collapse and their relaxation. Returns the step
        that they are of; -1 for the start of a search whose first epoch collapsed."""
        last = done - 1
        if memory["stopped"]:
            last -= memory["back"] * self.settings.steps
            for parameter, values in zip(self.arch, memory["healthy"], strict=True):
                parameter.copy_(torch.tensor(values))
        self._relax(max(0, last), self.settings.epochs * self.settings.steps)
        return last

    @torch.no_grad()
    def _derive(self) -> Genotype:
        if self.settings.discretize == "argmax":
            return self.net.derive()
        batch = next(self._batches("architecture", 0)).to(self.compute.device)
        pure = self._pure(lambda net: self._image_loss(net, batch, self.settings.epochs)[0])
        self.net.train()
        return perturbation(self.net, lambda net: pure(self.weights, self.arch))[0]

    def _pure(self, objective: Callable[[SuperNet], Tensor]) -> Loss:
        """A loss of all processes: gradients by architecture and weights come as means over them (method section 6)."""
        return self.processes.mean(functional_loss(self.net, objective, self.weights, self.arch))
