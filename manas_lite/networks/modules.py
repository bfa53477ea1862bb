"""The multi-scale trunk (method section 1): stem, transition, and the searched modules with their registry.

A module takes the list of branch maps (branch i at 1/2^i of the working resolution) and returns a new list; none
writes into the list that it was given. The published modules are HRNet's (Sun et al., CVPR 2019), searched over in
CLEARER (Gou et al., NeurIPS 2020). For a module of your own, see `searched_module`.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from manas_lite.networks.ops import C, norm_layer
from manas_lite.runs.settings import register

Branches = list[Tensor]

RESIDUAL_GAIN = 0.2
"""Without normalisation the last convolution of a residual path starts at this share of its usual scale, so that
a dozen modules in a row neither explode nor vanish (in the spirit of Fixup, Zhang et al., ICLR 2019)."""


def after_sum(norm: str) -> nn.Module:
    """Make what follows a residual sum (and the unshuffle stem): the published ReLU; nothing without normalisation.

    A ReLU there dies in a network without normalisation that predicts the rain layer: under light rain its first
    step is towards zero, every feature of the last fusion falls below zero, and no gradient brings one back (seen on
    Rain100L within 75 steps). EDSR (Lim et al., CVPRW 2017) drops both, the normalisation and the outer ReLU.
    The price: a fusion module of two branches then has no nonlinearity of its own, and a network of nothing but fusion
    modules is linear but for its stem, transitions and gates (the arm all_fusion in docs/results.md).
    """
    return nn.Identity() if norm == "none" else nn.ReLU()


def conv_norm(inputs: int, outputs: int, kernel: int, norm: str, stride: int = 1, last: bool = False) -> nn.Sequential:
    """Make a convolution and a normalisation (for `none` a bias); `last` ends a residual path, see RESIDUAL_GAIN."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=norm == "none")
    if last and norm == "none":
        conv.weight.data.mul_(RESIDUAL_GAIN)
    return nn.Sequential(conv, norm_layer(norm, outputs))


class Bottleneck(nn.Module):
    """ResNet bottleneck of expansion 4 (He et al., CVPR 2016): 1x1, 3x3, 1x1, with a 1x1 shortcut on a width change."""

    def __init__(self, inputs: int, inner: int, norm: str) -> None:
        super().__init__()
        outputs = 4 * inner
        narrow, middle = conv_norm(inputs, inner, 1, norm), conv_norm(inner, inner, 3, norm)
        widen = conv_norm(inner, outputs, 1, norm, last=True)
        self.body = nn.Sequential(narrow, nn.ReLU(), middle, nn.ReLU(), widen)
        self.shortcut = conv_norm(inputs, outputs, 1, norm) if inputs != outputs else nn.Identity()
        self.last = after_sum(norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.shortcut(x) + self.body(x))


class BottleneckStem(nn.Sequential):
    """The published stem: two bottlenecks at full resolution, 3 -> 4w -> 4w channels."""

    scale = 1

    def __init__(self, width: int, norm: str) -> None:
        super().__init__(Bottleneck(3, width, norm), Bottleneck(4 * width, width, norm))
        self.width = 4 * width


class UnshuffleStem(nn.Sequential):
    """This kit's cheap stem: 2x2 pixels become channels, then a 3x3 convolution; all work is at half resolution."""

    scale = 2

    def __init__(self, width: int, norm: str) -> None:
        super().__init__(nn.PixelUnshuffle(2), conv_norm(12, width, 3, norm), after_sum(norm))
        self.width = width


Stem = BottleneckStem | UnshuffleStem
STEMS: dict[str, type[Stem]] = {"bottleneck": BottleneckStem, "unshuffle": UnshuffleStem}


class Transition(nn.Module):
    """One branch more: a stride-2 3x3 conv-norm-ReLU of the lowest old one.

    Old branches pass, through a 3x3 conv-norm-ReLU only where their width changes.
    """

    def __init__(self, before: Sequence[int], after: Sequence[int], norm: str) -> None:
        super().__init__()
        self.keep = nn.ModuleList(
            nn.Identity() if old == new else nn.Sequential(conv_norm(old, new, 3, norm), nn.ReLU())
            for old, new in zip(before, after, strict=False)
        )
        self.new = nn.Sequential(conv_norm(before[-1], after[-1], 3, norm, stride=2), nn.ReLU())

    def forward(self, x: Branches) -> Branches:
        return [keep(branch) for keep, branch in zip(self.keep, x, strict=True)] + [self.new(x[-1])]


