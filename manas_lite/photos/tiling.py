"""Whole pictures in little memory: the network a layer at a time, and each layer a tile at a time.

A layer reads a tile of its input maps with a margin as wide as its receptive field, so what it writes is what it
would write over the whole map. Only the gates' pooled statistics are of the whole picture: they are taken from whole
maps, which are kept between layers (a layer's inputs and outputs; what it computes on the way exists for a tile
only). The result equals the whole-picture one to rounding.

Tiles that each run the whole network, `carry=False`, need less memory still, but their gates pool over the tile:
another result, as benchmarks/README.md measures.
"""

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from manas_lite.networks.attention import AttentionBlock
from manas_lite.networks.backbone import Backbone, Cell, pad_to_multiple
from manas_lite.networks.modules import Branches, ModuleSlot
from manas_lite.networks.ops import SqueezeExciteGate, describe

TILE = 512
"""Side of a tile, in pixels of the largest map of a layer: this kit's choice."""

POOLED = frozenset({"mean", "peak"})


@torch.inference_mode()
def restore_tiled(net: Backbone, rainy: Tensor, *, tile: int = TILE, carry: bool = True) -> Tensor:
    """net(rainy) for images (B, 3, H, W), in tiles of `tile` pixels (a multiple of `net.space.multiple`).

    carry: pool the gates over the whole picture, as the network does. False pools over each tile, with a margin
    of half a tile around it: not the same function.

    Raises ValueError for a network in training mode, or with group normalisation (its statistics are of whole maps).
    """
    if net.training:
        raise ValueError("the network is in training mode: call net.eval() before deraining in tiles")
    space = net.space
    if tile < space.multiple or tile % space.multiple:
        raise ValueError(f"tile is {tile}: give a multiple of {space.multiple} pixels")
    if not carry:
        return _independent(net, rainy, tile)
    if space.norm == "group":
        raise ValueError("group normalisation reads whole maps, so its networks cannot work in tiles: use norm='none'")
    padded = pad_to_multiple(rainy, space.multiple)
    alpha, beta = net.mixture()
    layers = _Layers(tile, space.multiple)
    x = [padded]
    for i, cell in enumerate(cast(Sequence[Cell], net.cells)):
        # The stem, as wide as four branches, goes with the first transition: its output never exists as a whole.
        # Margins: three 3x3 convolutions; then one on the smallest branch.
        start = _stem_and(net.stem, cell.transition) if i == 0 else cell.transition
        x = layers.run(start, x, margin=4 * space.scale if i == 0 else 2 ** len(x))
        for k, slot in enumerate(cell.slots):
            row = None if alpha is None else alpha[i][k]
            x = layers.run(_slot(cast(ModuleSlot, slot), row), x, margin=reach(slot) * 2 ** (len(x) - 1) + 2)
        for k, block in enumerate(cell.attention):
            rows = None if beta is None else beta[i][k]
            x[k] = _attention(layers, cast(AttentionBlock, block), x[k], rows)
    fused = layers.run(_end(net), x, margin=0)[0]
    out = fused[..., : rainy.shape[2], : rainy.shape[3]]
    return rainy - out if space.residual else out


def _stem_and(stem: nn.Module, transition: nn.Module) -> Callable[[Branches], Branches]:
    return lambda x: transition([stem(x[0])])


def _end(net: Backbone) -> Callable[[Branches], Branches]:
    def layer(x: Branches) -> Branches:
        out = net.head(net.fusion(x)[0])
        return [F.pixel_shuffle(out, net.space.scale) if net.space.scale > 1 else out]

    return layer


def _slot(slot: ModuleSlot, row: Sequence[Tensor | None] | None) -> Callable[[Branches], Branches]:
    return lambda x: slot(x, row)


