"""The candidate operations of the attention block (method section 2), each in gate form, and their registry.

Every operation multiplies its input by a gate, so that a mixture of nine multiplies the wide map once:

    o_k(x) = x * gate_k(x)        sum_k w_k o_k(x) = x * sum_k w_k gate_k(x)

The operations are AutoLA's (Ma et al., NeurIPS 2020); their sizes are those of MANAS. Batch normalisation inside a
gate has no affine parameters, except in CBAM. For an operation of your own, see `operation`.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from manas_lite.runs.settings import register


class GroupNorm(nn.GroupNorm):
    """Group normalisation that also takes groups of a single value (1x1 maps of tiny images): they become zero."""

    def __init__(self, channels: int, affine: bool = True) -> None:
        super().__init__(math.gcd(8, channels), channels, affine=affine)

    def forward(self, input: Tensor) -> Tensor:
        return torch.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


NORMS: dict[str, Callable[..., nn.Module]] = {"batch": nn.BatchNorm2d, "group": GroupNorm, "none": nn.Identity}


def norm_layer(kind: str, channels: int, affine: bool = True) -> nn.Module:
    """Make the normalisation called `kind` (`batch`, `group` or `none`) for maps of `channels` channels."""
    if kind not in NORMS:
        raise ValueError(f"unknown norm {kind!r}: choose one of {', '.join(NORMS)}")
    return NORMS[kind](channels, affine=affine)


class Descriptors(NamedTuple):
    """What gates read of their input x (B, c, H, W), computed once for all the gates of an edge."""

    mean: Tensor | None  # of each channel: (B, c, 1, 1) over the map, or (B, c, H, W) over a window around each pixel
    peak: Tensor | None  # the maximum, in the shape of the mean
    profile: Tensor | None  # (B, 2, H, W): maximum and mean over the channels


def describe(
    x: Tensor, needs: frozenset[str], window: int | None = None, pooled: Descriptors | None = None
) -> Descriptors:
    """Compute what the gates that read `needs` must know of a map.

    Args:
        x: the map, (B, c, H, W).
        needs: some of `mean`, `peak` and `profile`; the others are None in the result.
        window: side in pixels of the local window that mean and peak are taken over; None takes the whole map.
        pooled: mean and peak that are known already. Where x is a tile, they are those of the whole map.
    """
    profile = channel_profile(x) if "profile" in needs else None
    if pooled is not None:
        return pooled._replace(profile=profile)
    mean = spatial_mean(x, window) if "mean" in needs else None
    peak = spatial_peak(x, window) if "peak" in needs else None
    return Descriptors(mean, peak, profile)


def spatial_mean(x: Tensor, window: int | None = None) -> Tensor:
    """Return the mean over the map, (B, c, 1, 1), or with a window over that around each pixel, (B, c, H, W).

    A gate that was trained on 64-pixel crops sees other means on whole pictures. A window of the training size removes
    that shift (the idea of test-time local conversion, Chu et al., ECCV 2022, arXiv 2112.04491).
    """
    if window is None:
        return x.mean((2, 3), keepdim=True)
    # An integral image: entry (i, j) is the sum of the pixels above row i and left of column j. The sum over a window
    # is a difference of two of its rows, then of two columns, so its cost does not grow with the window. A small
    # difference of large sums needs float64, which Apple GPUs lack.
    wide = torch.float32 if x.device.type == "mps" else torch.float64
    total = F.pad(x.to(wide).cumsum(2).cumsum(3), (1, 0, 1, 0))
    area = 1
    for axis in (2, 3):
        start, side = _windows(x.shape[axis], window, x.device)
        total = total.index_select(axis, start + side) - total.index_select(axis, start)
        area *= side
    return (total / area).to(x.dtype)


def spatial_peak(x: Tensor, window: int | None = None) -> Tensor:
    """Return the maximum over the map, (B, c, 1, 1), or with a window over that around each pixel, (B, c, H, W)."""
    if window is None:
        # The same value; the pool's backward pass writes one number per map where amax's compares every pixel.
        # On a GPU the pool would give each map to a single thread.
        return F.adaptive_max_pool2d(x, 1) if x.device.type == "cpu" else x.amax((2, 3), keepdim=True)
    for axis in (2, 3):  # the maximum of a rectangle is a maximum of maxima
        start, side = _windows(x.shape[axis], window, x.device)
        x = F.max_pool2d(x, (side, 1) if axis == 2 else (1, side), stride=1).index_select(axis, start)
    return x


def _windows(length: int, window: int, device: torch.device) -> tuple[Tensor, int]:
    """Return where the window around each position starts, moved inside the border, and the side of all windows."""
    side = min(window, length)
    return (torch.arange(length, device=device) - side // 2).clamp(0, length - side), side


def channel_profile(x: Tensor) -> Tensor:
    """Return the maximum and the mean over the channels of x (B, c, H, W), as a map (B, 2, H, W)."""
    return torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], dim=1)


class Gate(nn.Module):
    """A candidate operation `x -> x * gate(x)` on maps (B, c, H, W), made as `Gate(channels, norm)`.

    The gate is sigmoid(body(x)), unless a class defines another. It reads the mean and the peak over the map from
    `seen` and never pools over x itself: large pictures are derained in tiles, and x may be one of them.
    """

    needs: frozenset[str] = frozenset()
    """The descriptors that `gate` reads: some of `mean`, `peak` and `profile`."""
    extent = 3
    """Size of what `gate` returns: 0 for one number, 1 for a number per channel, 2 for one per pixel, 3 for both."""
    reach: int | None = None
    """How many pixels away the gate reads, for tiles. None stands for the sum over its convolutions."""
    body: nn.Module

    def __init__(self, channels: int, norm: str = "batch") -> None:
        super().__init__()

    def gate(self, x: Tensor, seen: Descriptors) -> Tensor:
        """Return the gate of x (B, c, H, W), in any shape that broadcasts to it."""
        return torch.sigmoid(self.body(x))

    def add(self, total: Tensor, weight: Tensor, x: Tensor, seen: Descriptors) -> Tensor:
        """Return total + weight * gate(x), in one pass over the map."""
        return torch.addcmul(total, weight, self.gate(x, seen))

    def forward(self, x: Tensor, seen: Descriptors | None = None) -> Tensor:
        """Return x * gate(x); without `seen`, mean and peak are those of the whole of x."""
        return x * self.gate(x, describe(x, self.needs) if seen is None else seen)


C = TypeVar("C", bound=type[nn.Module])

OPERATIONS: dict[str, type[Gate]] = {}
"""Every operation that is known, by name: the published ones, and those registered with `operation`."""


def operation(name: str) -> Callable[[C], C]:
    """Register the `Gate` below under a name, by which spaces, genotypes, costs and drawings then know it.

    Import the file that registers an operation of your own before you make a space or open a genotype that names it.

    Raises:
        ValueError: where the name belongs to another class already, and where `needs` names no descriptor.

    Example:
    >>> @operation("half")
    ... class HalfGate(Gate):
    ...     extent = 0
    ...     def gate(self, x, seen):
    ...         return x.new_full((), 0.5)
    >>> OPERATIONS.pop("half") is HalfGate
    True
    """

    def enter(gate: C) -> C:
        needs = getattr(gate, "needs", None)
        if not isinstance(needs, frozenset) or not needs <= set(Descriptors._fields):
            raise ValueError(f"{name}: needs is {needs!r}: a frozenset of {', '.join(Descriptors._fields)}")
        return register(OPERATIONS, name)(gate)

    return enter


@operation("none")
class NoConnection(Gate):
    """The zero gate, a cut edge."""

    extent = 0

    def gate(self, x: Tensor, seen: Descriptors) -> Tensor:
        return x.new_zeros(())

    def add(self, total: Tensor, weight: Tensor, x: Tensor, seen: Descriptors) -> Tensor:
        return total


@operation("skip_connect")
class SkipConnection(Gate):
    """The gate of ones, an identity."""

    extent = 0

    def gate(self, x: Tensor, seen: Descriptors) -> Tensor:
        return x.new_ones(())

    def add(self, total: Tensor, weight: Tensor, x: Tensor, seen: Descriptors) -> Tensor:
        return total + weight

    def forward(self, x: Tensor, seen: Descriptors | None = None) -> Tensor:
        return x


class _Dilated(nn.Conv2d):
    """A dilated depthwise convolution: on a CPU it is computed in float32, whatever autocast says.

    In bf16 oneDNN reads memory there that nothing wrote: its weight gradient is NaN now and then (torch 2.13, AMD EPYC,
    16 channels). A run died of it at another step each time.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return super().forward(x.float())
        return super().forward(x)


