"""Whole steps of a training and of a search against plain torch: rates, clipping, averages, batches, hypergradients."""

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import tiny
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from manas_lite.data import Scene, SceneBatch, Split, scene_loader
from manas_lite.losses import DerainLoss, LossSettings
from manas_lite.networks.costs import measure_costs
from manas_lite.networks.genotype import Genotype
from manas_lite.networks.nets import DerainNet, SuperNet
from manas_lite.runs.record import read_json
from manas_lite.training.evaluation import evaluate
from manas_lite.training.retraining import retrain
from manas_lite.training.searching import search

MSE = LossSettings(external="mse", tv=0.0, internal_weight=0.0)  # 3 * mean (T - Y)^2, and nothing else


@pytest.fixture(scope="module")
def split(tmp_path_factory) -> Split:
    return tiny.tiny_split(tmp_path_factory.mktemp("pictures"))


@dataclasses.dataclass
class Step:
    """What an optimiser was given for one of its steps."""

    group: dict
    state: dict
    before: list[Tensor]
    gradients: list[Tensor]


@contextmanager
def recorded_steps() -> Iterator[list[Step]]:
    """Every step of any torch optimiser in the block, in order."""
    steps: list[Step] = []

    def note(optimizer, args, kwargs) -> None:
        (group,) = optimizer.param_groups
        steps.append(
            Step(
                {name: value for name, value in group.items() if name != "params"},
                copy.deepcopy(optimizer.state_dict()["state"]),
                [p.detach().clone() for p in group["params"]],
                [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in group["params"]],
            )
        )

    handle = register_optimizer_step_pre_hook(note)
    try:
        yield steps
    finally:
        handle.remove()


def batches_of(scenes: tuple[Scene, ...], settings, seed: int) -> list[SceneBatch]:
    steps = settings.epochs * settings.steps
    loader = scene_loader(scenes, batch=settings.batch, patch=settings.patch, seed=seed, steps=steps)
    return [batch.to("cpu") for batch in loader]


def distance(net: nn.Module, batch: SceneBatch) -> Tensor:
    """The loss of `MSE`, written out."""
    outputs = net(batch.rainy.to(batch.clean.dtype).flatten(0, 1)).unflatten(0, batch.rainy.shape[:2])
    return 3 * (outputs - batch.clean[:, None]).square().mean()


def norm(tensors: list[Tensor]) -> float:
    return math.sqrt(sum(float(t.detach().double().square().sum()) for t in tensors))


# --- retraining ---


