"""The candidate operations of the attention block (method section 2), each in gate form, and their registry.

Every candidate but `none` multiplies its input by a gate, so an operation is `x * gate(x)` and a mixture of them
is `x * sum_k w_k gate_k(x)`: one multiplication of the wide map instead of nine. The space is AutoLA's (Ma et al.,
NeurIPS 2020); the sizes are MANAS's. Batch normalisation inside a gate has no affine parameters, CBAM's excepted.

An operation of your own is a `Gate` with a name, in any file that is imported before the space is made:

    @operation("ECA")
    class EfficientGate(Gate): ...

    space = SearchSpace.preset("smoke", operations=(*PUBLISHED_OPERATIONS, "ECA"))
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NORMS = ("batch", "group", "none")


class GroupNorm(nn.GroupNorm):
    """nn.GroupNorm that also takes groups of a single value (1x1 maps of tiny images): they become zero."""

    def forward(self, input: Tensor) -> Tensor:
        return torch.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


def norm_layer(kind: str, channels: int, affine: bool = True) -> nn.Module:
    """The normalisation called `kind` (`batch`, `group` or `none`) over maps of `channels` channels."""
    if kind == "batch":
        return nn.BatchNorm2d(channels, affine=affine)
    if kind == "group":
        return GroupNorm(math.gcd(8, channels), channels, affine=affine)
    if kind == "none":
        return nn.Identity()
    raise ValueError(f"unknown norm {kind!r}: choose one of {', '.join(NORMS)}")


class Descriptors(NamedTuple):
    """What gates read of their input x (B, c, H, W), computed once for all the gates of an edge."""

    mean: Tensor | None  # (B, c, 1, 1) over the picture, or (B, c, H, W) over a local window
    peak: Tensor | None  # the same with the maximum
    profile: Tensor | None  # (B, 2, H, W): maximum and mean over the channels


def describe(
    x: Tensor, needs: frozenset[str], window: int | None = None, pooled: Descriptors | None = None
) -> Descriptors:
    """What the gates that read `needs` must know of a map.

    Args:
        x: the map, (B, c, H, W).
        needs: some of `mean`, `peak` and `profile`; the others are None in the result.
        window: side in pixels of the local window that mean and peak are taken over; None takes the whole map.
        pooled: mean and peak that are known already. Where x is a tile, they are those of the whole map.
    """
    profile = channel_profile(x) if "profile" in needs else None
    if pooled is not None:
        return pooled._replace(profile=profile)
    return Descriptors(
        mean=spatial_mean(x, window) if "mean" in needs else None,
        peak=spatial_peak(x, window) if "peak" in needs else None,
        profile=profile,
    )


def spatial_mean(x: Tensor, window: int | None = None) -> Tensor:
    """Mean over the map, (B, c, 1, 1); with a window, over the window around each pixel, (B, c, H, W).

    A gate trained on 64-pixel crops sees other means on whole pictures; a window of the training size removes
    that shift (the idea of test-time local conversion, Chu et al., ECCV 2022, arXiv 2112.04491).
    """
    if window is None:
        return x.mean((2, 3), keepdim=True)
    wide = torch.float32 if x.device.type == "mps" else torch.float64  # Apple GPUs have no float64
    total = F.pad(x.to(wide).cumsum(2).cumsum(3), (1, 0, 1, 0))  # an integral image: cost free of the window
    top, bottom = _window_edges(x.shape[2], window, x.device)
    left, right = _window_edges(x.shape[3], window, x.device)
    rows = total[:, :, bottom] - total[:, :, top]
    area = (bottom - top)[:, None] * (right - left)[None, :]
    return ((rows[..., right] - rows[..., left]) / area).to(x.dtype)


def _window_edges(length: int, window: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """First and one-past-last index of the window around each position, moved inside the border."""
    size = min(window, length)
    start = (torch.arange(length, device=device) - size // 2).clamp(0, length - size)
    return start, start + size


def spatial_peak(x: Tensor, window: int | None = None) -> Tensor:
    """Maximum over the map, (B, c, 1, 1); with a window, over the window around each pixel, (B, c, H, W)."""
    if window is None:
        # The same value; the pool's backward pass writes one number a map where amax's compares every pixel.
        # On a GPU the pool would give each map to a single thread.
        return F.adaptive_max_pool2d(x, 1) if x.device.type == "cpu" else x.amax((2, 3), keepdim=True)
    for axis in (2, 3):  # the maximum of a rectangle is a maximum of maxima
        start, _ = _window_edges(x.shape[axis], window, x.device)
        size = min(window, x.shape[axis])
        x = F.max_pool2d(x, (size, 1) if axis == 2 else (1, size), stride=1).index_select(axis, start)
    return x


def channel_profile(x: Tensor) -> Tensor:
    """Maximum and mean over the channels of x (B, c, H, W), as a map (B, 2, H, W)."""
    return torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], dim=1)


class Gate(nn.Module):
    """A candidate operation `x -> x * gate(x)` on maps (B, c, H, W).

    A gate reads the mean and the peak over the map from `seen` and never pools over x itself: large pictures are
    derained in tiles, and x may be one of them.

    Attributes:
        needs: the descriptors that `gate` reads: some of `mean`, `peak` and `profile`.
        extent: size of what `gate` returns: 0 a number, 1 a number per channel, 2 per pixel, 3 both.
        reach: how many pixels away the gate reads, for tiles. None: the sum over its convolutions.
    """

    needs: frozenset[str] = frozenset()
    extent = 3
    reach: int | None = None

    def __init__(self, channels: int, norm: str = "batch") -> None:
        super().__init__()

    def gate(self, x: Tensor, seen: Descriptors) -> Tensor:
        """The gate of x (B, c, H, W), in any shape that broadcasts to it."""
        raise NotImplementedError

    def add(self, total: Tensor, weight: Tensor, x: Tensor, seen: Descriptors) -> Tensor:
        """total + weight * gate(x), in one pass over the map."""
        return torch.addcmul(total, weight, self.gate(x, seen))

    def forward(self, x: Tensor, seen: Descriptors | None = None) -> Tensor:
        """x * gate(x); without `seen`, mean and peak are those of the whole of x."""
        return x * self.gate(x, describe(x, self.needs) if seen is None else seen)


G = TypeVar("G", bound=type[Gate])

OPERATIONS: dict[str, type[Gate]] = {}
"""Every operation that is known, by name: the published ones, and those registered with `operation`."""

PUBLISHED_OPERATIONS = (
    "none",
    "skip_connect",
    "sep_conv_3x3",
    "dil_conv_3x3",
    "sep_conv_3x3_spatial",
    "dil_conv_3x3_spatial",
    "SE",
    "SE_A_M",
    "CBAM",
)
"""The nine of method section 2, in its order: what a space searches over unless it says otherwise."""


def operation(name: str) -> Callable[[G], G]:
    """Register the `Gate` below under a name, by which spaces, genotypes, costs and drawings then know it.

    A space finds an operation when it is made. A program that opens a genotype with an operation of your own must
    therefore import the file that registers it first.

    Raises ValueError where the name belongs to another class already.

    >>> @operation("half")
    ... class HalfGate(Gate):
    ...     extent = 0
    ...     def gate(self, x, seen):
    ...         return x.new_full((), 0.5)
    >>> OPERATIONS.pop("half") is HalfGate
    True
    """

    def register(gate: G) -> G:
        enter(OPERATIONS, name, gate)
        return gate

    return register


def enter(registry: dict[str, Any], name: str, entry: type) -> None:
    """Put an entry into a registry; ValueError where the name is taken by something else.

    The same class under the same name replaces the older one, so that a notebook's cell can be run again.
    """
    if "." in name or not name:  # torch forbids the dot in the names of parts of a network
        raise ValueError(f"{name!r} cannot name a candidate: use letters, digits and _")
    held = registry.get(name, entry)
    if held.__qualname__ != entry.__qualname__:
        raise ValueError(f"{name!r} is registered already, for {held.__qualname__}: choose another name")
    registry[name] = entry


@operation("none")
class NoConnection(Gate):
    """`none`: the zero gate, a cut edge."""

    extent = 0

    def gate(self, x: Tensor, seen: Descriptors) -> Tensor:
        return x.new_zeros(())

    def add(self, total: Tensor, weight: Tensor, x: Tensor, seen: Descriptors) -> Tensor:
        return total


@operation("skip_connect")
class SkipConnection(Gate):
    """`skip_connect`: the gate of ones, an identity."""

    extent = 0

    def gate(self, x: Tensor, seen: Descriptors) -> Tensor:
        return x.new_ones(())

    def add(self, total: Tensor, weight: Tensor, x: Tensor, seen: Descriptors) -> Tensor:
        return total + weight

    def forward(self, x: Tensor, seen: Descriptors | None = None) -> Tensor:
        return x


def separable(inputs: int, outputs: int, dilation: int = 1) -> nn.Sequential:
    """Depthwise 3x3, then pointwise 1x1, both without bias."""
    depthwise = nn.Conv2d(inputs, inputs, 3, padding=dilation, dilation=dilation, groups=inputs, bias=False)
    return nn.Sequential(depthwise, nn.Conv2d(inputs, outputs, 1, bias=False))


@operation("sep_conv_3x3")
class SeparableGate(Gate):
    """`sep_conv_3x3`: sigmoid(BN(sep3(ReLU(BN(sep3 x)))))."""

    def __init__(self, channels: int, norm: str = "batch") -> None:
        super().__init__(channels, norm)
        self.body = nn.Sequential(
            separable(channels, channels),
            norm_layer(norm, channels, affine=False),
            nn.ReLU(),
            separable(channels, channels),
            norm_layer(norm, channels, affine=False),
        )

    def gate(self, x: Tensor, seen: Descriptors) -> Tensor:
        return torch.sigmoid(self.body(x))


@operation("dil_conv_3x3")
class DilatedGate(Gate):
    """`dil_conv_3x3`: sigmoid(BN(depthwise 3x3 of dilation 2, then 1x1))."""

    def __init__(self, channels: int, norm: str = "batch") -> None:
        super().__init__(channels, norm)
        self.body = nn.Sequential(separable(channels, channels, 2), norm_layer(norm, channels, affine=False))

    def gate(self, x: Tensor, seen: Descriptors) -> Tensor:
        return torch.sigmoid(self.body(x))


@operation("sep_conv_3x3_spatial")
class SeparableSpatialGate(Gate):
    """`sep_conv_3x3_spatial`: sep3 twice (2 -> 2, ReLU, 2 -> 1) on the channel maximum and mean."""

    needs = frozenset({"profile"})
    extent = 2

    def __init__(self, channels: int, norm: str = "batch") -> None:
        super().__init__(channels, norm)
        self.body = nn.Sequential(
            separable(2, 2),
            norm_layer(norm, 2, affine=False),
            nn.ReLU(),
            separable(2, 1),
            norm_layer(norm, 1, affine=False),
        )

    def gate(self, x: Tensor, seen: Descriptors) -> Tensor:
        return torch.sigmoid(self.body(seen.profile))


@operation("dil_conv_3x3_spatial")
class DilatedSpatialGate(Gate):
    """`dil_conv_3x3_spatial`: a dense 3x3 of dilation 2 (2 -> 1), then 1x1, on the channel maximum and mean."""

    needs = frozenset({"profile"})
    extent = 2

    def __init__(self, channels: int, norm: str = "batch") -> None:
        super().__init__(channels, norm)
        self.body = nn.Sequential(
            nn.Conv2d(2, 1, 3, padding=2, dilation=2, bias=False),
            nn.Conv2d(1, 1, 1, bias=False),
            norm_layer(norm, 1, affine=False),
        )

    def gate(self, x: Tensor, seen: Descriptors) -> Tensor:
        return torch.sigmoid(self.body(seen.profile))


def bottleneck_mlp(channels: int, reduction: int, bias: bool) -> nn.Sequential:
    """Two fully connected layers over channels, as 1x1 convolutions so that they also read maps."""
    hidden = max(1, channels // reduction)
    return nn.Sequential(
        nn.Conv2d(channels, hidden, 1, bias=bias), nn.ReLU(), nn.Conv2d(hidden, channels, 1, bias=bias)
    )


@operation("SE")
class SqueezeExciteGate(Gate):
    """`SE`: sigmoid(fc(ReLU(fc(mean)))), without bias (Hu et al., CVPR 2018)."""

    needs = frozenset({"mean"})
    extent = 1

    def __init__(self, channels: int, norm: str = "batch", reduction: int = 4) -> None:
        super().__init__(channels, norm)
        self.mlp = bottleneck_mlp(channels, reduction, bias=False)

    def gate(self, x: Tensor, seen: Descriptors) -> Tensor:
        return torch.sigmoid(self.mlp(seen.mean))


@operation("SE_A_M")
class MeanPeakGate(Gate):
    """`SE_A_M`: one shared MLP on the mean and on the maximum, summed before the sigmoid."""

    needs = frozenset({"mean", "peak"})
    extent = 1

    def __init__(self, channels: int, norm: str = "batch") -> None:
        super().__init__(channels, norm)
        self.mlp = bottleneck_mlp(channels, 4, bias=False)

    def gate(self, x: Tensor, seen: Descriptors) -> Tensor:
        return torch.sigmoid(self.mlp(seen.mean) + self.mlp(seen.peak))


@operation("CBAM")
class CBAMGate(Gate):
    """`CBAM`: a channel gate, then a 7x7 spatial gate on the map so gated (Woo et al., ECCV 2018)."""

    needs = frozenset({"mean", "peak"})

    def __init__(self, channels: int, norm: str = "batch") -> None:
        super().__init__(channels, norm)
        self.mlp = bottleneck_mlp(channels, 4, bias=True)
        self.spatial = nn.Sequential(nn.Conv2d(2, 1, 7, padding=3, bias=False), norm_layer(norm, 1))

    def factors(self, x: Tensor, seen: Descriptors) -> tuple[Tensor, Tensor]:
        """The channel gate (B, c, 1, 1) and the spatial gate (B, 1, H, W)."""
        channel = torch.sigmoid(self.mlp(seen.mean) + self.mlp(seen.peak))
        return channel, torch.sigmoid(self.spatial(channel_profile(x * channel)))

    def gate(self, x: Tensor, seen: Descriptors) -> Tensor:
        channel, spatial = self.factors(x, seen)
        return channel * spatial

    def add(self, total: Tensor, weight: Tensor, x: Tensor, seen: Descriptors) -> Tensor:
        channel, spatial = self.factors(x, seen)
        return torch.addcmul(total, weight * channel, spatial)  # their product is never stored