def separable(inputs: int, outputs: int, dilation: int = 1) -> nn.Sequential:
    """Make sep3: a depthwise 3x3 and then a pointwise 1x1 convolution, both without bias."""
    kind = nn.Conv2d if dilation == 1 else _Dilated
    depthwise = kind(inputs, inputs, 3, padding=dilation, dilation=dilation, groups=inputs, bias=False)
    return nn.Sequential(depthwise, nn.Conv2d(inputs, outputs, 1, bias=False))


def separable_twice(inputs: int, outputs: int, norm: str) -> nn.Sequential:
    """Make BN(sep3(ReLU(BN(sep3(.))))), of which the second sep3 changes the width."""
    first = separable(inputs, inputs), norm_layer(norm, inputs, affine=False)
    return nn.Sequential(*first, nn.ReLU(), separable(inputs, outputs), norm_layer(norm, outputs, affine=False))


@operation("sep_conv_3x3")
class SeparableGate(Gate):
    """sigmoid(BN(sep3(ReLU(BN(sep3(x))))))."""

    def __init__(self, channels: int, norm: str = "batch") -> None:
        super().__init__(channels, norm)
        self.body = separable_twice(channels, channels, norm)


@operation("dil_conv_3x3")
class DilatedGate(Gate):
    """sigmoid(BN(sep3(x))) with dilation 2."""

    def __init__(self, channels: int, norm: str = "batch") -> None:
        super().__init__(channels, norm)
        self.body = nn.Sequential(separable(channels, channels, 2), norm_layer(norm, channels, affine=False))


