"""The published design as it is usually coded: plain, correct, eager. What the kit is measured against.

In the style of the released code, in our own words: nine separate operations an edge, each returning its whole
output; each pooling its own statistics; every operation built on every edge of the derived network (only the
chosen one runs); the loss in a Python loop over scenes; no autocast, no compile, no memory format. It repeats none
of the released faults: rows are softmaxes, no module writes into its caller's list, each block reads its own rows.
A test holds its outputs, losses and gradients equal to the kit's.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# --- the nine operations: each is x -> gate(x) * x ---


class SepConv(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(c, c, 3, padding=1, groups=c, bias=False),
            nn.Conv2d(c, c, 1, bias=False),
            nn.BatchNorm2d(c, affine=False),
            nn.ReLU(),
            nn.Conv2d(c, c, 3, padding=1, groups=c, bias=False),
            nn.Conv2d(c, c, 1, bias=False),
            nn.BatchNorm2d(c, affine=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.body(x)) * x


class DilConv(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(c, c, 3, padding=2, dilation=2, groups=c, bias=False),
            nn.Conv2d(c, c, 1, bias=False),
            nn.BatchNorm2d(c, affine=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.body(x)) * x


def max_and_mean(x: Tensor) -> Tensor:
    return torch.cat([torch.max(x, dim=1, keepdim=True)[0], torch.mean(x, dim=1, keepdim=True)], dim=1)


class SepConvSpatial(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(2, 2, 3, padding=1, groups=2, bias=False),
            nn.Conv2d(2, 2, 1, bias=False),
            nn.BatchNorm2d(2, affine=False),
            nn.ReLU(),
            nn.Conv2d(2, 2, 3, padding=1, groups=2, bias=False),
            nn.Conv2d(2, 1, 1, bias=False),
            nn.BatchNorm2d(1, affine=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.body(max_and_mean(x))) * x


class DilConvSpatial(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(2, 1, 3, padding=2, dilation=2, bias=False),
            nn.Conv2d(1, 1, 1, bias=False),
            nn.BatchNorm2d(1, affine=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.body(max_and_mean(x))) * x


class SqueezeExcite(nn.Module):
    def __init__(self, c: int, reduction: int = 4) -> None:
        super().__init__()
        hidden = max(1, c // reduction)
        self.fc = nn.Sequential(nn.Linear(c, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, c, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        b, c, _, _ = x.shape
        pooled = F.adaptive_avg_pool2d(x, 1).view(b, c)
        return x * torch.sigmoid(self.fc(pooled)).view(b, c, 1, 1)


class SqueezeExciteMeanMax(SqueezeExcite):
    def forward(self, x: Tensor) -> Tensor:
        b, c, _, _ = x.shape
        mean = F.adaptive_avg_pool2d(x, 1).view(b, c)
        largest = F.adaptive_max_pool2d(x, 1).view(b, c)
        return x * torch.sigmoid(self.fc(mean) + self.fc(largest)).view(b, c, 1, 1)


class CBAM(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        hidden = max(1, c // 4)
        self.fc = nn.Sequential(nn.Linear(c, hidden), nn.ReLU(), nn.Linear(hidden, c))
        self.spatial = nn.Sequential(nn.Conv2d(2, 1, 7, padding=3, bias=False), nn.BatchNorm2d(1))

    def forward(self, x: Tensor) -> Tensor:
        b, c, _, _ = x.shape
        mean = F.adaptive_avg_pool2d(x, 1).view(b, c)
        largest = F.adaptive_max_pool2d(x, 1).view(b, c)
        x = x * torch.sigmoid(self.fc(mean) + self.fc(largest)).view(b, c, 1, 1)
        return x * torch.sigmoid(self.spatial(max_and_mean(x)))


class Zero(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x.mul(0.0)


class Skip(nn.Identity):
    def __init__(self, c: int) -> None:
        super().__init__()


OPERATIONS: dict[str, type[nn.Module]] = {
    "none": Zero,
    "skip_connect": Skip,
    "sep_conv_3x3": SepConv,
    "dil_conv_3x3": DilConv,
    "sep_conv_3x3_spatial": SepConvSpatial,
    "dil_conv_3x3_spatial": DilConvSpatial,
    "SE": SqueezeExcite,
    "SE_A_M": SqueezeExciteMeanMax,
    "CBAM": CBAM,
}
NAMES = tuple(OPERATIONS)


class Edge(nn.Module):
    """All nine operations, mixed by `weights`; or, given the number of one, that one alone."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.operations = nn.ModuleList(operation(c) for operation in OPERATIONS.values())

    def forward(self, x: Tensor, choice: Tensor | int) -> Tensor:
        if isinstance(choice, int):
            return self.operations[choice](x)
        return sum(w * operation(x) for w, operation in zip(choice, self.operations, strict=True))  # type: ignore