MODULES: dict[str, type[nn.Module]] = {}
"""Every searched module that is known, by name: the published ones, and those registered with `searched_module`."""


def searched_module(name: str) -> Callable[[C], C]:
    """Register the module below under a name, by which spaces, genotypes, costs and drawings then know it.

    The class is made as `Module(widths, norm)`, with the channels of each branch, and maps a list of branch maps
    [(B, widths[i], H/2^i, W/2^i)] to a new list of the same shapes. Its attribute `reach` says how many pixels of the
    smallest branch away it reads, for tiles; without it, that is the sum over its convolutions.

    Raises:
        ValueError: where the name belongs to another class already.
    """
    return register(MODULES, name)


@searched_module("parallel")
class ParallelModule(nn.Module):
    """One basic residual block on each branch.

    P(x)_i = ReLU(x_i + BN(conv3(ReLU(BN(conv3(x_i))))))
    """

    reach = 2

    def __init__(self, widths: Sequence[int], norm: str) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(conv_norm(w, w, 3, norm), nn.ReLU(), conv_norm(w, w, 3, norm, last=True)) for w in widths
        )
        self.last = after_sum(norm)

    def forward(self, x: Branches) -> Branches:
        return [self.last(branch + block(branch)) for block, branch in zip(self.blocks, x, strict=True)]


@searched_module("fusion")
class FusionModule(nn.Module):
    """A module in which every branch reads every other; `rows` keeps only those outputs.

        F(x)_i = ReLU(x_i + sum_{j>i} up(BN(conv1(x_j))) + sum_{j<i} down(x_j))

    `up` is nearest by 2^(j-i), `down` is the `down_path` of i-j steps.
    """

    reach = 2

    def __init__(self, widths: Sequence[int], norm: str, rows: Sequence[int] | None = None) -> None:
        super().__init__()
        self.rows = tuple(range(len(widths)) if rows is None else rows)
        self.paths = nn.ModuleDict()
        self.last = after_sum(norm)
        for i in self.rows:
            for j, width in enumerate(widths):
                if j > i:
                    self.paths[f"{j}to{i}"] = conv_norm(width, widths[i], 1, norm, last=True)
                elif j < i:
                    self.paths[f"{j}to{i}"] = down_path(width, widths[i], i - j, norm)

    def forward(self, x: Branches) -> Branches:
        fused = []
        for i in self.rows:
            total = x[i]
            for j, branch in enumerate(x):
                if j != i:
                    other = self.paths[f"{j}to{i}"](branch)
                    total = total + (F.interpolate(other, scale_factor=2.0 ** (j - i)) if j > i else other)
            fused.append(self.last(total))
        return fused


def down_path(inputs: int, outputs: int, steps: int, norm: str) -> nn.Sequential:
    """Make `steps` stride-2 3x3 conv-norm with ReLU between them; the width changes at the last."""
    layers: list[nn.Module] = []
    for _ in range(steps - 1):
        layers += [conv_norm(inputs, inputs, 3, norm, stride=2), nn.ReLU()]
    return nn.Sequential(*layers, conv_norm(inputs, outputs, 3, norm, stride=2, last=True))


class ModuleSlot(nn.Module):
    """A place for a searched module, holding its candidates M_k: all in the supernet, one in a derived network.

    M(x) = sum_k w_k M_k(x)
    """

    def __init__(self, names: Sequence[str], widths: Sequence[int], norm: str) -> None:
        super().__init__()
        self.candidates = nn.ModuleDict({name: MODULES[name](widths, norm) for name in names})

    def forward(self, x: Branches, weights: Sequence[Tensor | None] | None = None) -> Branches:
        """Mix the candidates' outputs; a candidate whose weight is None is not computed. One alone needs no weights."""
        modules = self.candidates.values()
        if weights is None:
            return next(iter(modules))(x)
        total: Branches = []
        for w, module in zip(weights, modules, strict=True):
            if w is not None and not total:
                total = [w * y for y in module(x)]
            elif w is not None:
                total = [torch.addcmul(t, w, y) for t, y in zip(total, module(x), strict=True)]
        return total


PUBLISHED_MODULES = tuple(MODULES)
"""The two of method section 1: what a space searches over unless it says otherwise."""
