"""What is worth searching? Candidate blocks alone, at equal FLOPs: python scripts/blocks.py --data FOLDER

FOLDER holds Rain100L, whose training pairs are divided into those that train, choose and report, as in scripts/arms.py.
Every candidate stands in the same frame: 2x2 pixels to channels, a 3x3 convolution, the blocks, a 3x3 head that starts
at zero and predicts the rain layer. As many blocks are taken as come nearest to FLOPS on 256 x 256 pixels. All networks
of a seed see the same crops in the same order, so that candidates are compared in pairs.

A row per trained network in results/blocks/runs.csv, a row per picture in images.csv; the same command continues
where it was cut.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from arms import three_parts
from experiments import ONE_THREAD, append, check_protocol, rows, train
from torch import Tensor, nn
from torch.nn import functional as F

from manas_lite import DerainNet, Genotype, RetrainSettings, SearchSpace, evaluate
from manas_lite.compute.runtime import Compute
from manas_lite.networks.costs import count_flops, count_parameters
from manas_lite.runs.progress import Progress
from manas_lite.runs.settings import to_dict
from manas_lite.training.loop import training_batches

RESULTS = Path(__file__).resolve().parents[1] / "results" / "blocks"
FLOPS = 2.5e9  # of the derained network on 256 x 256 pixels: 2.9 G multiply-adds on 481 x 321
GAIN = 0.2  # share of its usual scale at which the last convolution of a residual path starts, as in the kit
RECIPE = RetrainSettings.preset("lite", epochs=1, steps=1500, warmup=50, ema=0.995, compute=ONE_THREAD)
PROTOCOL = {"data": "Rain100L, training pairs in three parts", "flops_256": FLOPS, "recipe": to_dict(RECIPE)}


def conv(
    inputs: int, outputs: int, kernel: int = 3, *, groups: int = 1, dilation: int = 1, stride: int = 1
) -> nn.Conv2d:
    padding = dilation * (kernel // 2)
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation=dilation, groups=groups)


def small(layer: nn.Conv2d) -> nn.Conv2d:
    """The end of a residual path: starts small."""
    layer.weight.data.mul_(GAIN)
    return layer


class Residual(nn.Module):
    """x + body(x)."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class ChannelAttention(nn.Module):
    """x * sigmoid(MLP(mean of x)): squeeze-and-excitation, reduction 4."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(conv(width, width // 4, 1), nn.ReLU(), conv(width // 4, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.mlp(x.mean((2, 3), keepdim=True)))


class HalfGate(nn.Module):
    """The product of the two halves of the channels (NAFNet's SimpleGate)."""

    def forward(self, x: Tensor) -> Tensor:
        one, other = x.chunk(2, dim=1)
        return one * other


class PooledScale(nn.Module):
    """x * conv1(mean of x): NAFNet's simplified channel attention."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = conv(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.linear(x.mean((2, 3), keepdim=True))


def plain(width: int, activation: Callable[[], nn.Module] = nn.ReLU, dilation: int = 1) -> nn.Module:
    return Residual(conv(width, width, dilation=dilation), activation(), small(conv(width, width, dilation=dilation)))


def attended(width: int) -> nn.Module:
    return Residual(conv(width, width), nn.ReLU(), small(conv(width, width)), ChannelAttention(width))


def inverted(width: int, kernel: int = 3, expansion: int = 3) -> nn.Module:
    inner = expansion * width
    return Residual(
        conv(width, inner, 1),
        nn.ReLU(),
        conv(inner, inner, kernel, groups=inner),
        nn.ReLU(),
        small(conv(inner, width, 1)),
    )


def large_kernel(width: int, kernel: int = 7) -> nn.Module:
    return Residual(
        conv(width, width, kernel, groups=width), conv(width, 2 * width, 1), nn.GELU(), small(conv(2 * width, width, 1))
    )


def gated(width: int) -> nn.Module:
    """NAFNet's block without its layer normalisation."""
    spatial = Residual(
        conv(width, 2 * width, 1),
        conv(2 * width, 2 * width, groups=2 * width),
        HalfGate(),
        PooledScale(width),
        small(conv(width, width, 1)),
    )
    channel = Residual(conv(width, 2 * width, 1), HalfGate(), small(conv(width, width, 1)))
    return nn.Sequential(spatial, channel)


class Twice(nn.Module):
    """The same blocks, run `passes` times: weights shared over depth."""

    def __init__(self, body: nn.Module, passes: int = 2) -> None:
        super().__init__()
        self.body, self.passes = body, passes

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.passes):
            x = self.body(x)
        return x


