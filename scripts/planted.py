"""Problems with a known best architecture, a few lines each: what a search must find where there is something to find.

Candidates are registered beside the published ones, under names of their own. `damaged` ones add noise to what they
return, so that the intact one is right; a `costly` one computes the same and carries parameters that do nothing; a
`twin` is the same under another name, so that nothing is right and two searches must not agree.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from manas_lite.networks.genotype import Genotype
from manas_lite.networks.modules import FusionModule, ParallelModule, searched_module
from manas_lite.networks.ops import OPERATIONS, PUBLISHED_OPERATIONS, Descriptors, Gate, operation
from manas_lite.networks.space import SearchSpace

NOISE = {"modules": 0.3, "operations": 3.0}
"""Deviation of the noise of a damaged candidate, in the units of the maps and of the gates. The block around a gate
lets through a fifth of what it does, and its input is small: less noise there does not matter to the images."""

INTACT = "dil_conv_3x3"


def noisy(x: Tensor, deviation: float) -> Tensor:
    """Return x with noise, drawn from a seed that depends on x, so that a pass can be repeated exactly."""
    if x.is_meta:  # shapes alone, to count what it costs
        return x
    generator = torch.Generator(x.device).manual_seed(int(x.detach().abs().sum().mul(1e3).clamp_max(2**62)))
    return x + deviation * torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)


def damaged_module(name: str, kind: type[nn.Module]) -> None:
    """Register a module that returns what another one does, with noise."""

    def forward(self: nn.Module, x: list[Tensor]) -> list[Tensor]:
        return [noisy(branch, NOISE["modules"]) for branch in kind.forward(self, x)]

    searched_module(name)(type(name, (kind,), {"forward": forward}))


def damaged_operation(name: str) -> str:
    """Register an operation whose gate is another one's, with noise; return its name."""
    kind = OPERATIONS[name]

    def gate(self: Gate, x: Tensor, seen: Descriptors) -> Tensor:
        return noisy(kind.gate(self, x, seen).expand_as(x), NOISE["operations"])

    own = f"damaged_{name}"
    operation(own)(type(own, (kind,), {"gate": gate, "add": Gate.add, "forward": Gate.forward, "extent": 3}))
    return own


class CostlyParallelModule(ParallelModule):
    """The parallel module, with as many parameters again that do nothing."""

    def __init__(self, widths: Any, norm: str) -> None:
        super().__init__(widths, norm)
        count = sum(parameter.numel() for parameter in self.parameters())
        self.idle = nn.Parameter(torch.zeros(count))

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        return [branch + 0 * self.idle[0] for branch in super().forward(x)]


damaged_module("damaged_fusion", FusionModule)
damaged_module("damaged_parallel", ParallelModule)
searched_module("costly_parallel")(CostlyParallelModule)
searched_module("twin_parallel")(type("twin_parallel", (ParallelModule,), {}))
DAMAGED = tuple(
    damaged_operation(name) for name in PUBLISHED_OPERATIONS if name not in ("none", "skip_connect", INTACT)
)


@dataclass(frozen=True)
class Problem:
    """A space and what is right in it.

    `right` maps a genotype to the share of its places that are decided rightly; None where nothing is right, and two
    searches must agree by chance alone.
    """

    changes: dict[str, Any]
    right: Callable[[Genotype], float] | None

    def space(self, size: str) -> SearchSpace:
        return SearchSpace.preset(size, **self.changes)


def share(places: str, name: str) -> Callable[[Genotype], float]:
    """Return the share of a genotype's modules or edges that are `name`."""

    def found(genotype: Genotype) -> float:
        chosen = getattr(genotype, places)
        return sum(each == name for each in chosen) / len(chosen)

    return found


PROBLEMS = {
    "damaged fusion": Problem({"modules": ("parallel", "damaged_fusion")}, share("modules", "parallel")),
    "damaged parallel": Problem({"modules": ("damaged_parallel", "fusion")}, share("modules", "fusion")),
    "costly twin": Problem({"modules": ("parallel", "costly_parallel")}, share("modules", "parallel")),
    "damaged gates": Problem({"operations": ("none", *DAMAGED, INTACT)}, share("edges", INTACT)),
    "no signal": Problem({"modules": ("parallel", "twin_parallel")}, None),
}