@pytest.mark.parametrize("ema", [None, 0.15, 0.9])  # the rising decay passes 0.15 after a step, and 0.9 much later
@pytest.mark.parametrize("clip", [None, 1e-6])  # so small that Adam's own scaling by the gradient cannot hide it
def test_a_retraining_is_adam_with_clipping_and_an_average_by_hand(split, tmp_path, clip, ema):
    settings = dataclasses.replace(
        tiny.RETRAIN,
        epochs=1,
        steps=5,
        rate=5e-3,
        rate_end=1e-3,
        warmup=2,
        weight_decay=0.0 if clip else 1e-2,  # a decay is not clipped, and would be all that is left of a clipped step
        clip=clip,
        ema=ema,
        loss=MSE,
    )
    result = retrain(tiny.GENOTYPE, split, settings, runs_dir=tmp_path, progress=False)

    net = DerainNet(tiny.GENOTYPE, seed=settings.seed).train()
    start = copy.deepcopy(net)
    average = copy.deepcopy(net)
    optimizer = torch.optim.Adam(net.parameters(), weight_decay=settings.weight_decay)
    rates = [2.5e-3, 5e-3, *(1e-3 + 4e-3 * (1 + math.cos(math.pi * share)) / 2 for share in (0, 1 / 3, 2 / 3))]
    decays = [min(ema or 0.0, (1 + step) / (10 + step)) for step in range(5)]
    for rate, decay, batch in zip(rates, decays, batches_of(split.train, settings, settings.seed), strict=True):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        distance(net, batch).backward()
        if clip is not None:
            assert nn.utils.clip_grad_norm_(net.parameters(), clip) > 10 * clip
        optimizer.step()
        with torch.no_grad():
            for mean, new in zip(average.parameters(), net.parameters(), strict=True):
                mean.copy_(decay * mean + (1 - decay) * new)

    expected = net if ema is None else average
    for found, wanted, first in zip(result.net.parameters(), expected.parameters(), start.parameters(), strict=True):
        moved = (wanted - first).abs().max().item()
        torch.testing.assert_close(found, wanted, rtol=0, atol=max(1e-3 * moved, 1e-7))
    for found, wanted in zip(result.net.buffers(), net.buffers(), strict=True):  # statistics are copied, not averaged
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("ema", [None, 0.5])
def test_the_best_epoch_is_kept_and_a_later_worse_one_is_not(split, tmp_path, ema):
    """The rate rises until it ruins the network: the best epoch is neither the first nor the last."""
    settings = dataclasses.replace(
        tiny.RETRAIN, epochs=5, steps=8, batch=6, rate=3e-4, rate_end=0.3, clip=None, ema=ema, loss=MSE
    )
    genotype = Genotype.hand_made(dataclasses.replace(tiny.SPACE, norm="none"))
    result = retrain(genotype, split, settings, runs_dir=tmp_path, progress=False)
    scores = [record["val_psnr_rgb"] for record in result.log if record["kind"] == "epoch"]
    best = scores.index(max(scores))
    assert 0 < best < len(scores) - 1
    assert scores[-1] < scores[best] - 0.5
    assert (result.best_epoch, result.best_psnr) == (best, scores[best])
    found = evaluate(result.net, split.val, conventions=["rgb"], measures=["psnr"]).means()["psnr_rgb"]
    assert found == pytest.approx(scores[best], abs=1e-4)
    metrics = read_json(result.path / "metrics.json")
    assert (metrics["best_epoch"], metrics["best_val_psnr_rgb"]) == (best, scores[best])


# --- search ---


class Whole(nn.Module):
    """The two losses of a search as functions of weights and logits: image loss, and that with the architecture's."""

    def __init__(self, net: SuperNet, settings) -> None:
        super().__init__()
        self.net, self.loss, self.costs = net, settings.loss, measure_costs(net.space, settings.loss.complexity_unit)

    def forward(self, batch: SceneBatch, architecture: bool) -> Tensor:
        image = distance(self.net, batch)
        return image + self.own() if architecture else image

    def own(self) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for logits, weight in (
            (self.net.alpha, self.loss.alpha_entropy_weight),
            (self.net.beta, self.loss.beta_entropy_weight),
        ):
            p = torch.softmax(logits, 1)
            total = total + weight * (-p * torch.log10(p) - (1 - p) * torch.log10(1 - p)).mean()
        alpha, beta = torch.softmax(self.net.alpha, 1), torch.softmax(self.net.beta, 1)
        cost = self.costs.fixed + (alpha * self.costs.modules).sum() + (beta * self.costs.edges).sum()
        largest = self.costs.fixed + self.costs.modules.amax(1).sum() + self.costs.edges.amax(1).sum()
        return total + self.loss.complexity_weight * cost / largest

    def at(self, weights, arch, batch: SceneBatch, *, architecture: bool) -> Tensor:
        """In float64, by batch statistics; nothing of the network moves."""
        names = [name for name, _ in self.net.named_parameters() if name not in ("alpha", "beta")]
        tensors = dict(zip([*names, "alpha", "beta"], [*weights, *arch], strict=True))
        tensors = {f"net.{name}": value for name, value in tensors.items()}
        buffers = {f"net.{name}": value.clone() for name, value in self.net.named_buffers()}
        batch = SceneBatch(batch.rainy.double(), batch.clean.double(), batch.index)
        return torch.func.functional_call(self, {**tensors, **buffers}, (batch, architecture))


def leaves(tensors) -> list[Tensor]:
    return [t.detach().double().requires_grad_() for t in tensors]


