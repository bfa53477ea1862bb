"""What every choice costs, in parameters or FLOPs: measured on the modules themselves, looked up by name."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from .backbone import Backbone
from .modules import MODULES
from .ops import OPERATIONS
from .space import SearchSpace

UNITS = ("parameters", "flops")


@dataclass(frozen=True, eq=False)
class Costs:
    """Cost of each choice in `unit`; rows as in alpha and beta, columns by name.

    modules: (modules, 2); edges: (edges, operations); fixed: everything that is not searched; largest: the
    dearest architecture. All float64.
    """

    unit: str
    operations: tuple[str, ...]
    modules: Tensor
    edges: Tensor
    fixed: float

    @property
    def largest(self) -> float:
        edges = self.edges.amax(1).sum() if self.edges.numel() else 0.0
        return float(self.fixed + self.modules.amax(1).sum() + edges)

    def of(self, modules: tuple[str, ...], edges: tuple[str, ...]) -> float:
        """The cost of the network that makes these choices."""
        names = list(MODULES)
        total = self.fixed + sum(float(row[names.index(m)]) for row, m in zip(self.modules, modules, strict=True))
        return total + sum(float(row[self.operations.index(o)]) for row, o in zip(self.edges, edges, strict=True))


def count_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def count_flops(module: nn.Module, *inputs: Any) -> int:
    """FLOPs of one forward pass, convolutions and matrix products only, a multiply-add counted as two."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(*inputs)
    return counter.get_total_flops()


@cache
def measure(space: SearchSpace, unit: str, size: tuple[int, int]) -> Costs:
    """The costs of every choice of `space`, from the modules themselves (see SearchSpace.costs)."""
    if unit not in UNITS:
        raise ValueError(f"unknown unit {unit!r}: choose one of {', '.join(UNITS)}")
    if any(side % space.multiple for side in size):
        raise ValueError(f"size {size}: both sides must be multiples of {space.multiple}")

    def branch_map(i: int, width: int) -> Tensor:
        step = space.scale * 2**i
        return torch.empty(1, width, size[0] // step, size[1] // step, device="meta")

    def cost(build: Callable[..., nn.Module], settings: tuple, *inputs: Any) -> float:
        with torch.device("meta"):  # shapes only: nothing is computed or stored
            module = build(*settings).eval()
        return float(count_parameters(module) if unit == "parameters" else count_flops(module, *inputs))

    @cache
    def module_costs(branches: int) -> list[float]:
        widths = space.channels[:branches]
        maps = [branch_map(i, width) for i, width in enumerate(widths)]
        return [cost(module, (widths, space.norm), maps) for module in MODULES.values()]

    @cache
    def operation_costs(branch: int) -> list[float]:
        width = space.channels[branch] // space.groups
        x = branch_map(branch, width)
        return [cost(OPERATIONS[name], (width, space.norm), x) for name in space.operations]

    # The whole network, with choices of known cost, gives what is not searched.
    image = torch.empty(1, 3, *size, device="meta")
    choices = ([("fusion",)] * len(space.module_branches), [("skip_connect",)] * len(space.edge_branch))
    whole = cost(Backbone, (space, *choices), image)
    modules = torch.tensor([module_costs(b) for b in space.module_branches], dtype=torch.float64)
    edges = torch.tensor([operation_costs(b) for b in space.edge_branch], dtype=torch.float64)
    fixed = whole - float(modules[:, list(MODULES).index("fusion")].sum())
    return Costs(unit, space.operations, modules, edges.reshape(-1, len(space.operations)), fixed)