class _Layers:
    """Runs layers tile by tile; where there are maps of several sizes, tiles and margins are multiples of `step`."""

    def __init__(self, tile: int, step: int) -> None:
        self.tile, self.step = tile, step

    def run(self, layer: Callable[[Branches], Branches], x: Branches, margin: int) -> Branches:
        """layer(x), from tiles of its largest input with `margin` pixels around them.

        x: maps of the same picture at sizes that divide one another. The layer is local: each output pixel reads
        inputs at most `margin` pixels away (counted on the first, largest map).
        """
        height, width = x[0].shape[2:]
        margin = -(-margin // self.step) * self.step
        whole: Branches | None = None
        for top in range(0, height, self.tile):
            for left in range(0, width, self.tile):
                box = (top, min(top + self.tile, height), left, min(left + self.tile, width))
                outer = (
                    max(0, box[0] - margin), min(height, box[1] + margin),
                    max(0, box[2] - margin), min(width, box[3] + margin),
                )  # fmt: skip
                part = layer([_cut(branch, outer, height) for branch in x])
                if whole is None:
                    whole = [_canvas(piece, outer, (height, width)) for piece in part]
                for canvas, piece in zip(whole, part, strict=True):
                    _paste(canvas, piece, box, outer, height)
        assert whole is not None
        return whole


Box = tuple[int, int, int, int]  # top, bottom, left, right, in pixels of the first map


def _scaled(box: Box, size: int, height: int) -> Box:
    """The box on a map of `size` rows, where the first map has `height`."""
    top, bottom, left, right = (-(-value * size // height) for value in box)
    return top, bottom, left, right


def _cut(branch: Tensor, box: Box, height: int) -> Tensor:
    top, bottom, left, right = _scaled(box, branch.shape[2], height)
    return branch[:, :, top:bottom, left:right]


def _canvas(piece: Tensor, outer: Box, size: tuple[int, int]) -> Tensor:
    """An empty map as large as the picture makes it, where `outer` makes `piece`."""
    rows = piece.shape[2] * size[0] // (outer[1] - outer[0])
    columns = piece.shape[3] * size[1] // (outer[3] - outer[2])
    form = torch.contiguous_format if piece.is_contiguous() else torch.channels_last
    shape = (*piece.shape[:2], rows, columns)
    return torch.empty(shape, dtype=piece.dtype, device=piece.device, memory_format=form)


def _paste(canvas: Tensor, piece: Tensor, box: Box, outer: Box, height: int) -> None:
    rows = canvas.shape[2]
    top, bottom, left, right = _scaled(box, rows, height)
    first_row, _, first_column, _ = _scaled(outer, rows, height)
    inner = piece[:, :, top - first_row : bottom - first_row, left - first_column : right - first_column]
    canvas[:, :, top:bottom, left:right] = inner


# --- attention: gates read the whole map's mean and peak ---


def _attention(layers: _Layers, block: AttentionBlock, x: Tensor, rows: Sequence | None) -> Tensor:
    """block(x, rows), its nodes one after the other: each is kept whole, since later gates pool over it."""
    if block.window is not None:
        # Gates in a row: a node reads the node before it, each over its window and, at most, a 7x7 convolution.
        margin = (block.groups + 2) * (block.window + 4)
        return layers.run(lambda x: [block(x[0], rows)], [x], margin)[0]
    parts = x.chunk(block.groups, dim=1)
    nodes: list[Tensor] = []
    edge = 0
    for k in range(block.groups):
        total: Tensor | None = None
        for source in (parts[k], *nodes[:k]):
            out = _edge(layers, block.edges[edge], source, None if rows is None else rows[edge])
            total = out if total is None else total.add_(out)
            edge += 1
        nodes.append(cast(Tensor, total))
    gates = [_gate(block.shared, sum(parts[1:], start=parts[0]))]

    def project(maps: Branches) -> Branches:
        x, *nodes = maps
        summary = sum(x.chunk(block.groups, dim=1)) * gates[0]
        return [x + block.project(torch.cat([*nodes, summary], dim=1))]

    y = layers.run(project, [x, *nodes], margin=0)[0]
    return y.mul_(_gate(block.recalibrate, y))


def _edge(layers: _Layers, edge: nn.Module, x: Tensor, row: Sequence | None) -> Tensor:
    pooled = describe(x, POOLED)
    return layers.run(lambda maps: [edge(maps[0], row, pooled=pooled)], [x], margin=reach(edge))[0]


def _gate(squeeze: SqueezeExciteGate, x: Tensor) -> Tensor:
    return squeeze.gate(x, describe(x, squeeze.needs))


def reach(slot: nn.Module) -> int:
    """How many pixels away the widest candidate of a slot reads: stated by its class, or summed over its layers.

    The sum is right for layers in a row, and more than enough for layers side by side.
    """
    candidates = cast(nn.ModuleDict, slot.candidates).values()
    return max(_stated(candidate) for candidate in candidates)


def _stated(candidate: nn.Module) -> int:
    if getattr(candidate, "reach", None) is not None:
        return cast(int, candidate.reach)
    total = 0
    for layer in candidate.modules():
        if hasattr(layer, "kernel_size"):  # a convolution or a pooling
            size, spacing = (v if isinstance(v, tuple) else (v,) for v in (layer.kernel_size, layer.dilation))
            total += max(s * (k // 2) for k, s in zip(size, spacing * len(size), strict=False))
    return total


# --- tiles that know nothing of each other ---


def _independent(net: Backbone, rainy: Tensor, tile: int) -> Tensor:
    def whole(x: Branches) -> Branches:
        return [net(x[0])]

    height, width = rainy.shape[2:]
    padded = pad_to_multiple(rainy, net.space.multiple)
    return _Layers(tile, net.space.multiple).run(whole, [padded], tile // 2)[0][..., :height, :width]
