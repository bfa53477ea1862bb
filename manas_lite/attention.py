"""The attention block (method section 2): a small graph of searched edges, then two 1x1 convolutions and SE.

U_k = o_{k,0}(F_k) + sum_{j=1..k} o_{k,j}(U_{j-1}),      F_0 .. F_{K-1} the channel groups of x
y   = SE_16( x + BN(conv1(ReLU(BN(conv1([U_0 .. U_{K-1} ; SE_4(sum_k F_k)]))))) )
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from .modules import conv_norm
from .ops import OPERATIONS, Gate, SqueezeExciteGate, describe

Rows = Sequence[Sequence[Tensor]]


def edge_count(groups: int) -> int:
    """Searched edges of a block with `groups` channel groups: K(K+1)/2."""
    return groups * (groups + 1) // 2


class EdgeSlot(nn.Module):
    """A searched edge: x * sum_k w_k gate_k(x) over the candidate operations that it holds.

    The supernet's edges hold every operation; a derived network's hold one, and then no weights are needed.
    Pooled descriptions of x are computed once and shared by the gates that read them.
    """

    def __init__(self, names: Sequence[str], channels: int, norm: str) -> None:
        super().__init__()
        self.candidates = nn.ModuleDict({name: OPERATIONS[name](channels, norm) for name in names})
        gates = self.gates
        self.needs = frozenset(need for gate in gates for need in gate.needs)
        self.order = sorted(range(len(gates)), key=lambda k: gates[k].extent)  # small gates are added first

    @property
    def gates(self) -> list[Gate]:
        return cast(list[Gate], list(self.candidates.values()))

    def forward(self, x: Tensor, weights: Sequence[Tensor] | None = None, window: int | None = None) -> Tensor:
        gates = self.gates
        if weights is None:
            return gates[0](x, window)
        seen = describe(x, self.needs, window)
        total: Tensor | float = 0.0
        for k in self.order:
            total = total + weights[k] * gates[k].gate(x, seen)
        return x * total


class AttentionBlock(nn.Module):
    """One attention block on a branch of `channels` channels; `names` gives each edge its candidate operations.

    Edges are ordered (k=0, j=0), (k=1, j=0), (k=1, j=1), ...: all that feed U_0, then all that feed U_1.
    `window` (pixels of this branch) pools the gates locally instead of over the whole map; see ops.spatial_mean.
    """

    def __init__(self, channels: int, groups: int, names: Sequence[Sequence[str]], norm: str) -> None:
        super().__init__()
        width = channels // groups
        self.groups = groups
        self.window: int | None = None
        self.edges = nn.ModuleList(EdgeSlot(choice, width, norm) for choice in names)
        self.shared = SqueezeExciteGate(width, reduction=4)
        self.project = nn.Sequential(
            conv_norm(width * (groups + 1), channels, 1, norm),
            nn.ReLU(),
            conv_norm(channels, channels, 1, norm, last=True),
        )
        self.recalibrate = SqueezeExciteGate(channels, reduction=16)

    def forward(self, x: Tensor, rows: Rows | None = None) -> Tensor:
        parts = x.chunk(self.groups, dim=1)  # K x (B, C/K, H, W)
        nodes: list[Tensor] = []
        edge = 0
        for k in range(self.groups):
            total: Tensor | None = None
            for source in (parts[k], *nodes[:k]):
                out = self.edges[edge](source, None if rows is None else rows[edge], self.window)
                total = out if total is None else total + out
                edge += 1
            assert total is not None
            nodes.append(total)
        summary = self.shared(sum(parts[1:], start=parts[0]), self.window)
        y = x + self.project(torch.cat([*nodes, summary], dim=1))
        return self.recalibrate(y, self.window)
