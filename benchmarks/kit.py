"""The kit's side of every comparison: the steps of `search` and `retrain` without loaders, logs and checkpoints."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from manas_lite.bilevel import functional_loss, hypergradient
from manas_lite.compute.runtime import Compute
from manas_lite.data import SceneBatch
from manas_lite.losses import DerainLoss, LossSettings
from manas_lite.networks.costs import measure_costs
from manas_lite.networks.genotype import Genotype
from manas_lite.networks.nets import DerainNet, SuperNet
from manas_lite.training.balance import Balance
from manas_lite.training.loop import weight_step

from . import textbook

Batch = tuple[Tensor, Tensor]  # rainy (B, R, 3, H, W), clean (B, 3, H, W)

# The complexity term has no counterpart in the textbook's step.
LOSS = LossSettings(internal_from=0, complexity_weight=0)


def image_loss(net: nn.Module, batch: Batch, compute: Compute, loss: DerainLoss) -> Tensor:
    rainy, clean = batch
    with compute.autocast():
        outputs = net(compute.images(rainy))
    return loss(outputs.float().unflatten(0, rainy.shape[:2]), clean, epoch=0)[0]


def search_step(
    net: SuperNet,
    weight_optimizer: torch.optim.Optimizer,
    arch_optimizer: torch.optim.Optimizer,
    train: Batch,
    val: Batch,
    compute: Compute,
    clip: float | None = 5.0,
) -> Tensor:
    """An architecture step of first order on `val`, a weight step on `train`: what `search` does each step."""
    loss, costs = DerainLoss(LOSS), measure_costs(net.space)
    weights, arch = net.weight_parameters(), net.arch_parameters()

    def objective(net: SuperNet) -> Tensor:
        own, _ = loss.architecture(*net.logits(), *net.weights(), costs)
        return image_loss(net, val, compute, loss) + own

    pure = compute.processes.mean(functional_loss(net, objective, weights, arch))
    found = hypergradient("first", None, pure, weights, arch)
    terms = loss.architecture_terms(*net.logits(), *net.weights(), costs)
    gradients, _ = Balance(arch, None)(list(found.gradients), terms)
    for parameter, value in zip(arch, gradients, strict=True):
        parameter.grad = value
    arch_optimizer.step()
    return one_step(net, weight_optimizer, train, compute, loss, clip)


def retraining_step(net: DerainNet, optimizer: torch.optim.Optimizer, batch: Batch, compute: Compute) -> Tensor:
    return one_step(net, optimizer, batch, compute, DerainLoss(LOSS), None)


def one_step(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    compute: Compute,
    loss: DerainLoss,
    clip: float | None,
) -> Tensor:
    def loss_of(part: SceneBatch) -> tuple[Tensor, dict[str, Tensor]]:
        return image_loss(net, (part.rainy, part.clean), compute, loss), {}

    scenes = SceneBatch(*batch, torch.empty(0))
    terms = weight_step(optimizer, loss_of, scenes, clip=clip, scaler=compute.scaler, processes=compute.processes)
    return terms["train"]


# --- the same weights in both ---


def twin(net: SuperNet | DerainNet) -> textbook.Network:
    """The textbook's network of the same space or genotype, with the same weights and statistics."""
    space = net.space
    genotype: Genotype | None = getattr(net, "genotype", None)
    choices = (None, None) if genotype is None else (genotype.modules, genotype.edges)
    other = textbook.Network(space.channels, space.modules_per_cell, *choices).to(next(net.parameters()))
    _copy(net.stem, other.stem)
    for cell, transition, mixed, attention in zip(
        net.cells, other.transitions, other.mixed, other.attention, strict=True
    ):
        _copy(cell.transition, transition)
        for slot, module in zip(cell.slots, mixed, strict=True):
            _copy(slot, module)
        for mine, theirs in zip(cell.attention, attention, strict=True):
            for name in ("shared", "project", "recalibrate"):
                _copy(getattr(mine, name), getattr(theirs, name))
            for slot, edge in zip(mine.edges, theirs.edges, strict=True):
                for name, gate in slot.candidates.items():
                    _copy(gate, edge.operations[textbook.NAMES.index(name)])
    _copy(net.fusion, other.fusion)
    _copy(net.head, other.head)
    if genotype is None:
        other.load_state_dict({"alpha": net.alpha.detach(), "beta": net.beta.detach()}, strict=False)
    return other.train(net.training)


def _copy(source: nn.Module, target: nn.Module) -> None:
    mine, theirs = source.state_dict(), target.state_dict()
    values: Sequence[Tensor] = list(mine.values())
    keys = list(theirs)
    if len(values) != len(keys):
        raise ValueError(f"{type(source).__name__} holds {len(values)} tensors, its twin {len(keys)}")
    target.load_state_dict({key: v.reshape(theirs[key].shape) for key, v in zip(keys, values, strict=True)})