def optimizer_step(step: Step, clip: float) -> Callable[[list[Tensor], list[Tensor]], list[Tensor]]:
    """SGD with momentum or Adam, as their papers write them, from a recorded state; the clipping factor is constant."""
    group, states = step.group, [{k: v.double() for k, v in step.state.get(i, {}).items()} for i in range(10_000)]

    def move(weights: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
        factor = min(1.0, clip / (norm(gradients) + 1e-6))
        new = []
        for w, g, state in zip(weights, gradients, states, strict=False):
            g = factor * g + group["weight_decay"] * w
            if "momentum" in group:
                buffer = group["momentum"] * state["momentum_buffer"] + g if state else g
                new.append(w - group["lr"] * buffer)
                continue
            (b1, b2), age = group["betas"], float(state.get("step", 0)) + 1
            mean = b1 * state.get("exp_avg", torch.zeros_like(w)) + (1 - b1) * g
            square = b2 * state.get("exp_avg_sq", torch.zeros_like(w)) + (1 - b2) * g * g
            root = (square.clamp_min(1e-40) / (1 - b2**age)).sqrt()
            new.append(w - group["lr"] * (mean / (1 - b1**age)) / (root + group["eps"]))
        return new

    return move


def hypergradient_by_hand(order: str, train, val, weights, arch, move, radius: float) -> list[Tensor]:
    """grad_a val(w', a) + (d^2 train / da dw) v, where w' = move(w, grad_w train) and v = (dw'/dgrad)^T grad_w' val."""
    weights, arch = leaves(weights), leaves(arch)
    if order == "first":
        return list(torch.autograd.grad(val(weights, arch), arch))
    if order == "exact":
        gradients = torch.autograd.grad(train(weights, arch), weights, create_graph=True, materialize_grads=True)
        return list(torch.autograd.grad(val(move(weights, gradients), arch), arch))
    gradients = leaves(torch.autograd.grad(train(weights, arch), weights, materialize_grads=True))
    found = torch.autograd.grad(val(move([w.detach() for w in weights], gradients), arch), [*arch, *gradients])
    direct, v = found[: len(arch)], found[len(arch) :]
    epsilon = radius / norm(v)
    above, below = (
        torch.autograd.grad(train([w + sign * epsilon * d for w, d in zip(weights, v, strict=True)], arch), arch)
        for sign in (1, -1)
    )
    return [d + (p - n) / (2 * epsilon) for d, p, n in zip(direct, above, below, strict=True)]


def relative_error(found: list[Tensor], wanted: list[Tensor]) -> float:
    return norm([a - b for a, b in zip(found, wanted, strict=True)]) / norm(wanted)


@pytest.mark.parametrize("order", ["first", "finite-difference", "exact"])
@pytest.mark.parametrize(("optimizer", "rate"), [("sgd", 0.05), ("adam", 2e-3)])
def test_every_step_of_a_search_is_the_one_by_hand(split, tmp_path, order, optimizer, rate):
    """Scenes of each part, hypergradients, clipping, rates: architecture steps and weight steps in turn."""
    settings = dataclasses.replace(
        tiny.SEARCH,
        epochs=1,
        steps=3,
        warmup=0,
        order=order,
        radius=1e-2,
        optimizer=optimizer,
        weight_rate=rate,
        weight_rate_end=rate / 5,
        clip=0.02,
        eigenvalue_every=0,
        loss=dataclasses.replace(MSE, alpha_entropy_weight=0.05, beta_entropy_weight=0.0125, complexity_weight=0.003),
    )
    with recorded_steps() as steps:
        result = search(tiny.SPACE, split, settings, runs_dir=tmp_path, progress=False)
    assert len(steps) == 6
    notes = read_json(result.path / "manifest.json")["notes"]
    scenes = {scene.name: scene for scene in split.train}
    parts = {part: tuple(scenes[name] for name in notes[f"{part}_scenes"]) for part in ("weight", "arch")}
    assert not {scene.name for scene in parts["weight"]} & {scene.name for scene in parts["arch"]}
    streams = zip(batches_of(parts["arch"], settings, 1), batches_of(parts["weight"], settings, 0), strict=True)
    whole = Whole(SuperNet(tiny.SPACE).double().train(), settings)
    differs = []
    for number, (arch_batch, weight_batch) in enumerate(streams):
        arch_step, weight_step = steps[2 * number : 2 * number + 2]

        def train(weights, arch, batch=weight_batch):
            return whole.at(weights, arch, batch, architecture=False)

        def val(weights, arch, batch=arch_batch):
            return whole.at(weights, arch, batch, architecture=True)

        move = optimizer_step(weight_step, settings.clip)
        facts = train, val, weight_step.before, arch_step.before, move, settings.radius
        wanted = hypergradient_by_hand(order, *facts)
        assert relative_error(arch_step.gradients, wanted) < 2e-3
        differs.append(relative_error(wanted, hypergradient_by_hand("first", *facts)))
        assert arch_step.group["lr"] == settings.arch_rate
        assert (arch_step.group["betas"], arch_step.group["weight_decay"]) == (
            settings.arch_betas,
            settings.arch_decay,
        )

        arch = after(steps, 2 * number, result)
        weights = leaves(weight_step.before)
        gradients = torch.autograd.grad(train(weights, leaves(arch)), weights, materialize_grads=True)
        assert norm(gradients) > 2 * settings.clip
        factor = settings.clip / (norm(gradients) + 1e-6)
        assert relative_error(weight_step.gradients, [factor * g for g in gradients]) < 2e-3
        share = number / 3
        assert weight_step.group["lr"] == pytest.approx(rate * (0.2 + 0.8 * (1 + math.cos(math.pi * share)) / 2))
        assert weight_step.group["weight_decay"] == settings.weight_decay
        assert weight_step.group.get("momentum") == (settings.momentum if optimizer == "sgd" else None)
    if order != "first":
        assert max(differs) > 0.02  # the second-order term is there to be seen


def after(steps: list[Step], k: int, result) -> list[Tensor]:
    """The logits after architecture step `k`: those before the next one, or those of the finished supernet."""
    return steps[k + 2].before if k + 2 < len(steps) else [result.supernet.alpha, result.supernet.beta]


# --- discretisation at the end of a search ---


def test_a_search_discretises_by_perturbation_as_by_hand(split, tmp_path):
    """Each candidate in turn is left out of its row, the others growing in proportion, on the first batch of the
    architecture's scenes; the one whose loss is the largest stays. Argmax would choose otherwise."""
    settings = dataclasses.replace(tiny.SEARCH, epochs=2, weight_rate=0.02, eigenvalue_every=0, early_stop=False)
    found, argmax = (
        search(
            tiny.SPACE,
            split,
            dataclasses.replace(settings, discretize=how),
            runs_dir=tmp_path,
            name=how,
            progress=False,
        )
        for how in ("perturbation", "argmax")
    )
    net = found.supernet
    for name, tensor in argmax.supernet.state_dict().items():
        assert torch.equal(net.state_dict()[name], tensor), name
    assert argmax.genotype == net.derive() != found.genotype

    scenes = {scene.name: scene for scene in split.train}
    names = read_json(found.path / "manifest.json")["notes"]["arch_scenes"]
    batch = batches_of(tuple(scenes[name] for name in names), settings, 1)[0]
    loss = DerainLoss(settings.loss)

    @torch.no_grad()
    def score() -> float:
        outputs = net(batch.rainy.flatten(0, 1)).unflatten(0, batch.rainy.shape[:2])
        return float(loss(outputs, batch.clean, epoch=settings.epochs)[0])

    net = copy.deepcopy(net).train()
    chosen = []
    for logits, names in ((net.alpha, tiny.SPACE.modules), (net.beta, tiny.SPACE.operations)):
        kept = logits.detach().clone()
        for row in range(len(kept)):
            scores = {}
            for k, name in enumerate(names):
                with torch.no_grad():
                    logits.copy_(kept)
                    logits[row, k] = -1e9
                scores[name] = score()
            scores.pop("none", None)
            chosen.append(max(scores, key=scores.get))
        with torch.no_grad():
            logits.copy_(kept)
    modules = len(net.alpha)
    assert found.genotype == Genotype(tiny.SPACE, tuple(chosen[:modules]), tuple(chosen[modules:]))