class Attention(nn.Module):
    """Two groups of channels, three edges: (k=0, j=0), (k=1, j=0), (k=1, j=1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        c = channels // 2
        self.edges = nn.ModuleList(Edge(c) for _ in range(3))
        self.shared = SqueezeExcite(c, 4)
        self.project = nn.Sequential(
            nn.Conv2d(3 * c, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.recalibrate = SqueezeExcite(channels, 16)

    def forward(self, x: Tensor, choices: Sequence[Tensor | int]) -> Tensor:
        f0, f1 = torch.chunk(x, 2, dim=1)
        u0 = self.edges[0](f0, choices[0])
        u1 = self.edges[1](f1, choices[1]) + self.edges[2](u0, choices[2])
        y = self.project(torch.cat([u0, u1, self.shared(f0 + f1)], dim=1))
        return self.recalibrate(x + y)


# --- the trunk ---


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, inner: int) -> None:
        super().__init__()
        outputs = 4 * inner
        self.body = nn.Sequential(
            *conv_bn(inputs, inner, 1), nn.ReLU(), *conv_bn(inner, inner, 3), nn.ReLU(), *conv_bn(inner, outputs, 1)
        )
        self.shortcut = nn.Sequential(*conv_bn(inputs, outputs, 1)) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.shortcut(x) + self.body(x))


class BasicBlock(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*conv_bn(c, c, 3), nn.ReLU(), *conv_bn(c, c, 3))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


class Transition(nn.Module):
    def __init__(self, before: Sequence[int], after: Sequence[int]) -> None:
        super().__init__()
        self.keep = nn.ModuleList(
            nn.Identity() if a == b else nn.Sequential(*conv_bn(a, b, 3), nn.ReLU())
            for a, b in zip(before, after, strict=False)
        )
        self.new = nn.Sequential(*conv_bn(before[-1], after[-1], 3, stride=2), nn.ReLU())

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        return [keep(branch) for keep, branch in zip(self.keep, x, strict=True)] + [self.new(x[-1])]


class Parallel(nn.Module):
    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(BasicBlock(c) for c in widths)

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        return [block(branch) for block, branch in zip(self.blocks, x, strict=True)]


class Fusion(nn.Module):
    def __init__(self, widths: Sequence[int], rows: int | None = None) -> None:
        super().__init__()
        self.rows = len(widths) if rows is None else rows
        self.paths = nn.ModuleDict()
        for i in range(self.rows):
            for j in range(len(widths)):
                if j > i:
                    layers = conv_bn(widths[j], widths[i], 1)
                    layers.append(nn.Upsample(scale_factor=2 ** (j - i), mode="nearest"))
                elif j < i:
                    layers = []
                    for _ in range(i - j - 1):
                        layers += [*conv_bn(widths[j], widths[j], 3, stride=2), nn.ReLU()]
                    layers += conv_bn(widths[j], widths[i], 3, stride=2)
                else:
                    continue
                self.paths[f"{j}to{i}"] = nn.Sequential(*layers)

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        out = []
        for i in range(self.rows):
            y = x[i]
            for j in range(len(x)):
                if j != i:
                    y = y + self.paths[f"{j}to{i}"](x[j])
            out.append(F.relu(y))
        return out


MODULES = ("parallel", "fusion")


class Mixed(nn.Module):
    """A searched module: both candidates mixed, or the one chosen (the other is not built)."""

    def __init__(self, widths: Sequence[int], choice: str | None = None) -> None:
        super().__init__()
        if choice in (None, "parallel"):
            self.parallel = Parallel(widths)
        if choice in (None, "fusion"):
            self.fusion = Fusion(widths)
        self.choice = choice

    def forward(self, x: list[Tensor], weights: Tensor | None) -> list[Tensor]:
        if weights is None:
            return getattr(self, self.choice)(x)  # type: ignore[arg-type]
        p, f = self.parallel(x), self.fusion(x)
        return [weights[0] * a + weights[1] * b for a, b in zip(p, f, strict=True)]


class Network(nn.Module):
    """The published network, relaxed; or derived, given the names of its modules and edges in reading order."""

    def __init__(
        self,
        channels: Sequence[int] = (32, 64, 128, 256),
        modules_per_cell: int = 4,
        modules: Sequence[str] | None = None,
        edges: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        inner = channels[0]
        cells = len(channels) - 1
        chosen = iter(modules) if modules is not None else iter([None] * (cells * modules_per_cell))
        self.chosen_edges = None if edges is None else [NAMES.index(name) for name in edges]
        self.stem = nn.Sequential(Bottleneck(3, inner), Bottleneck(4 * inner, inner))
        self.transitions, self.mixed, self.attention = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        widths: Sequence[int] = [4 * inner]
        for branches in range(2, len(channels) + 1):
            after = channels[:branches]
            self.transitions.append(Transition(widths, after))
            self.mixed.append(nn.ModuleList(Mixed(after, next(chosen)) for _ in range(modules_per_cell)))
            self.attention.append(nn.ModuleList(Attention(c) for c in after))
            widths = after
        self.fusion = Fusion(widths, rows=1)
        self.head = nn.Conv2d(channels[0], 3, 1, bias=False)
        if modules is None:
            edge_count = sum(3 * branches for branches in range(2, len(channels) + 1))
            self.alpha = nn.Parameter(1e-3 * torch.randn(cells * modules_per_cell, 2))
            self.beta = nn.Parameter(1e-3 * torch.randn(edge_count, len(OPERATIONS)))

    def forward(self, x: Tensor) -> Tensor:
        if self.chosen_edges is None:
            alpha, beta = F.softmax(self.alpha, dim=-1), F.softmax(self.beta, dim=-1)
        module, edge = 0, 0
        y = [self.stem(x)]
        for transition, mixed, attention in zip(self.transitions, self.mixed, self.attention, strict=True):
            y = transition(y)
            for each in mixed:
                y = each(y, alpha[module] if self.chosen_edges is None else None)
                module += 1
            blocks = []
            for block, branch in zip(attention, y, strict=True):
                rows = self.chosen_edges if self.chosen_edges is not None else beta
                blocks.append(block(branch, rows[edge : edge + 3]))
                edge += 3
            y = blocks
        return self.head(self.fusion(y)[0])


# --- the loss, a scene at a time ---


def gaussian_window(channels: int, size: int = 11, sigma: float = 1.5) -> Tensor:
    offsets = torch.arange(size, dtype=torch.float32) - size // 2
    line = torch.exp(-(offsets**2) / (2 * sigma**2))
    line = line / line.sum()
    return (line[:, None] * line[None, :]).expand(channels, 1, size, size).contiguous()


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Mean SSIM of (1, 3, H, W) and (1, 3, H, W), over the valid area."""
    window = gaussian_window(3).to(x)
    mu_x, mu_y = F.conv2d(x, window, groups=3), F.conv2d(y, window, groups=3)
    var_x = F.conv2d(x * x, window, groups=3) - mu_x**2
    var_y = F.conv2d(y * y, window, groups=3) - mu_y**2
    cov = F.conv2d(x * y, window, groups=3) - mu_x * mu_y
    c1, c2 = 0.01**2, 0.03**2
    top = (2 * mu_x * mu_y + c1) * (2 * cov + c2)
    return (top / ((mu_x**2 + mu_y**2 + c1) * (var_x + var_y + c2))).mean()


