"""The attention block (method section 2): a small graph of searched edges, then two 1x1 convolutions and SE.

U_k = o_{k,0}(F_k) + sum_{j=1..k} o_{k,j}(U_{j-1}),      F_0 .. F_{K-1} the channel groups of x
y   = SE_16( x + BN(conv1(ReLU(BN(conv1([U_0 .. U_{K-1} ; SE_4(sum_k F_k)]))))) )
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from manas_lite.networks.modules import conv_norm
from manas_lite.networks.ops import OPERATIONS, Descriptors, Gate, SqueezeExciteGate, describe
from manas_lite.networks.recomputing import recompute

Row = Sequence[Tensor | None]  # a weight for each candidate; None: not sampled this time, so not computed


def edge_count(groups: int) -> int:
    """Return how many searched edges feed the first `groups` nodes of a block: K(K+1)/2."""
    return groups * (groups + 1) // 2


class EdgeSlot(nn.Module):
    """A place for a searched operation, holding its candidates: all in the supernet, one in a derived network.

        o(x) = x * sum_k w_k gate_k(x)

    Args:
        names: the candidates, of `OPERATIONS`.
        channels: c, the width of the maps.
        norm: see `norm_layer`.
    """

    def __init__(self, names: Sequence[str], channels: int, norm: str) -> None:
        super().__init__()
        self.candidates = nn.ModuleDict({name: OPERATIONS[name](channels, norm) for name in names})
        # A sum of gates is as large as its largest gate. Gates of one number, then per channel, then per pixel, are
        # added in this order, so that the sum grows to a whole map (B, c, H, W) as late as it can.
        self.order = sorted(range(len(names)), key=lambda k: self.gates[k].extent)

    @property
    def gates(self) -> list[Gate]:
        """The candidates in the order of a row of beta."""
        return cast(list[Gate], list(self.candidates.values()))

    def forward(
        self, x: Tensor, weights: Row | None = None, window: int | None = None, pooled: Descriptors | None = None
    ) -> Tensor:
        """Map x (B, c, H, W) to its mixture, of the same shape; one candidate alone needs no weights.

        `window` and `pooled` are those of `describe`.
        """
        gates = self.gates
        if weights is None:
            return gates[0](x, describe(x, gates[0].needs, window, pooled))
        chosen = [(gates[k], weight) for k in self.order if (weight := weights[k]) is not None]
        seen = describe(x, frozenset().union(*(gate.needs for gate, _ in chosen)), window, pooled)
        total = x.new_zeros(())
        for gate, weight in chosen:
            total = gate.add(total, weight, x, seen)
        return x * total


class AttentionBlock(nn.Module):
    """One attention block on a branch of `channels` channels; `names` gives each edge its candidate operations.

    Edges are ordered (k=0, j=0), (k=1, j=0), (k=1, j=1), ...: all that feed U_0, then all that feed U_1. So edge (k, j)
    has the number edge_count(k) + j.
    """

    window: int | None = None
    """Side in pixels of this branch of the window that the gates pool over (see `ops.spatial_mean`); None: the map."""
    recompute = "none"
    """See `Backbone.set_recompute`."""

    def __init__(self, channels: int, groups: int, names: Sequence[Sequence[str]], norm: str) -> None:
        super().__init__()
        width = channels // groups
        self.groups = groups
        self.edges = nn.ModuleList(EdgeSlot(choice, width, norm) for choice in names)
        self.shared = SqueezeExciteGate(width, reduction=4)
        join = conv_norm(width * (groups + 1), channels, 1, norm)
        self.project = nn.Sequential(join, nn.ReLU(), conv_norm(channels, channels, 1, norm, last=True))
        self.recalibrate = SqueezeExciteGate(channels, reduction=16)

    def forward(self, x: Tensor, rows: Sequence[Row | None] | None = None) -> Tensor:
        """Map x (B, C, H, W) to y, of the same shape; `rows` holds each edge's weights, one row of beta each."""
        dense = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
        # Copies: every gate would otherwise read slices with gaps between the pixels (channels_last).
        parts = [part.contiguous(memory_format=dense) for part in x.chunk(self.groups, dim=1)]  # K x (B, C/K, H, W)
        nodes: list[Tensor] = []
        for k, part in enumerate(parts):
            total = self._edge(edge_count(k), part, rows)
            for j, node in enumerate(nodes, start=1):
                total = total + self._edge(edge_count(k) + j, node, rows)
            nodes.append(total)
        summary = self._squeezed(self.shared, sum(parts[1:], start=parts[0]))
        return self._squeezed(self.recalibrate, x + self.project(torch.cat([*nodes, summary], dim=1)))

    def _edge(self, number: int, x: Tensor, rows: Sequence[Row | None] | None) -> Tensor:
        row = None if rows is None else rows[number]
        return recompute(self.edges[number], x, row, self.window, when=self.recompute == "edges")

    def _squeezed(self, gate: SqueezeExciteGate, x: Tensor) -> Tensor:
        return gate(x, describe(x, gate.needs, self.window))
