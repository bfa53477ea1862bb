"""The one multi-scale network (method section 1). SuperNet and DerainNet are two fillings of it.

rainy -> stem -> T1 -> cell 1 (2 branches) -> attention x2 -> T2 -> cell 2 (3) -> attention x3 -> ...
      -> fusion to branch 0 -> 1x1 convolution to RGB -> derained
"""

from collections.abc import Iterable, Sequence
from typing import cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import AttentionBlock
from .genotype import Genotype
from .modules import MODULES, STEMS, Branches, FusionModule, ModuleSlot, Transition
from .recomputing import Checkpoint, recompute
from .relaxation import Relaxation, gumbel_noise
from .space import SearchSpace

ARCHITECTURE = ("alpha", "beta")


class Cell(nn.Module):
    """A transition, the searched modules of a cell, and an attention block on each of its branches."""

    def __init__(
        self,
        space: SearchSpace,
        before: Sequence[int],
        widths: Sequence[int],
        modules: Sequence[Sequence[str]],
        edges: Sequence[Sequence[str]],
    ) -> None:
        super().__init__()
        per_block = space.edges_per_block
        self.transition = Transition(before, widths, space.norm)
        self.slots = nn.ModuleList(ModuleSlot(names, widths, space.norm) for names in modules)
        self.attention = nn.ModuleList(
            AttentionBlock(width, space.groups, edges[per_block * i : per_block * (i + 1)], space.norm)
            for i, width in enumerate(widths)
            if space.attention
        )
        self.recompute = False

    def forward(self, x: Branches, alpha: Sequence | None, beta: Sequence | None) -> Branches:
        x = self.transition(x)
        for slot, row in zip(self.slots, _rows(alpha, len(self.slots)), strict=True):
            x = recompute(slot, x, row) if self.recompute else slot(x, row)
        if not self.attention:
            return x
        places = zip(self.attention, x, _rows(beta, len(self.attention)), strict=True)
        if self.recompute:
            return [recompute(block, branch, rows) for block, branch, rows in places]
        return [block(branch, rows) for block, branch, rows in places]


def _rows(rows: Sequence | None, count: int) -> Sequence:
    return [None] * count if rows is None else rows