def total_variation(x: Tensor) -> Tensor:
    vertical = ((x[..., 1:, :] - x[..., :-1, :]) ** 2).mean()
    horizontal = ((x[..., :, 1:] - x[..., :, :-1]) ** 2).mean()
    return 2 * (vertical + horizontal)


def image_loss(outputs: Tensor, clean: Tensor, internal: bool = True) -> Tensor:
    """External and internal loss of outputs (B, R, 3, H, W) against clean (B, 3, H, W)."""
    scenes, rains = outputs.shape[:2]
    loss = outputs.new_zeros(())
    for s in range(scenes):
        target = clean[s : s + 1]
        for k in range(rains):
            output = outputs[s, k : k + 1]
            loss = loss + 3 / rains / scenes * (F.mse_loss(output, target) + (1 - ssim(output, target)))
        if internal and rains > 1:
            pairs = rains * (rains - 1) / 2
            for k in range(rains):
                for j in range(k + 1, rains):
                    loss = loss + 3 / pairs / scenes * F.mse_loss(outputs[s, k], outputs[s, j])
    return loss + 1e-4 * total_variation(outputs)


def entropy(logits: Tensor) -> Tensor:
    p = F.softmax(logits, dim=-1)
    return (-p * torch.log10(p) - (1 - p) * torch.log10(1 - p)).mean()


# --- steps ---


def search_step(
    net: Network,
    weight_optimizer: torch.optim.Optimizer,
    arch_optimizer: torch.optim.Optimizer,
    train: tuple[Tensor, Tensor],
    val: tuple[Tensor, Tensor],
) -> float:
    """An architecture step on `val`, a weight step on `train`; each (rainy (B, R, 3, H, W), clean (B, 3, H, W))."""
    for optimizer, (rainy, clean), architecture in (
        (arch_optimizer, val, True),
        (weight_optimizer, train, False),
    ):
        net.zero_grad()
        outputs = net(rainy.flatten(0, 1)).unflatten(0, rainy.shape[:2])
        loss = image_loss(outputs, clean)
        if architecture:
            loss = loss + 0.01 * entropy(net.alpha) + 0.01 * entropy(net.beta)
        loss.backward()
        if not architecture:
            nn.utils.clip_grad_norm_([p for n, p in net.named_parameters() if n not in ("alpha", "beta")], 5.0)
        optimizer.step()
    return loss.item()


def retraining_step(net: Network, optimizer: torch.optim.Optimizer, batch: tuple[Tensor, Tensor]) -> float:
    rainy, clean = batch
    optimizer.zero_grad()
    outputs = net(rainy.flatten(0, 1)).unflatten(0, rainy.shape[:2])
    loss = image_loss(outputs, clean)
    loss.backward()
    optimizer.step()
    return loss.item()
