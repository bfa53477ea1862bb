"""What a training takes on a graphics card that is not here: what a step does is counted, and multiplied by speeds.

The rule, per step of training:

    seconds = launches * LAUNCH + max(floating-point operations / RATE, bytes / BANDWIDTH)

A step on one scene is taken and its operations are counted. Floating-point operations and bytes of a batch are those of
one scene times its scenes. The three speeds are those of a Tesla T4 beside a slow processor, and are this kit's choice:
a quarter of the card's peak in float32 (8.1 TFLOP/s), two thirds of its bandwidth (320 GB/s), and 25 microseconds of
Python and of launching per operation. The kit trains in half precision on such a card, which would be faster. That is
left out, so that the estimate errs to the slow side. To this a notebook adds what its other cells take, measured at
`smoke` size.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from manas_lite.compute.footprint import StepFootprint
from manas_lite.losses import DerainLoss
from manas_lite.networks.genotype import Genotype
from manas_lite.networks.nets import DerainNet, SuperNet
from manas_lite.networks.space import SearchSpace
from manas_lite.training.schedules import RetrainSettings, SearchSettings
from tools.course import sources
from tools.course.contents import Notebook
from tools.course.estimates import steps_of, trainings

__all__ = ["T4", "Card", "Counts", "count_step", "estimated"]

RAINS = 3
"""Rainy versions of a scene that a step is counted with, as the bundled photographs have them."""


@dataclass(frozen=True)
class Card:
    """A graphics card, as the rule sees it."""

    name: str
    """What a cost table calls it."""
    launch: float
    """Seconds per operation, of Python and of launching."""
    rate: float
    """Floating-point operations per second that convolutions reach."""
    bandwidth: float
    """Bytes per second that small operations reach."""


T4 = Card("NVIDIA T4", launch=25e-6, rate=2e12, bandwidth=213e9)


@dataclass(frozen=True)
class Counts:
    """What one training step does: forward pass, loss and gradients."""

    launches: int
    """Operations that compute; a view of a tensor is none."""
    flops: int
    """Floating-point operations of convolutions and matrix products; a multiply-add is two."""
    bytes: int
    """Bytes that all operations read and write."""

    def seconds(self, card: Card) -> float:
        """Return what the rule says of such a step."""
        return self.launches * card.launch + max(self.flops / card.rate, self.bytes / card.bandwidth)


class _Tally(TorchDispatchMode):
    """Count operations, and the bytes that they read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.launches = self.bytes = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if not function.is_view:
            moved = [leaf for leaf in tree_leaves((args, kwargs, result)) if torch.is_tensor(leaf)]
            self.launches += 1
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in moved)
        return result


def count_step(network: SearchSpace | Genotype, settings: SearchSettings | RetrainSettings) -> Counts:
    """Return what a weight step of a training does, counted on one scene.

    Args:
        network: a space, whose supernet is trained, or a genotype, whose network is.
        settings: those of the training.
    """
    net = SuperNet(network) if isinstance(network, SearchSpace) else DerainNet(network, seed=0)
    weights = net.weight_parameters() if isinstance(net, SuperNet) else list(net.parameters())
    loss = DerainLoss(settings.loss)
    rains = settings.rains or RAINS
    rainy, clean = (
        torch.rand(rains, 3, settings.patch, settings.patch),
        torch.rand(1, 3, settings.patch, settings.patch),
    )
    with FlopCounterMode(display=False) as flops, _Tally() as tally:
        outputs = net(rainy).unflatten(0, (1, rains))
        total, _ = loss(outputs, clean, epoch=settings.epochs)
        torch.autograd.grad(total, weights, allow_unused=True)
    return Counts(tally.launches, settings.batch * flops.get_total_flops(), settings.batch * tally.bytes)


def estimated(notebook: Notebook, preset_name: str, card: Card = T4) -> dict[str, Any]:
    """Return a row of a cost table for a card that is not here, by the rule at the top of this module.

    An architecture step (first order) is counted as a weight step of the supernet.

    Args:
        notebook: one that trains, whose cost at `smoke` was measured.
        preset_name: the preset whose row it is.
        card: the speeds of the card.

    Raises:
        ValueError: for a notebook that trains nothing: its other cells take on any machine what they take here.
    """
    seconds = sum(row.get("cpu_seconds", row["seconds"]) for row in _at_smoke(notebook))
    memory = 0
    for network, settings in trainings(notebook, preset_name):
        seconds += steps_of(settings) * count_step(network, settings).seconds(card)
        space, genotype = (network, None) if isinstance(network, SearchSpace) else (network.space, network)
        memory = max(memory, StepFootprint(space, settings.batch, settings.patch, genotype=genotype).bytes)
    if not memory:
        raise ValueError(f"notebook {notebook.number} trains nothing: `course run {notebook.number}` measures its cost")
    row = {"preset": preset_name, "device": card.name, "seconds": round(seconds), "bytes": memory}
    return row | {"estimated": True}


def _at_smoke(notebook: Notebook) -> list[dict[str, Any]]:
    """Return the one row of a notebook's cost at `smoke` size, where there is one."""
    return [row for row in sources.measured_costs(notebook) if row["preset"] == "smoke"][:1]
