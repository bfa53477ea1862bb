"""Bilevel architecture search (method section 6): `search()`.

Each step takes an architecture step on the architecture part of the training scenes, then a weight step on the
weight part. The first epochs move the weights alone. The test scenes are sealed throughout.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from manas_lite import draw
from manas_lite.bilevel import Loss, dominant_eigenvalue, functional_loss, hypergradient, virtual_step
from manas_lite.data import SceneBatch, Split, open_split, scene_loader, split_scenes
from manas_lite.networks.budget import best_within
from manas_lite.networks.costs import measure_costs
from manas_lite.networks.discretize import perturbation
from manas_lite.networks.genotype import Genotype
from manas_lite.networks.nets import SuperNet
from manas_lite.networks.relaxation import Relaxation
from manas_lite.networks.space import SearchSpace
from manas_lite.photos.zoo import fingerprint, save_tensors
from manas_lite.runs.checkpoint import CheckpointError
from manas_lite.runs.documents import about, document, read_json
from manas_lite.runs.record import MANIFEST_EVERY, RunDirectory, run_path
from manas_lite.runs.settings import to_dict
from manas_lite.training.balance import Balance, BalanceState
from manas_lite.training.loop import (
    Loop,
    Training,
    add_terms,
    cosine,
    parts_of,
    seed_of,
    set_rate,
    training_batches,
    weight_step,
)
from manas_lite.training.monitoring import SPAN, LogTo, decisions, eigenvalue_rise, report, skip_collapse
from manas_lite.training.paths import choices_of, draw_path, evolve, on_path, walk
from manas_lite.training.schedules import SearchSettings


@dataclass(frozen=True)
class SearchResult:
    """What a search returns."""

    genotype: Genotype
    """The architecture found."""
    supernet: SuperNet = field(repr=False)
    """The supernet with its trained weights, and the logits and the temperature from which the genotype was derived. It
    is on the device that searched, in eval mode."""
    path: Path
    """The run directory."""
    log: list[dict[str, Any]] = field(repr=False)
    """The records of log.jsonl."""
    stopped: str | None
    """Why the search stopped early, or None."""
    seconds: float
    """Time over all resumed stretches."""

    @property
    def epochs(self) -> list[dict[str, Any]]:
        """The reports of the epochs: alpha and beta weights, entropy, skip share, expected cost, gradient norms."""
        return [record for record in self.log if record.get("kind") == "epoch"]


Logits = list[list[list[float]]]
"""alpha and beta as lists: by parameter, row and candidate."""


@dataclass
class Memory:
    """The plain values in a checkpoint of a search."""

    stopped: str | None
    """Why the search stopped early, or None."""
    healthy: Logits
    """What a stop returns to."""
    eigenvalues: list[float] = field(default_factory=list)
    """All eigenvalues so far."""
    back: int = 1
    """How many epochs back the healthy logits lie. Checkpoints of older runs lack this and what follows."""
    measured: list[Logits] = field(default_factory=list)
    """The logits of the last eigenvalues, the oldest first."""
    balance: BalanceState | None = None
    """The state of `Balance`."""
    norms: list[list[float]] = field(default_factory=list)
    """Norms of the architecture gradients of the epoch so far: alpha's and beta's."""


SCORES = "scores.json"


@dataclass(frozen=True)
class Scores:
    """What the end of a search has scored so far, kept while it scores."""

    weights: str
    """Fingerprint of the supernet that scored."""
    scores: list[float | str]
    """Losses in the order of the calls; a text where one is NaN or infinite."""


def search(
    space: SearchSpace | str = "teach",
    data: Split | str | Path = "photos",
    settings: SearchSettings | str | None = None,
    *,
    runs_dir: str | Path = "runs",
    name: str = "search",
    progress: bool = True,
    log_to: LogTo = None,
) -> SearchResult:
    """Search an architecture; the same call on the same run directory continues a search that was cut.

    Writes genotype.json, supernet.safetensors, metrics.json, manifest.json and log.jsonl.

    Args:
        space: a SearchSpace, or the name of a preset.
        data: see `data.open_split`. Only its training scenes are read.
        settings: SearchSettings, or the name of a preset. None takes the preset named like the space, else `teach`.
        runs_dir, name: the run directory is `runs_dir/name`.
        progress: show a progress bar.
        log_to: who is told each record of the log while the run goes on: "tensorboard", whose files go into the run
            directory, or a function of a dict, whose errors are warnings. Epochs have figures, too.

    Raises:
        LeakError: on any reading of a test file.
        DivergedError: where a loss becomes NaN or infinite.
        ValueError: where the run directory was started with other settings.
    """
    if settings is None:
        settings = space if isinstance(space, str) else "teach"
    settings = SearchSettings.preset(settings) if isinstance(settings, str) else settings
    space = SearchSpace.preset(space) if isinstance(space, str) else space
    run = _Search(space, open_split(data), settings, run_path(runs_dir, name), progress)
    run.log_to = log_to
    return run.run()


class _Search(Training):
    """One search: what its steps share."""

    kind = "search"
    settings: SearchSettings
    net: SuperNet

    def __init__(self, space: SearchSpace, split: Split, settings: SearchSettings, path: Path, progress: bool) -> None:
        net = SuperNet(
            space,
            seed=settings.seed,
            arch_seed=settings.arch_seed,
            relaxation=Relaxation(settings.relaxation, settings.temperature, settings.hard, settings.sampled),
            masked=settings.mask_barred,
            head_gain=settings.head_gain,
        )
        super().__init__(net, split, settings, path, progress)
        self.space = space
        parts = split_scenes(split.train, settings.seed, val=settings.arch_share, test=0)
        self.weight_scenes, self.arch_scenes = parts.train, parts.val
        self.weights, self.arch = self.net.weight_parameters(), self.net.arch_parameters()
        rate, decay, fused = settings.weight_rate, settings.weight_decay, self.compute.fused
        self.weight_optimizer: torch.optim.Optimizer = (
            torch.optim.SGD(self.weights, rate, settings.momentum, weight_decay=decay, fused=fused)
            if settings.optimizer == "sgd"
            else torch.optim.Adam(self.weights, rate, weight_decay=decay, fused=fused)
        )
        self.arch_optimizer = torch.optim.Adam(
            self.arch, settings.arch_rate, betas=settings.arch_betas, weight_decay=settings.arch_decay, fused=fused
        )
        self.costs = measure_costs(space, settings.loss.complexity_unit)
        self.step_costs = self.costs.to(self.arch[0])  # the steps' own, where they compute: no step sends them anew
        self.norms: list[list[Tensor]] = []  # of this epoch's architecture gradients: alpha's, beta's
        self.balance = Balance(self.arch, settings.price_share)
        self.by_paths = settings.strategy != "gradient"

    def run(self) -> SearchResult:
        settings, record = self.settings, {"space": to_dict(self.space)}
        optimizers = {"weight_optimizer": self.weight_optimizer, "arch_optimizer": self.arch_optimizer}
        state, saved = {"supernet": self.net, **optimizers}, Memory(stopped=None, healthy=self._logits())
        with self.open(record, self.split.train, state=state, saved=saved, identity=self.space.id) as loop:
            parts = {"weight_scenes": self.weight_scenes, "arch_scenes": self.arch_scenes}
            loop.run.note(**{part: [scene.name for scene in scenes] for part, scenes in parts.items()})
            self._take_over(loop.saved, loop.path)
            done = loop.start
            if loop.saved.stopped is None:
                weight_batches = self._weight_batches(loop.first)
                arch_batches = self._arch_batches(max(loop.start, settings.warmup * settings.steps))
                done = self.train(loop, weight_batches, arch_batches)
            return self._finish(loop.run, done, loop.saved)

    def _weight_batches(self, start: int) -> Iterator[SceneBatch]:
        seed = 2 * self.settings.seed
        return training_batches(self.weight_scenes, self.settings, seed=seed, start=start, processes=self.processes)

    def _arch_batches(self, start: int) -> Iterator[SceneBatch]:
        settings, seed = self.settings, 2 * self.settings.seed + 1
        settings = replace(settings, batch=settings.arch_batch or settings.batch)
        return training_batches(self.arch_scenes, settings, seed=seed, start=start, processes=self.processes)

    # --- one step ---

    def _step(self, step: int, epoch: int, train: SceneBatch, arch_batches: Iterator[SceneBatch]) -> dict[str, Tensor]:
        """Take an architecture step, if the warm-up is over, then a weight step; return their terms for the log."""
        self._prepare(step)
        arch_terms: dict[str, Tensor] = {}
        if epoch >= self.settings.warmup and not self.by_paths:
            arch_terms = self._architecture_step(epoch, train, next(arch_batches).to(self.compute.device))
        loss_of = partial(self.image_loss, epoch=epoch, scaled=True, fast=True)
        return weight_step(self.weight_optimizer, loss_of, train, **self.step_options) | arch_terms

    def _prepare(self, step: int) -> None:
        """Set a step's learning rate, and its path or its relaxation."""
        super()._prepare(step)
        settings = self.settings
        set_rate(self.weight_optimizer, cosine(step, self.total, settings.weight_rate, settings.weight_rate_end))
        if self.by_paths:
            walk(self.net, draw_path(self.space, settings.seed, step, fair=settings.strategy == "fair-paths"))
        else:
            self._relax(step)

    def _relax(self, step: int) -> None:
        """Set this step's temperature and noise, which are functions of (seed, step)."""
        settings = self.settings
        share = step / max(1, self.total - 1)
        temperature = settings.temperature ** (1 - share) * settings.temperature_end**share
        self.net.relaxation = replace(self.net.relaxation, temperature=temperature)
        self.net.resample(torch.Generator().manual_seed(seed_of(settings.seed, step)))

    def _architecture_loss(self, batch: SceneBatch, epoch: int, fast: bool = False) -> Tensor:
        """Return the image terms plus the terms of the architecture itself (method section 4)."""
        image, _ = self.image_loss(batch, epoch, fast=fast)
        own, _ = self.loss.architecture(*self.net.logits(), *self.net.weights(), self.step_costs)
        return image + own

    def _architecture_step(self, epoch: int, train: SceneBatch, val: SceneBatch) -> dict[str, Tensor]:
        """Take one step of alpha and beta along the hypergradient; return its terms for the log.

        The passes use batch statistics. BatchNorm's running ones, weights and optimiser state stay as they are.
        """
        settings, train_loss, step = self.settings, None, None
        if settings.order != "first":
            train_loss = self._pure(lambda: self.image_loss(train, epoch, fast=True)[0])
            step = virtual_step(self.weight_optimizer, settings.clip)
        terms: dict[str, Tensor] = {}
        gradients = [torch.zeros_like(parameter) for parameter in self.arch]
        for share, part in parts_of(val, settings.accumulate):
            val_loss = self._pure(partial(self._architecture_loss, part, epoch, fast=True))
            found = hypergradient(
                settings.order, train_loss, val_loss, self.weights, self.arch, step=step, radius=settings.radius
            )
            for total, gradient in zip(gradients, found.gradients, strict=True):
                total += share * gradient
            add_terms(terms, share, {"arch": found.val_loss})
        own_terms = self.loss.architecture_terms(*self.net.logits(), *self.net.weights(), self.step_costs)
        terms |= {name: value.detach() for name, (_, value) in own_terms.items()}
        gradients, sizes = self.balance(gradients, own_terms)
        for parameter, value in zip(self.arch, gradients, strict=True):
            parameter.grad = value
        self.arch_optimizer.step()
        self.arch_optimizer.zero_grad(set_to_none=True)
        norms = [torch.linalg.vector_norm(g) for g in gradients]
        self.norms.append(norms)
        return {**terms, **sizes, "alpha_gradient": norms[0], "beta_gradient": norms[1]}

    def _pure(self, objective: Callable[[], Tensor]) -> Loss:
        """Make a pure loss of what `objective` computes with the network; it is the mean over all processes."""
        return self.processes.mean(functional_loss(self.net, lambda _: objective(), self.weights, self.arch))

    # --- the end of an epoch ---

    def _end_epoch(self, step: int, epoch: int, loop: Loop) -> bool:
        """Report the epoch and look for a collapse; return whether to stop."""
        settings, saved = self.settings, loop.saved
        record: dict[str, Any] = {"epoch": epoch, **report(self.net, self.costs), "eigenvalue": None}
        for name, norms in zip(("alpha_gradient", "beta_gradient"), zip(*self.norms, strict=True), strict=False):
            record[name] = float(torch.stack(norms).mean())
        self.norms.clear()
        searching = epoch >= settings.warmup and not self.by_paths
        if searching and settings.eigenvalue_every and (epoch + 1) % settings.eigenvalue_every == 0:
            record["eigenvalue"] = self._eigenvalue(epoch)
            saved.eigenvalues.append(record["eigenvalue"])
        shown = ["alpha_entropy", "beta_entropy", "skip_share", "expected_cost", "eigenvalue"]
        loop.report(step, record, shown, lambda: self._followed(record))
        if searching and settings.early_stop:
            self._stop_on_collapse(record["skip_edges"], saved)
        if saved.stopped is None:
            saved.healthy = self._logits()
            if record["eigenvalue"] is not None:
                saved.measured = [*saved.measured, saved.healthy][-SPAN:]
        else:
            loop.progress.say(f"stops early: {saved.stopped}")
        return saved.stopped is not None

    def save(self, step: int, epoch: int, batch: SceneBatch, loop: Loop, *, ended: bool = True) -> None:
        loop.saved.balance = self.balance.dump()
        loop.saved.norms = [[float(norm) for norm in pair] for pair in self.norms]
        super().save(step, epoch, batch, loop, ended=ended)

    def _followed(self, record: dict[str, Any]) -> dict[str, Any]:
        """Return what only those who follow the search are told: the weights by name, and two drawings."""
        space, alpha, beta = self.space, record["alpha"], record["beta"]
        weights = {f"module {row}": dict(zip(space.modules, values, strict=True)) for row, values in enumerate(alpha)}
        weights |= {f"edge {row}": dict(zip(space.operations, values, strict=True)) for row, values in enumerate(beta)}
        chosen = draw.architecture(Genotype.from_logits(space, self.net.alpha, self.net.beta))
        return {"weights": weights, "architecture": chosen, "mixture": draw.mixture(alpha, beta, space)}

    def _take_over(self, saved: Memory, path: Path) -> None:
        """Take over what a checkpoint remembers of alpha and beta; CheckpointError where it is of another space."""
        with about(path, CheckpointError):
            for logits in (saved.healthy, *saved.measured):
                self._as_logits(logits)
            self.norms = [[torch.tensor(norm) for norm in pair] for pair in saved.norms]
            if any(len(pair) != len(self.arch) for pair in self.norms):
                raise ValueError("norms: expected two numbers for each step, alpha's and beta's")
            if saved.balance is not None:
                self.balance.load(saved.balance.steps, self._as_logits(saved.balance.mean))

    def _as_logits(self, values: Logits) -> list[Tensor]:
        """Return lists as tensors of the shapes of alpha and beta."""
        shapes = [parameter.shape for parameter in self.arch]
        for shape, rows in zip(shapes, values, strict=True):
            if len(rows) != shape[0] or any(len(row) != shape[1] for row in rows):
                raise ValueError(f"it remembers other logits than {' and '.join(str(tuple(s)) for s in shapes)}")
        return [torch.tensor(rows).reshape(shape) for shape, rows in zip(shapes, values, strict=True)]

    def _stop_on_collapse(self, skip_edges: float, saved: Memory) -> None:
        """Note in `saved` why to stop, if at all, and what to return to.

        The eigenvalue's rule comes first: it goes back further, and where both rules hold, the epoch before has risen
        already.
        """
        settings, measured = self.settings, saved.measured
        saved.stopped = eigenvalue_rise(saved.eigenvalues, settings.eigenvalue_ratio)
        if saved.stopped and measured:  # an older run, continued, goes back as far as it can
            saved.healthy, saved.back = measured[0], len(measured) * settings.eigenvalue_every
        elif saved.stopped is None and len(self.space.choices) > 1:  # where edges can only skip, it says nothing
            saved.stopped = skip_collapse(skip_edges, settings.max_skip_share)

    def _logits(self) -> list[Any]:
        return [parameter.detach().tolist() for parameter in self.arch]

    def _eigenvalue(self, epoch: int) -> float:
        """Return the dominant eigenvalue of the Hessian of the architecture loss, on two scenes fixed by the seed."""
        pair, patch = min(2, len(self.arch_scenes)), self.settings.patch
        loader = scene_loader(self.arch_scenes, batch=pair, patch=patch, seed=self.settings.seed, steps=1, rains=1)
        batch = next(iter(loader)).to(self.compute.device)
        pure = self._pure(lambda: self._architecture_loss(batch, epoch))
        weights = [w.detach() for w in self.weights]
        return dominant_eigenvalue(lambda arch: pure(weights, arch), self.arch, iterations=10, tolerance=1e-2).value

    # --- the end of the search ---

    def _finish(self, run: RunDirectory, done: int, saved: Memory) -> SearchResult:
        log = self.processes.ask_first(run.read_log)
        kept = self._return_to_kept(done, saved)
        genotype = self._derive(run)
        run.write_text("genotype.json", genotype.to_json())
        if self.processes.first:
            weights = self.net.state_dict()
            save_tensors(run.path / "supernet.safetensors", weights, kind="supernet", genotype=genotype)
        record = next((r for r in log if r.get("kind") == "epoch" and r["step"] == kept), {})
        facts = {**record, **report(self.net, self.costs)}
        metrics = {
            "genotype": genotype.id,
            "stopped": saved.stopped,
            "parameters": genotype.cost(),
            "flops_256": genotype.cost("flops"),
            "decisions": [] if self.by_paths else decisions(self.net, genotype),
            **{name: value for name, value in facts.items() if isinstance(value, int | float)},
        }
        if record or not (run.path / "metrics.json").exists():  # of a finished run whose log was lost, they are kept
            run.write_json("metrics.json", metrics)
        if self.processes.first:
            (run.path / SCORES).unlink(missing_ok=True)
        seconds = run.finish()
        return SearchResult(genotype, self.net.eval(), self.path, log, saved.stopped, seconds)

    @torch.no_grad()
    def _return_to_kept(self, done: int, saved: Memory) -> int:
        """Give the supernet the logits and the relaxation to derive from; return the step that they are of.

        They are those of the last of `done` steps, also for a finished search that is opened again. After an early stop
        they are those from before the collapse, and -1 stands for the start of the search.
        """
        last = done - 1
        if saved.stopped:
            last -= saved.back * self.settings.steps
            for parameter, values in zip(self.arch, self._as_logits(saved.healthy), strict=True):
                parameter.copy_(values)
        if not self.by_paths:
            self._relax(max(0, last))
        return last

    @torch.no_grad()
    def _derive(self, run: RunDirectory) -> Genotype:
        if self.by_paths:
            return self._evolve(run)
        if self.settings.discretize == "argmax":
            return self._choose(*self.net.logits())
        score = self._scorer(run, batches=1)
        return perturbation(self.net, lambda net: torch.tensor(score()))[0]

    def _scorer(self, run: RunDirectory, batches: int) -> Callable[[], float]:
        """Return a function that scores the network as it is then: by its image loss on held-out batches."""
        loader = self._arch_batches(0)
        held_out = [next(loader).to(self.compute.device) for _ in range(batches)]
        self.net.train()  # BatchNorm by batch: its running statistics are of all paths together
        epoch = self.settings.epochs
        pure = self._pure(lambda: torch.stack([self.image_loss(batch, epoch)[0] for batch in held_out]).mean())
        return self._remembered(run, lambda: float(pure(self.weights, self.arch)))

    def _remembered(self, run: RunDirectory, score: Callable[[], float]) -> Callable[[], float]:
        """Let `score` return what it returned before a cut, call by call, and keep what it returns in scores.json.

        What is scored is a function of the seed and of the scores so far, so the calls come in the same order again.
        """
        path, weights = run.path / SCORES, fingerprint(self.net)
        found = self.processes.ask_first(lambda: document(Scores, read_json(path), path) if path.exists() else None)
        with about(path):
            kept = [float(value) for value in found.scores] if found and found.weights == weights else []
        calls, saved = count(), time.monotonic()

        def remembered() -> float:
            nonlocal saved
            if (call := next(calls)) == len(kept):
                kept.append(score())
                if time.monotonic() - saved > MANIFEST_EVERY:
                    run.write_json(SCORES, {"weights": weights, "scores": kept})
                    saved = time.monotonic()
            return kept[call]

        return remembered

    def _choose(self, alpha: Tensor, beta: Tensor) -> Genotype:
        """Return the architecture of the largest logits; under a budget, the most probable one that keeps to it."""
        settings = self.settings
        if settings.budget is None:
            return Genotype.from_logits(self.space, alpha, beta)
        return best_within(self.space, alpha, beta, measure_costs(self.space, settings.budget_unit), settings.budget)

    def _evolve(self, run: RunDirectory) -> Genotype:
        """Return the architecture whose path has the lowest loss on held-out scenes; all that were scored are kept."""
        settings = self.settings
        remembered = self._scorer(run, batches=min(settings.score_batches, self.total))

        def score(genotype: Genotype) -> float:
            with on_path(self.net, genotype):
                return remembered()

        found = evolve(score, self._choose, self.space, evaluations=settings.evaluations, seed=settings.seed)
        plain = [{"loss": value, "modules": list(g.modules), "edges": list(g.edges)} for value, g in found]
        run.write_json("candidates.json", plain)
        walk(self.net, choices_of(found[0][1]))
        return found[0][1]