class Backbone(nn.Module):
    """The network, each searched place holding the candidates named for it.

    modules: names for each searched module (a row of alpha each); edges: names for each searched edge (a row of
    beta each). With one name at each place the network is a derived one and needs no mixture weights.
    """

    def __init__(self, space: SearchSpace, modules: Sequence[Sequence[str]], edges: Sequence[Sequence[str]]) -> None:
        super().__init__()
        self.space = space
        stem = STEMS[space.stem](space.channels[0], space.norm)
        self.stem = stem
        self.cells = nn.ModuleList()
        widths: Sequence[int] = (stem.width,)
        modules, edges = list(modules), list(edges)
        for branches in space.cells:
            taken = branches * space.edges_per_block if space.attention else 0
            cell_modules, modules = modules[: space.modules_per_cell], modules[space.modules_per_cell :]
            cell_edges, edges = edges[:taken], edges[taken:]
            after = space.channels[:branches]
            self.cells.append(Cell(space, widths, after, cell_modules, cell_edges))
            widths = after
        self.fusion = FusionModule(widths, space.norm, rows=(0,))
        self.head = nn.Conv2d(widths[0], 3 * space.scale**2, 1, bias=False)
        self.recompute = False
        if space.residual:
            nn.init.zeros_(self.head.weight)  # training starts at the identity

    def mixture(self) -> tuple[list | None, list | None]:
        """Weights of each cell's modules and attention edges; none in a derived network."""
        return None, None

    def forward(self, rainy: Tensor) -> Tensor:
        """Derain images (B, 3, H, W) in [0, 1], of any size from 1x1; the output is not clamped."""
        if rainy.ndim != 4 or rainy.shape[1] != 3:
            raise ValueError(f"expected images of shape (B, 3, H, W), got {tuple(rainy.shape)}")
        alpha, beta = self.mixture()
        padded = pad_to_multiple(rainy, self.space.multiple)
        x = [recompute(self.stem, padded) if self.recompute else self.stem(padded)]
        count = len(self.cells)
        for cell, a, b in zip(self.cells, _rows(alpha, count), _rows(beta, count), strict=True):
            x = cell(x, a, b)
        out = self.head(self.fusion(x)[0])
        if self.space.scale > 1:
            out = F.pixel_shuffle(out, self.space.scale)
        out = out[..., : rainy.shape[2], : rainy.shape[3]]
        return rainy - out if self.space.residual else out

    def save_memory(self, checkpoint: Checkpoint) -> None:
        """Which results a training step computes twice instead of keeping them: `none`, `edges` or `all`."""
        if checkpoint not in get_args(Checkpoint):
            raise ValueError(f"unknown checkpoint {checkpoint!r}: choose one of {', '.join(get_args(Checkpoint))}")
        self.recompute = checkpoint == "all"
        for module in self.modules():
            if isinstance(module, Cell):
                module.recompute = checkpoint == "all"
            elif isinstance(module, AttentionBlock):
                module.recompute_edges = checkpoint == "edges"

    def pool_locally(self, window: int | None) -> None:
        """Let the gates pool over windows of `window` image pixels instead of the whole picture (None: whole).

        Gates trained on crops then see on whole pictures what they saw in training (see ops.spatial_mean).
        """
        if window is not None and window < 1:
            raise ValueError(f"window is {window}: give a number of pixels, usually the training patch, or None")
        for cell in self.cells:
            for i, block in enumerate(cast(Cell, cell).attention):
                cast(AttentionBlock, block).window = (
                    None if window is None else max(1, window // (self.space.scale * 2**i))
                )


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pad right and bottom to multiples: by reflection, by repetition where a side is too short to reflect."""
    down, right = -x.shape[2] % multiple, -x.shape[3] % multiple
    x = F.pad(x, (0, right, 0, 0), "reflect" if right < x.shape[3] else "replicate") if right else x
    return F.pad(x, (0, 0, 0, down), "reflect" if down < x.shape[2] else "replicate") if down else x


class SuperNet(Backbone):
    """The relaxed network: every place holds all its candidates, mixed by softmax(alpha) and softmax(beta).

    alpha (modules, 2) and beta (edges, operations) are parameters, in the state dict, and never in the weight
    optimiser: `arch_parameters()` and `weight_parameters()` are disjoint and together complete.
    `seed` fixes the initial weights, `arch_seed` (default: seed) the initial logits 1e-3 N(0, 1).
    """

    alpha: nn.Parameter
    beta: nn.Parameter
    alpha_noise: Tensor | None
    beta_noise: Tensor | None

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        arch_seed: int | None = None,
        relaxation: Relaxation | None = None,
    ) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # the CPU generator alone: fork_rng restores no other
            super().__init__(
                space,
                [tuple(MODULES)] * len(space.module_branches),
                [space.operations] * len(space.edge_branch),
            )
        self.relaxation = relaxation or Relaxation()
        generator = torch.Generator().manual_seed(seed if arch_seed is None else arch_seed)
        shapes = {
            "alpha": (len(space.module_branches), len(MODULES)),
            "beta": (len(space.edge_branch), len(space.operations)),
        }
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(1e-3 * torch.randn(shape, generator=generator)))
            self.register_buffer(f"{name}_noise", None, persistent=False)

    def arch_parameters(self) -> list[nn.Parameter]:
        """alpha and beta."""
        return [self.alpha, self.beta]

    def weight_parameters(self) -> list[nn.Parameter]:
        """Everything else, in the order of `named_parameters`."""
        return [p for name, p in self.named_parameters() if name not in ARCHITECTURE]

    def resample(self, generator: torch.Generator) -> None:
        """Draw the Gumbel noise of one step; nothing to do for the softmax relaxation."""
        if self.relaxation.kind == "gumbel":
            for name in ARCHITECTURE:
                logits = getattr(self, name)
                noise = gumbel_noise(tuple(logits.shape), generator, logits.dtype).to(logits.device)
                setattr(self, f"{name}_noise", noise)

    def weights(self) -> tuple[Tensor, Tensor]:
        """Mixture weights (modules, 2) and (edges, operations), each row summing to 1; noisy in train mode alone."""
        noise = (self.alpha_noise, self.beta_noise) if self.training else (None, None)
        return self.relaxation.weights(self.alpha, noise[0]), self.relaxation.weights(self.beta, noise[1])

    def mixture(self) -> tuple[list, list]:
        per_cell, per_block = self.space.modules_per_cell, self.space.edges_per_block
        modules, edges = ([self.relaxation.chosen(row) for row in rows.unbind()] for rows in self.weights())
        blocks = [edges[i : i + per_block] for i in range(0, len(edges), per_block)]
        by_cell, first = [], 0
        for branches in self.space.cells:
            by_cell.append(blocks[first : first + branches])
            first += branches
        return [modules[i : i + per_cell] for i in range(0, len(modules), per_cell)], by_cell

    def derive(self) -> Genotype:
        """The genotype of the largest weight in each row; `none` only where the space allows it.

        Other ways to discretise are in `manas_lite.discretize`.
        """
        from .discretize import argmax  # discretize builds on this module

        return argmax(self.space, self.alpha.detach(), self.beta.detach())


class DerainNet(Backbone):
    """The derived network of a genotype: only the chosen operations exist. `seed` fixes the initial weights."""

    def __init__(self, genotype: Genotype, *, seed: int = 0) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # the CPU generator alone: fork_rng restores no other
            super().__init__(
                genotype.space,
                [(name,) for name in genotype.modules],
                [(name,) for name in genotype.edges],
            )
        self.genotype = genotype

    def inherit(self, supernet: SuperNet, batches: Iterable[Tensor] | None = None) -> "DerainNet":
        """Copy the weights of the chosen operations from a supernet of the same space; returns self.

        batches: training images (B, 3, H, W) on which BatchNorm's statistics are measured again. They are needed
        before the network is judged, if the space normalises by batch (see `reestimate_statistics`).
        """
        if supernet.space != self.space:
            raise ValueError("the supernet is of another space than this network's genotype")
        theirs = supernet.state_dict()
        self.load_state_dict({key: theirs[key] for key in self.state_dict()})
        if batches is not None:
            reestimate_statistics(self, batches)
        return self


def reestimate_statistics(net: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace BatchNorm's running statistics by the mean over `batches` (B, 3, H, W); weights stay as they are.

    A derived network that inherits a supernet's weights sees other activations than the supernet did, so that its
    statistics must be measured again before it is judged.

    Raises ValueError when there is no batch, and what `batches` or the network raise; where that is before the first
    batch is through, the statistics stay as they were, too.
    """
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    if not norms:
        return
    momenta = [m.momentum for m in norms]
    before = [[b.clone() for b in m.buffers()] for m in norms]
    was_training = net.training
    for m in norms:
        m.reset_running_stats()
        m.momentum = None  # a cumulative mean
    net.train()
    seen = 0
    try:
        with torch.no_grad():
            for rainy in batches:
                net(rainy)
                seen += 1
    finally:
        net.train(was_training)
        for m, momentum, statistics in zip(norms, momenta, before, strict=True):
            m.momentum = momentum
            if not seen:
                for buffer, value in zip(m.buffers(), statistics, strict=True):
                    buffer.copy_(value)
    if not seen:
        raise ValueError("no batches to measure BatchNorm's statistics on: give at least one (B, 3, H, W)")
