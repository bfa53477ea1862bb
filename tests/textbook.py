"""The method as a textbook would write it: slow, plain, one line an equation. The oracle of the model tests.

Written from the description of the method (sections 1-2), not from the kit's code: an edge runs nine separate
operations and sums `w_k op_k(x)`, nothing is shared, nothing is skipped. `copy_weights` gives a textbook
module the weights of the kit's module that it is compared with.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def normalise(norm: str, channels: int, affine: bool = True) -> nn.Module:
    """`batch` as published; the kit's variants `group` (8 groups, or fewer that divide) and `none`."""
    if norm == "batch":
        return nn.BatchNorm2d(channels, affine=affine)
    if norm == "group":
        return nn.GroupNorm(math.gcd(8, channels), channels, affine=affine)
    return nn.Identity()


def conv(inputs: int, outputs: int, size: int = 1, bias: bool = False, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, bias=bias, **options)


def conv_norm(inputs: int, outputs: int, size: int, norm: str, stride: int = 1) -> nn.Sequential:
    """No bias where a normalisation follows, as published; a bias where none does."""
    layer = conv(inputs, outputs, size, bias=norm == "none", stride=stride, padding=(size - 1) // 2)
    return nn.Sequential(layer, normalise(norm, outputs))


# --- section 2: nine operations; each returns its whole output, gate times input ---

SIZES = {  # parameters of an operation at c = 16, 32, 64, 128
    "none": (0, 0, 0, 0),
    "skip_connect": (0, 0, 0, 0),
    "sep_conv_3x3": (800, 2624, 9344, 35072),
    "dil_conv_3x3": (400, 1312, 4672, 17536),
    "sep_conv_3x3_spatial": (42, 42, 42, 42),
    "dil_conv_3x3_spatial": (19, 19, 19, 19),
    "SE": (128, 512, 2048, 8192),
    "SE_A_M": (128, 512, 2048, 8192),
    "CBAM": (248, 652, 2228, 8452),
}


def sep3(inputs: int, outputs: int) -> nn.Sequential:
    """Depthwise 3x3, then 1x1."""
    return nn.Sequential(conv(inputs, inputs, 3, padding=1, groups=inputs), conv(inputs, outputs))


def max_and_mean(x: Tensor) -> Tensor:
    return torch.cat([x.max(dim=1, keepdim=True).values, x.mean(dim=1, keepdim=True)], dim=1)


class Zero(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


class Identity(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class SepConv(nn.Module):
    def __init__(self, c: int, norm: str) -> None:
        super().__init__()
        self.first, self.norm1 = sep3(c, c), normalise(norm, c, False)
        self.second, self.norm2 = sep3(c, c), normalise(norm, c, False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.norm1(self.first(x)))
        return torch.sigmoid(self.norm2(self.second(hidden))) * x


class DilConv(nn.Module):
    def __init__(self, c: int, norm: str) -> None:
        super().__init__()
        self.depthwise, self.pointwise = conv(c, c, 3, padding=2, dilation=2, groups=c), conv(c, c)
        self.norm = normalise(norm, c, False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.norm(self.pointwise(self.depthwise(x)))) * x


class SepConvSpatial(nn.Module):
    def __init__(self, c: int, norm: str) -> None:
        super().__init__()
        self.first, self.norm1 = sep3(2, 2), normalise(norm, 2, False)
        self.second, self.norm2 = sep3(2, 1), normalise(norm, 1, False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.norm1(self.first(max_and_mean(x))))
        return torch.sigmoid(self.norm2(self.second(hidden))) * x


class DilConvSpatial(nn.Module):
    def __init__(self, c: int, norm: str) -> None:
        super().__init__()
        self.dilated, self.pointwise = conv(2, 1, 3, padding=2, dilation=2), conv(1, 1)
        self.norm = normalise(norm, 1, False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.norm(self.pointwise(self.dilated(max_and_mean(x))))) * x


class SqueezeExcite(nn.Module):
    """SE_r. Fully connected layers are 1x1 convolutions of a 1x1 map here, so that weights copy over."""

    def __init__(self, c: int, reduction: int) -> None:
        super().__init__()
        self.squeeze, self.excite = conv(c, c // reduction), conv(c // reduction, c)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean(dim=(2, 3), keepdim=True)
        return torch.sigmoid(self.excite(F.relu(self.squeeze(pooled)))) * x


class SqueezeExciteMeanMax(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.squeeze, self.excite = conv(c, c // 4), conv(c // 4, c)

    def forward(self, x: Tensor) -> Tensor:
        mean, largest = x.mean(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True)
        mlp = lambda pooled: self.excite(F.relu(self.squeeze(pooled)))  # noqa: E731
        return torch.sigmoid(mlp(mean) + mlp(largest)) * x


class CBAM(nn.Module):
    def __init__(self, c: int, norm: str) -> None:
        super().__init__()
        self.squeeze, self.excite = conv(c, c // 4, bias=True), conv(c // 4, c, bias=True)
        self.spatial, self.norm = conv(2, 1, 7, padding=3), normalise(norm, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean, largest = x.mean(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True)
        mlp = lambda pooled: self.excite(F.relu(self.squeeze(pooled)))  # noqa: E731
        gated = torch.sigmoid(mlp(mean) + mlp(largest)) * x
        return torch.sigmoid(self.norm(self.spatial(max_and_mean(gated)))) * gated


def operation(name: str, c: int, norm: str = "batch") -> nn.Module:
    return {
        "none": Zero,
        "skip_connect": Identity,
        "sep_conv_3x3": lambda: SepConv(c, norm),
        "dil_conv_3x3": lambda: DilConv(c, norm),
        "sep_conv_3x3_spatial": lambda: SepConvSpatial(c, norm),
        "dil_conv_3x3_spatial": lambda: DilConvSpatial(c, norm),
        "SE": lambda: SqueezeExcite(c, 4),
        "SE_A_M": lambda: SqueezeExciteMeanMax(c),
        "CBAM": lambda: CBAM(c, norm),
    }[name]()


class Mixture(nn.Module):
    """One searched edge, sum_k w_k op_k(x)."""

    def __init__(self, names: Sequence[str], c: int, norm: str = "batch") -> None:
        super().__init__()
        self.operations = nn.ModuleList(operation(name, c, norm) for name in names)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        return sum(w * op(x) for w, op in zip(weights, self.operations, strict=True))  # type: ignore[return-value]


class Attention(nn.Module):
    """K = 2 groups, three edges, in the order (0,0), (1,0), (1,1): by node k, then by source j."""

    def __init__(self, edges: Sequence[Sequence[str]], channels: int, norm: str = "batch") -> None:
        super().__init__()
        c = channels // 2
        self.edges = nn.ModuleList(Mixture(names, c, norm) for names in edges)
        self.local = SqueezeExcite(c, 4)
        self.conv1, self.conv2 = conv_norm(3 * c, channels, 1, norm), conv_norm(channels, channels, 1, norm)
        self.last = SqueezeExcite(channels, 16)

    def forward(self, x: Tensor, weights: Sequence[Tensor]) -> Tensor:
        c = x.shape[1] // 2
        f0, f1 = x[:, :c], x[:, c:]
        u0 = self.edges[0](f0, weights[0])
        u1 = self.edges[1](f1, weights[1]) + self.edges[2](u0, weights[2])
        together = torch.cat([u0, u1, self.local(f0 + f1)], dim=1)
        return self.last(x + self.conv2(F.relu(self.conv1(together))))


# --- section 1: stem, transition, parallel, fusion ---


def outer(x: Tensor, norm: str) -> Tensor:
    """After a residual sum: the published ReLU, and (this kit's choice) nothing in a network without normalisation."""
    return x if norm == "none" else F.relu(x)


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, inner: int, norm: str = "batch") -> None:
        super().__init__()
        outputs = 4 * inner
        self.conv1 = conv_norm(inputs, inner, 1, norm)
        self.conv2 = conv_norm(inner, inner, 3, norm)
        self.conv3 = conv_norm(inner, outputs, 1, norm)
        self.shortcut = nn.Identity() if inputs == outputs else conv_norm(inputs, outputs, 1, norm)
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv2(F.relu(self.conv1(x))))
        return outer(self.shortcut(x) + self.conv3(y), self.norm)


class Transition(nn.Module):
    def __init__(self, old: Sequence[int], new: Sequence[int], norm: str = "batch") -> None:
        super().__init__()
        assert len(new) == len(old) + 1
        self.keep = nn.ModuleList(
            nn.Identity() if a == b else nn.Sequential(conv_norm(a, b, 3, norm), nn.ReLU())
            for a, b in zip(old, new[:-1], strict=True)
        )
        self.grow = nn.Sequential(conv_norm(old[-1], new[-1], 3, norm, stride=2), nn.ReLU())

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        return [keep(branch) for keep, branch in zip(self.keep, x, strict=True)] + [self.grow(x[-1])]


class BasicBlock(nn.Module):
    def __init__(self, channels: int, norm: str = "batch") -> None:
        super().__init__()
        self.conv1 = conv_norm(channels, channels, 3, norm)
        self.conv2 = conv_norm(channels, channels, 3, norm)
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return outer(x + self.conv2(F.relu(self.conv1(x))), self.norm)


class Parallel(nn.Module):
    def __init__(self, widths: Sequence[int], norm: str = "batch") -> None:
        super().__init__()
        self.blocks = nn.ModuleList(BasicBlock(c, norm) for c in widths)

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        return [block(branch) for block, branch in zip(self.blocks, x, strict=True)]


def up(inputs: int, outputs: int, times: int, norm: str) -> nn.Sequential:
    grow = nn.Upsample(scale_factor=2**times, mode="nearest")
    return nn.Sequential(conv_norm(inputs, outputs, 1, norm), grow)


def down(inputs: int, outputs: int, times: int, norm: str) -> nn.Sequential:
    layers: list[nn.Module] = []
    for step in range(1, times + 1):
        width = outputs if step == times else inputs
        layers += [conv_norm(inputs, width, 3, norm, stride=2)]
        layers += [] if step == times else [nn.ReLU()]
    return nn.Sequential(*layers)


class Fusion(nn.Module):
    """All to all; `rows` says how many of the outputs are wanted (1: the final fusion)."""

    def __init__(self, widths: Sequence[int], norm: str = "batch", rows: int | None = None) -> None:
        super().__init__()
        self.paths = nn.ModuleDict()
        for i, target in enumerate(widths[:rows]):
            for j, source in enumerate(widths):
                if i != j:
                    path = up(source, target, j - i, norm) if j > i else down(source, target, i - j, norm)
                    self.paths[f"{j} to {i}"] = path
        self.rows = rows if rows is not None else len(widths)
        self.norm = norm

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        return [
            outer(x[i] + sum(self.paths[f"{j} to {i}"](x[j]) for j in range(len(x)) if j != i), self.norm)
            for i in range(self.rows)
        ]


class Mixed(nn.Module):
    """M(x) = p P(x) + f F(x), both read the same x."""

    def __init__(self, widths: Sequence[int], norm: str = "batch") -> None:
        super().__init__()
        self.parallel, self.fusion = Parallel(widths, norm), Fusion(widths, norm)

    def forward(self, x: list[Tensor], weights: Tensor) -> list[Tensor]:
        p, f = weights
        return [p * a + f * b for a, b in zip(self.parallel(list(x)), self.fusion(list(x)), strict=True)]


class Network(nn.Module):
    """The published network in relaxed form: bottleneck stem, cells on 2, 3, .. branches, fusion, head."""

    def __init__(
        self, channels: Sequence[int], modules_per_cell: int, operations: Sequence[str], norm: str = "batch"
    ) -> None:
        super().__init__()
        inner = channels[0]
        self.stem = nn.Sequential(Bottleneck(3, inner, norm), Bottleneck(4 * inner, inner, norm))
        self.cells = nn.ModuleList()
        widths: Sequence[int] = [4 * inner]
        for branches in range(2, len(channels) + 1):
            cell = nn.Module()
            cell.transition = Transition(widths, channels[:branches], norm)
            widths = channels[:branches]
            cell.mixed = nn.ModuleList(Mixed(widths, norm) for _ in range(modules_per_cell))
            cell.attention = nn.ModuleList(Attention([operations] * 3, c, norm) for c in widths)
            self.cells.append(cell)
        self.fusion = Fusion(widths, norm, rows=1)
        self.head = conv(channels[0], 3)

    def forward(self, image: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
        """alpha, beta: the weights themselves, one row a module and one row an edge, in reading order."""
        module_rows, edge_rows = iter(alpha), iter(beta)
        x = [self.stem(image)]
        for cell in self.cells:
            x = cell.transition(x)
            for mixed in cell.mixed:
                x = mixed(x, next(module_rows))
            x = [
                block(branch, [next(edge_rows), next(edge_rows), next(edge_rows)])
                for block, branch in zip(cell.attention, x, strict=True)
            ]
        assert next(module_rows, None) is None, "a row of alpha was not read"
        assert next(edge_rows, None) is None, "a row of beta was not read"
        return self.head(self.fusion(x)[0])


# --- weights ---


@torch.no_grad()
def randomise(module: nn.Module, seed: int = 0) -> None:
    """Fill weights and statistics with values that make every layer matter (norm scales near one)."""
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        for name, parameter in layer.named_parameters(recurse=False):
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            fan = parameter.shape[1:].numel()
            norm_scale = name == "weight" and parameter.dim() == 1
            parameter.copy_(1 + 0.2 * noise if norm_scale else noise / fan**0.5)
        for name, buffer in layer.named_buffers(recurse=False):
            noise = torch.randn(buffer.shape, generator=generator, dtype=torch.float64)
            if name == "running_mean":
                buffer.copy_(0.2 * noise)
            elif name == "running_var":
                buffer.copy_(0.5 + noise.abs())


@torch.no_grad()
def copy_weights(source: nn.Module, target: nn.Module, but: Sequence[str] = ()) -> None:
    """Copy tensor by tensor in the order of registration; every shape must agree, none may be left over."""
    theirs = [tensor for name, tensor in source.state_dict().items() if name not in but]
    ours = list(target.state_dict().values())
    shapes = [tuple(t.shape) for t in theirs], [tuple(t.shape) for t in ours]
    assert shapes[0] == shapes[1], f"not the same tensors:\n{shapes[0]}\n{shapes[1]}"
    for a, b in zip(theirs, ours, strict=True):
        b.copy_(a)