class SpatialGate(Gate):
    """Base of the gates sigmoid(body(profile)), which are a number per pixel."""

    needs = frozenset({"profile"})
    extent = 2

    def gate(self, x: Tensor, seen: Descriptors) -> Tensor:
        return torch.sigmoid(self.body(seen.profile))


@operation("sep_conv_3x3_spatial")
class SeparableSpatialGate(SpatialGate):
    """sigmoid(BN(sep3(ReLU(BN(sep3(profile)))))), of widths 2 -> 2 -> 1."""

    def __init__(self, channels: int, norm: str = "batch") -> None:
        super().__init__(channels, norm)
        self.body = separable_twice(2, 1, norm)


@operation("dil_conv_3x3_spatial")
class DilatedSpatialGate(SpatialGate):
    """sigmoid(BN(conv1(conv3(profile)))), of widths 2 -> 1 -> 1 and with dilation 2; the convolutions are dense."""

    def __init__(self, channels: int, norm: str = "batch") -> None:
        super().__init__(channels, norm)
        conv3, conv1 = nn.Conv2d(2, 1, 3, padding=2, dilation=2, bias=False), nn.Conv2d(1, 1, 1, bias=False)
        self.body = nn.Sequential(conv3, conv1, norm_layer(norm, 1, affine=False))


@operation("SE")
class SqueezeExciteGate(Gate):
    """sigmoid(mlp(mean)) with mlp = fc(ReLU(fc(.))), without bias (Hu et al., CVPR 2018)."""

    needs = frozenset({"mean"})
    extent = 1

    def __init__(self, channels: int, norm: str = "batch", reduction: int = 4, bias: bool = False) -> None:
        super().__init__(channels, norm)
        hidden = max(1, channels // reduction)
        # Fully connected layers as 1x1 convolutions, so that they also read maps of local means.
        squeeze, excite = nn.Conv2d(channels, hidden, 1, bias=bias), nn.Conv2d(hidden, channels, 1, bias=bias)
        self.mlp = nn.Sequential(squeeze, nn.ReLU(), excite)

    def gate(self, x: Tensor, seen: Descriptors) -> Tensor:
        return torch.sigmoid(self.mlp(seen.mean))


@operation("SE_A_M")
class MeanPeakGate(SqueezeExciteGate):
    """sigmoid(mlp(mean) + mlp(peak)), one mlp for both."""

    needs = frozenset({"mean", "peak"})

    def gate(self, x: Tensor, seen: Descriptors) -> Tensor:
        return torch.sigmoid(self.mlp(seen.mean) + self.mlp(seen.peak))


@operation("CBAM")
class CBAMGate(MeanPeakGate):
    """The channel gate of `SE_A_M`, with bias, times a spatial gate of what it lets pass (Woo et al., ECCV 2018).

    channel * sigmoid(BN(conv7(profile(x * channel))))
    """

    extent = 3

    def __init__(self, channels: int, norm: str = "batch") -> None:
        super().__init__(channels, norm, bias=True)
        self.spatial = nn.Sequential(nn.Conv2d(2, 1, 7, padding=3, bias=False), norm_layer(norm, 1))

    def factors(self, x: Tensor, seen: Descriptors) -> tuple[Tensor, Tensor]:
        """Return the channel gate (B, c, 1, 1) and the spatial gate (B, 1, H, W)."""
        channel = super().gate(x, seen)
        return channel, torch.sigmoid(self.spatial(channel_profile(x * channel)))

    def gate(self, x: Tensor, seen: Descriptors) -> Tensor:
        channel, spatial = self.factors(x, seen)
        return channel * spatial

    def add(self, total: Tensor, weight: Tensor, x: Tensor, seen: Descriptors) -> Tensor:
        channel, spatial = self.factors(x, seen)
        return torch.addcmul(total, weight * channel, spatial)  # their product is never stored


PUBLISHED_OPERATIONS = tuple(OPERATIONS)
"""The nine of method section 2, in its order: what a space searches over unless it says otherwise."""