class Collected(nn.Module):
    """Blocks in a row, and a 1x1 convolution over the outputs of all of them, on a long skip."""

    def __init__(self, blocks: list[nn.Module], width: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.merge = small(conv(width * len(blocks), width, 1))

    def forward(self, x: Tensor) -> Tensor:
        seen, y = [], x
        for block in self.blocks:
            y = block(y)
            seen.append(y)
        return y + self.merge(torch.cat(seen, dim=1))


class Valley(nn.Module):
    """before -> half the resolution, twice the width -> inside -> back, beside a skip -> after."""

    def __init__(self, width: int, before: nn.Module, inside: nn.Module, after: nn.Module) -> None:
        super().__init__()
        self.before, self.inside, self.after = before, inside, after
        self.down = conv(width, 2 * width, stride=2)
        self.up = small(conv(2 * width, 4 * width, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        height, width = x.shape[2:]
        low = self.down(F.pad(x, (0, width % 2, 0, height % 2), "replicate"))
        x = x + F.pixel_shuffle(self.up(self.inside(low)), 2)[..., :height, :width]
        return self.after(x)


def row(block: Callable[[], nn.Module], count: int) -> nn.Module:
    return nn.Sequential(*(block() for _ in range(count)))


def deep_valley(count: int) -> nn.Module:
    """Two valleys, one inside the other: widths 24, 48, 96."""
    inner = Valley(48, plain(48), row(lambda: plain(96), count), plain(48))
    return Valley(24, plain(24), inner, plain(24))


BODIES: dict[str, tuple[int, Callable[[int], nn.Module]]] = {
    "plain, 32 wide": (32, lambda n: row(lambda: plain(32), n)),
    "plain, 24 wide": (24, lambda n: row(lambda: plain(24), n)),
    "plain, GELU": (32, lambda n: row(lambda: plain(32, nn.GELU), n)),
    "plain, dilated 1 2": (32, lambda n: nn.Sequential(*(plain(32, dilation=1 + k % 2) for k in range(n)))),
    "channel attention": (32, lambda n: row(lambda: attended(32), n)),
    "inverted 3x3": (32, lambda n: row(lambda: inverted(32), n)),
    "inverted 5x5": (32, lambda n: row(lambda: inverted(32, 5), n)),
    "large kernel 7x7": (32, lambda n: row(lambda: large_kernel(32), n)),
    "gated": (32, lambda n: row(lambda: gated(32), n)),
    "valley": (32, lambda n: Valley(32, nn.Identity(), row(lambda: plain(64), n), plain(32))),
    "deep valley": (24, deep_valley),
    "valley, gated": (32, lambda n: Valley(32, gated(32), row(lambda: gated(64), n), gated(32))),
    "shared twice": (32, lambda n: Twice(row(lambda: plain(32), n))),
    "collected": (32, lambda n: Collected([plain(32) for _ in range(n)], 32)),
}


class Framed(nn.Module):
    """The frame, and in it the body of a candidate with `count` blocks."""

    def __init__(self, name: str, count: int, *, seed: int = 0) -> None:
        super().__init__()
        width, body = BODIES[name]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.enter = conv(12, width)
            self.leave = conv(width, 12)
            nn.init.zeros_(self.leave.weight)
            nn.init.zeros_(self.leave.bias)
            self.body = body(count)

    def forward(self, rainy: Tensor) -> Tensor:
        height, width = rainy.shape[2:]
        x = F.pixel_unshuffle(F.pad(rainy, (0, width % 2, 0, height % 2), "replicate"), 2)
        return rainy - F.pixel_shuffle(self.leave(self.body(self.enter(x))), 2)[..., :height, :width]


def flops(net: nn.Module) -> float:
    return count_flops(net.eval(), torch.zeros(1, 3, 256, 256))


def of_cost(build: Callable[[int], nn.Module], target: float) -> tuple[int, nn.Module]:
    """(count, network): as many blocks as come nearest to `target` FLOPs."""
    costs = {n: flops(build(n)) for n in (1, 2)}
    count = max(1, round((target - costs[1]) / (costs[2] - costs[1])) + 1)
    return count, build(count)


def candidate(name: str, seed: int) -> tuple[int, nn.Module]:
    if name in BODIES:
        return of_cost(lambda n: Framed(name, n, seed=seed), FLOPS)

    def kit(n: int) -> nn.Module:  # the kit's network with its own 1x1 head, modules as a hand would choose
        space = SearchSpace((32, 24), n, stem="unshuffle", norm="none", residual=True)
        return DerainNet(Genotype.hand_made(space), seed=seed)

    return of_cost(kit, FLOPS)


NAMES = (*BODIES, "kit, 1x1 head")


def measure(net: nn.Module, count: int, split: Any, batches: list[Any]) -> dict[str, Any]:
    start = time.process_time()
    trained = train(net, batches, RECIPE, Compute(ONE_THREAD))
    seconds = time.process_time() - start
    start = time.process_time()
    found = evaluate(trained, split.test, measures=("psnr", "ssim"), compute=ONE_THREAD)
    means = found.means()
    return {
        "blocks": count,
        "psnr_y": round(means["psnr_y"], 5),
        "ssim_y": round(means["ssim_y"], 6),
        "rainy_psnr_y": round(means["rainy_psnr_y"], 5),
        "parameters": count_parameters(net),
        "flops_256": flops(trained),
        "train_seconds": round(seconds, 1),
        "test_seconds": round(time.process_time() - start, 2),
        "images": {r["scene"]: round(r["psnr_y"], 5) for r in found.rows},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds Rain100L")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES), metavar="NAME")
    options = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    check_protocol(RESULTS / "protocol.json", PROTOCOL)
    split = three_parts(options.data)
    with Progress(len(options.seeds) * len(options.only), "blocks") as bar:
        for seed in options.seeds:
            batches = list(training_batches(split.train, RECIPE, seed=seed, start=0))
            for name in options.only:
                done = rows(RESULTS / "runs.csv")
                if not any(r["candidate"] == name and int(r["seed"]) == seed for r in done):
                    count, net = candidate(name, seed)
                    found = measure(net, count, split, batches)
                    for scene, value in found.pop("images").items():
                        append(
                            RESULTS / "images.csv", {"candidate": name, "seed": seed, "scene": scene, "psnr_y": value}
                        )
                    append(RESULTS / "runs.csv", {"candidate": name, "seed": seed, **found})
                    bar.say(f"{name} seed {seed} {found}")
                bar.step()


if __name__ == "__main__":
    main()
