"""What every choice costs, in parameters or FLOPs: measured on the modules themselves, looked up by name."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from manas_lite.networks.backbone import Backbone
from manas_lite.networks.modules import MODULES
from manas_lite.networks.ops import OPERATIONS
from manas_lite.networks.space import SearchSpace

UNITS = ("parameters", "flops")


@dataclass(frozen=True, eq=False)
class Costs:
    """Cost of each choice, in float64; rows as in alpha and beta, columns by name."""

    unit: str
    """`parameters` or `flops`."""
    operations: tuple[str, ...]
    """Names of the columns of `edges`."""
    candidates: tuple[str, ...]
    """Names of the columns of `modules`."""
    modules: Tensor
    """(modules, candidate modules)."""
    edges: Tensor
    """(edges, operations)."""
    fixed: float
    """The cost of everything that is not searched."""

    @cached_property
    def largest(self) -> float:
        """The cost of the most expensive architecture."""
        edges = self.edges.amax(1).sum() if self.edges.numel() else 0.0
        return float(self.fixed + self.modules.amax(1).sum() + edges)

    def to(self, like: Tensor) -> "Costs":
        """Return the costs with both tables on a tensor's device and of its type; `largest` stays that of float64."""
        moved = replace(self, modules=self.modules.to(like), edges=self.edges.to(like))
        vars(moved)["largest"] = self.largest
        return moved

    def of(self, modules: tuple[str, ...], edges: tuple[str, ...]) -> float:
        """Return the cost of the network that makes these choices."""
        total = self.fixed
        for table, names, chosen in ((self.modules, self.candidates, modules), (self.edges, self.operations, edges)):
            total += sum(float(row[names.index(name)]) for row, name in zip(table, chosen, strict=True))
        return total


def count_parameters(module: nn.Module) -> int:
    """Return how many numbers the parameters of a module hold."""
    return sum(p.numel() for p in module.parameters())


def count_flops(module: nn.Module, *inputs: Any) -> int:
    """Return the FLOPs of one forward pass, convolutions and matrix products only, a multiply-add counted as two."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(*inputs)
    return counter.get_total_flops()


def measure_costs(space: SearchSpace, unit: str = "parameters", size: tuple[int, int] = (256, 256)) -> Costs:
    """Measure what every choice of a space costs, on the modules themselves.

    Args:
        space: the space.
        unit: `parameters`, or `flops` of one image, a multiply-add counted as two.
        size: height and width of that image; ValueError unless both are multiples of `space.multiple`.

    Example:
    >>> costs = measure_costs(SearchSpace.preset("smoke"), "parameters")
    >>> costs.modules.shape, costs.edges.shape
    (torch.Size([2, 2]), torch.Size([6, 9]))
    """
    if unit not in UNITS:
        raise ValueError(f"unknown unit {unit!r}: choose one of {', '.join(UNITS)}")
    if any(side % space.multiple for side in size):
        raise ValueError(f"size {size}: both sides must be multiples of {space.multiple}")
    return _measure(space, unit, tuple(size))


@cache
def _measure(space: SearchSpace, unit: str, size: tuple[int, int]) -> Costs:
    def branch_map(i: int, width: int) -> Tensor:
        step = space.scale * 2**i
        return torch.empty(1, width, size[0] // step, size[1] // step, device="meta")

    def cost(build: Callable[..., nn.Module], settings: tuple, *inputs: Any) -> float:
        with torch.device("meta"):  # shapes only: nothing is computed or stored
            module = build(*settings).eval()
        return float(count_parameters(module) if unit == "parameters" else count_flops(module, *inputs))

    maps = [branch_map(i, width) for i, width in enumerate(space.channels)]
    groups = [branch_map(i, width // space.groups) for i, width in enumerate(space.channels)]
    # One measurement for all the places with the same sizes: modules of a cell, edges of a branch.
    module_rows = {
        n: [cost(MODULES[name], (space.channels[:n], space.norm), maps[:n]) for name in space.modules]
        for n in space.cells
    }
    edge_rows = [[cost(OPERATIONS[name], (x.shape[1], space.norm), x) for name in space.operations] for x in groups]
    modules = torch.tensor([module_rows[n] for n in space.module_branches], dtype=torch.float64)
    edges = torch.tensor([edge_rows[i] for i in space.edge_branch], dtype=torch.float64)
    edges = edges.reshape(-1, len(space.operations))
    # What is not searched is a whole network less its choices; the first candidate of each place serves as well as any.
    first = [space.modules[:1]] * len(space.module_branches), [space.operations[:1]] * len(space.edge_branch)
    whole = cost(Backbone, (space, *first), torch.empty(1, 3, *size, device="meta"))
    fixed = whole - float(modules[:, 0].sum()) - float(edges[:, 0].sum())
    return Costs(unit, space.operations, space.modules, modules, edges, fixed)
