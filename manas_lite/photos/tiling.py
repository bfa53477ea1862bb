"""Whole pictures in little memory: the network one layer at a time, and each layer one tile at a time.

A layer reads a tile of its input maps with a margin as wide as its receptive field, so what it writes is what it
would write over the whole map. Only the gates' pooled statistics are of the whole picture: they are taken from whole
maps, which are kept between layers (a layer's inputs and outputs; what it computes on the way exists for one tile
only). The result equals the whole-picture one to rounding.

Tiles that each run the whole network, `carry=False`, need less memory still, but their gates pool over the tile. That
is another result, as benchmarks/README.md measures.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from manas_lite.networks.attention import AttentionBlock
from manas_lite.networks.backbone import Backbone, Cell, pad_to_multiple
from manas_lite.networks.modules import Branches
from manas_lite.networks.ops import SqueezeExciteGate, describe

TILE = 512
"""Side of a tile, in pixels of the largest map of a layer: this kit's choice."""

_POOLED = frozenset({"mean", "peak"})


@torch.inference_mode()
def derain_tiled(net: Backbone, rainy: Tensor, *, tile: int = TILE, carry: bool = True) -> Tensor:
    """Return net(rainy), computed in tiles.

    Args:
        net: a network in eval mode.
        rainy: images (B, 3, H, W).
        tile: side of a tile in pixels, a multiple of `net.space.multiple`.
        carry: pool the gates over the whole picture, as the network does. False pools over each tile, with a margin
            of half a tile around it, which is not the same function.

    Raises:
        ValueError: the network is in training mode, or has group normalisation (its statistics are of whole maps).
    """
    if net.training:
        raise ValueError("the network is in training mode: call net.eval() before deraining in tiles")
    space, (height, width) = net.space, rainy.shape[2:]
    if tile < space.multiple or tile % space.multiple:
        raise ValueError(f"tile is {tile}: give a multiple of {space.multiple} pixels")
    run = partial(_in_tiles, side=tile, step=space.multiple)
    padded = pad_to_multiple(rainy, space.multiple)
    if not carry:
        return run(lambda x: [net(x[0])], [padded], margin=tile // 2)[0][..., :height, :width]
    if space.norm == "group":
        raise ValueError("group normalisation reads whole maps, so its networks cannot work in tiles: use norm='none'")
    alpha, beta = net.mixture()
    cells = cast(Sequence[Cell], net.cells)
    # The stem, as wide as four branches, goes with the first transition: its output never exists as a whole.
    # Margins: three 3x3 convolutions; then one on the smallest branch.
    x = run(lambda x: cells[0].transition([net.stem(x[0])]), [padded], margin=4 * space.scale)
    for i, cell in enumerate(cells):
        if i > 0:
            x = run(cell.transition, x, margin=2 ** len(x))
        for k, slot in enumerate(cell.slots):
            mixed = partial(slot, weights=None if alpha is None else alpha[i][k])
            x = run(mixed, x, margin=_reach(slot) * 2 ** (len(x) - 1) + 2)
        for k, block in enumerate(cell.attention):
            x[k] = _attention(run, cast(AttentionBlock, block), x[k], None if beta is None else beta[i][k])
    out = run(lambda x: [F.pixel_shuffle(net.head(net.fusion(x)[0]), space.scale)], x, margin=space.head // 2)[0]
    return rainy - out[..., :height, :width] if space.residual else out[..., :height, :width]


def _in_tiles(layer: Callable[[Branches], Branches], x: Branches, margin: int, side: int, step: int) -> Branches:
    """Return layer(x), computed from tiles of its largest input with a margin around them.

    Args:
        layer: a local layer: each output pixel reads inputs at most `margin` pixels away.
        x: maps (B, C, h, w) of the same picture at sizes that divide one another, the largest first.
        margin: pixels of the first map.
        side: pixels of a tile. Where there are maps of several sizes, sides and margins are multiples of `step`.
    """
    size = x[0].shape[2:]
    margin = -(-margin // step) * step
    whole: Branches = []
    for corner in product(*(range(0, length, side) for length in size)):
        inner = [slice(first, min(first + side, end)) for first, end in zip(corner, size, strict=True)]
        outer = [
            slice(max(0, span.start - margin), min(span.stop + margin, end))
            for span, end in zip(inner, size, strict=True)
        ]
        local = [slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True)]
        part = layer([_cut(branch, outer, branch.shape[2], size[0]) for branch in x])
        whole = whole or [_canvas(piece, outer, size) for piece in part]
        for canvas, piece in zip(whole, part, strict=True):
            rows = canvas.shape[2]
            _cut(canvas, inner, rows, size[0])[:] = _cut(piece, local, rows, size[0])
    return whole


def _cut(x: Tensor, box: Sequence[slice], rows: int, height: int) -> Tensor:
    """Return what a map shows of a box, given on a map with `height` rows per picture; this one has `rows`."""
    down, across = (slice(-(-span.start * rows // height), -(-span.stop * rows // height)) for span in box)
    return x[..., down, across]


def _canvas(piece: Tensor, outer: Sequence[slice], size: Sequence[int]) -> Tensor:
    """Return an empty map for the whole picture of this size, of which `outer` makes `piece`."""
    rows, columns = (
        found * whole // (span.stop - span.start)
        for found, whole, span in zip(piece.shape[2:], size, outer, strict=True)
    )
    form = torch.contiguous_format if piece.is_contiguous() else torch.channels_last
    shape = (*piece.shape[:2], rows, columns)
    return torch.empty(shape, dtype=piece.dtype, device=piece.device, memory_format=form)


# --- attention: gates read the mean and the peak of the whole map ---


def _attention(run: Callable[..., Branches], block: AttentionBlock, x: Tensor, rows: Sequence | None) -> Tensor:
    """Return block(x, rows), its nodes one after the other: each is kept whole, since later gates pool over it."""
    if block.window is not None:
        # Gates in a row: a node reads the node before it, each over its window and as far as its widest gate.
        margin = (block.groups + 2) * (block.window + max(4, *map(_reach, block.edges)))
        return run(lambda x: [block(x[0], rows)], [x], margin)[0]
    parts = x.chunk(block.groups, dim=1)
    nodes: list[Tensor] = []
    edge = 0
    for k in range(block.groups):
        total: Tensor | None = None
        for source in (parts[k], *nodes[:k]):
            out = _edge(run, block.edges[edge], source, None if rows is None else rows[edge])
            total = out if total is None else total.add_(out)
            edge += 1
        nodes.append(cast(Tensor, total))
    shared = _gate(block.shared, sum(parts[1:], start=parts[0]))

    def project(maps: Branches) -> Branches:
        x, *nodes = maps
        summary = sum(x.chunk(block.groups, dim=1)) * shared
        return [x + block.project(torch.cat([*nodes, summary], dim=1))]

    y = run(project, [x, *nodes], margin=0)[0]
    return y.mul_(_gate(block.recalibrate, y))


def _edge(run: Callable[..., Branches], edge: nn.Module, x: Tensor, row: Sequence | None) -> Tensor:
    pooled = describe(x, _POOLED)
    return run(lambda maps: [edge(maps[0], row, pooled=pooled)], [x], margin=_reach(edge))[0]


def _gate(squeeze: SqueezeExciteGate, x: Tensor) -> Tensor:
    return squeeze.gate(x, describe(x, squeeze.needs))


def _reach(slot: nn.Module) -> int:
    """Return how many pixels away the widest candidate of a slot reads, as its class states or as its layers add up.

    The sum is right for layers in a row, and more than enough for layers side by side.
    """
    return max(
        sum(_layer_reach(layer) for layer in candidate.modules())
        if getattr(candidate, "reach", None) is None
        else cast(int, candidate.reach)
        for candidate in cast(nn.ModuleDict, slot.candidates).values()
    )


def _layer_reach(layer: Any) -> int:
    """Return how many pixels away a convolution or a pooling reads; any other layer reads its own pixel."""
    return int(np.max(layer.dilation)) * (int(np.max(layer.kernel_size)) // 2) if hasattr(layer, "kernel_size") else 0
