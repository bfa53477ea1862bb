"""The one multi-scale network (method section 1). SuperNet and DerainNet are two fillings of it.

rainy -> stem -> T1 -> cell 1 (2 branches) -> attention x2 -> T2 -> cell 2 (3) -> attention x3 -> ...
      -> fusion to branch 0 -> 1x1 convolution to RGB (`space.head`: 3x3 in scaled spaces) -> derained
"""

from collections.abc import Sequence
from typing import cast, get_args

from torch import Tensor, nn
from torch.nn import functional as F

from manas_lite.networks.attention import AttentionBlock
from manas_lite.networks.modules import STEMS, Branches, FusionModule, ModuleSlot, Transition
from manas_lite.networks.recomputing import Recompute, recompute
from manas_lite.networks.space import SearchSpace

Places = Sequence[Sequence[str]]  # for each place, the names of its candidates


class Cell(nn.Module):
    """A transition, the searched modules of a cell, and an attention block on each of its branches.

    Args:
        space: the sizes.
        before, widths: channels of each branch before the cell, and in it.
        modules, blocks: names of the candidates of each module, and of each edge of each attention block.
    """

    recompute = "none"
    """See `Backbone.set_recompute`."""

    def __init__(
        self,
        space: SearchSpace,
        before: Sequence[int],
        widths: Sequence[int],
        modules: Places,
        blocks: Sequence[Places],
    ) -> None:
        super().__init__()
        self.transition = Transition(before, widths, space.norm)
        self.slots = nn.ModuleList(ModuleSlot(names, widths, space.norm) for names in modules)
        self.attention = nn.ModuleList(
            AttentionBlock(width, space.groups, edges, space.norm) for width, edges in zip(widths, blocks, strict=False)
        )

    def forward(self, x: Branches, alpha: Sequence, beta: Sequence) -> Branches:
        """Map the branches of the cell before to those of this one; alpha and beta as in `Backbone.mixture`."""
        again = self.recompute == "all"
        x = self.transition(x)
        for slot, row in zip(self.slots, alpha, strict=True):
            x = recompute(slot, x, row, when=again)
        if not self.attention:
            return x
        places = zip(self.attention, x, beta, strict=True)
        return [recompute(block, branch, rows, when=again) for block, branch, rows in places]


class Backbone(nn.Module):
    """The network, each searched place holding the candidates named for it.

    With one name at each place the network is a derived one and needs no mixture weights.

    Args:
        space: the sizes.
        modules, edges: names of the candidates of each searched place: an entry per row of alpha, and of beta.
    """

    recompute = "none"

    def __init__(self, space: SearchSpace, modules: Places, edges: Places) -> None:
        super().__init__()
        self.space = space
        self.stem = STEMS[space.stem](space.channels[0], space.norm)
        self.cells = nn.ModuleList()
        widths: Sequence[int] = (self.stem.width,)
        for branches, cell_modules, blocks in zip(space.cells, *space.by_cell(modules, edges), strict=True):
            before, widths = widths, space.channels[:branches]
            self.cells.append(Cell(space, before, widths, cell_modules, blocks))
        self.fusion = FusionModule(widths, space.norm, rows=(0,))
        self.head = nn.Conv2d(widths[0], 3 * space.scale**2, space.head, padding=space.head // 2, bias=False)
        if space.residual:
            nn.init.zeros_(self.head.weight)  # training starts at the identity

    def mixture(self) -> tuple[list, list]:
        """Return the weights of modules and edges as `SearchSpace.by_cell` groups them; None: there is no mixture."""
        return self.space.by_cell([None] * len(self.space.module_branches), [None] * len(self.space.edge_branch))

    def forward(self, rainy: Tensor) -> Tensor:
        """Derain images (B, 3, H, W) in [0, 1], of any size from 1x1; the output is not clamped."""
        if rainy.ndim != 4 or rainy.shape[1] != 3:
            raise ValueError(f"expected images of shape (B, 3, H, W), got {tuple(rainy.shape)}")
        alpha, beta = self.mixture()
        padded = pad_to_multiple(rainy, self.space.multiple)
        x = [recompute(self.stem, padded, when=self.recompute == "all")]
        for cell, a, b in zip(self.cells, alpha, beta, strict=True):
            x = cell(x, a, b)
        out = self.head(self.fusion(x)[0])
        if self.space.scale > 1:
            out = F.pixel_shuffle(out, self.space.scale)
        out = out[..., : rainy.shape[2], : rainy.shape[3]]
        return rainy - out if self.space.residual else out

    def set_recompute(self, what: Recompute) -> None:
        """Choose which results a training step computes twice instead of keeping them: `none`, `edges` or `all`."""
        if what not in get_args(Recompute):
            raise ValueError(f"unknown recompute {what!r}: choose one of {', '.join(get_args(Recompute))}")
        for module in self.modules():
            if isinstance(module, Backbone | Cell | AttentionBlock):
                module.recompute = what

    def pool_locally(self, window: int | None) -> None:
        """Let the gates pool over windows of `window` image pixels instead of the whole picture (None: whole).

        Gates trained on crops then see on whole pictures what they saw in training (see `ops.spatial_mean`).
        """
        if window is not None and window < 1:
            raise ValueError(f"window is {window}: give a number of pixels, usually the training patch, or None")
        for cell in cast(Sequence[Cell], self.cells):
            for i, block in enumerate(cast(Sequence[AttentionBlock], cell.attention)):
                block.window = None if window is None else max(1, window // (self.space.scale * 2**i))


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pad right and bottom to multiples: by reflection, by repetition where a side is too short to reflect."""
    down, right = -x.shape[2] % multiple, -x.shape[3] % multiple
    x = F.pad(x, (0, right, 0, 0), "reflect" if right < x.shape[3] else "replicate") if right else x
    return F.pad(x, (0, 0, 0, down), "reflect" if down < x.shape[2] else "replicate") if down else x
