"""Checkers about pictures, sizes and tables: the warm-ups."""

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from manas_lite.course.checks.base import checker, expect


@checker
def psnr_rgb(attempt: Callable[[np.ndarray, np.ndarray], float], rng: np.random.Generator) -> None:
    """attempt(x, clean), float arrays (H, W, 3) in [0, 1] -> PSNR in dB over all three channels."""
    clean = rng.uniform(0.2, 0.8, (11, 13, 3))
    x = clean + rng.uniform(-0.1, 0.1, clean.shape)
    mse = float(np.mean((x - clean) ** 2))
    found, true = float(attempt(x.copy(), clean.copy())), -10 * math.log10(mse)
    wrong = {
        "the sign is turned round": -true,
        "natural logarithm: decibels count in powers of ten": -10 * math.log(mse),
        "half of it: ten times the logarithm of the *mean square*, or twenty of its root": true / 2,
        "twice too much: the mean is squared already": 2 * true,
        "the peak is 255 here, but these pictures lie in [0, 1]": 20 * math.log10(255) + true,
        "the mean of the *absolute* difference": -20 * math.log10(float(np.mean(np.abs(x - clean)))),
    }
    for message, value in wrong.items():
        expect(abs(found - value) > 1e-6, message)
    expect(abs(found - true) < 1e-6, f"{found:.3f} dB, expected another number", "10 log10(peak^2 / mean square)")


@checker
def padding(attempt: Callable[[int, int], int], rng: np.random.Generator) -> None:
    """attempt(side, multiple) -> how many pixels to add so that `multiple` divides the side; as few as possible."""
    for multiple in (2, 8, 16):
        for side in [multiple, 3 * multiple, 1, *map(int, rng.integers(1, 500, 12))]:
            found, case = attempt(side, multiple), f"side {side}, multiple {multiple}"
            expect(
                found != multiple, f"{case}: a whole multiple is added where nothing is needed", "try side = multiple"
            )
            expect(found != -(side % multiple) or found == 0, f"{case}: that would crop, not pad")
            expect(found != side % multiple or 2 * found in (0, multiple), f"{case}: what is left over is added again")
            expect((side + found) % multiple == 0, f"{case}: {side + found} is no multiple of {multiple}")
            expect(0 <= found < multiple, f"{case}: {found} pixels, but fewer do")


@checker
def strength(attempt: Callable[[np.ndarray, np.ndarray, float], np.ndarray], rng: np.random.Generator) -> None:
    """attempt(rainy, derained, s) -> uint8: s = 0 the rainy picture, 1 the derained one, between them a blend."""
    rainy, derained = (rng.integers(0, 256, (6, 5, 3)).astype(np.uint8) for _ in range(2))
    found = {s: np.asarray(attempt(rainy.copy(), derained.copy(), s)) for s in (0.0, 0.5, 1.0, 1.5)}
    expect(all(picture.dtype == np.uint8 for picture in found.values()), "the result must be uint8")
    swapped = (found[0.0] == derained).all() and (found[1.0] == rainy).all()
    expect(not swapped, "the two ends are swapped: strength 0 must leave the picture alone")
    expect((found[0.0] == rainy).all() and (found[1.0] == derained).all(), "an end is not the picture it should be")
    true = (rainy.astype(float) + derained) / 2
    wrapped = np.abs(found[0.5].astype(float) - true).max()
    hint = "200 + 100 is 44 in uint8: convert before you compute"
    expect(wrapped < 100, "bytes overflow in the middle", hint)
    expect(wrapped <= 0.5 + 1e-9, "halfway is not the mean of the two, rounded", "round, do not cut off")
    beyond = np.clip(rainy + 1.5 * (derained.astype(float) - rainy), 0, 255)
    expect(np.abs(found[1.5] - beyond).max() <= 0.5 + 1e-9, "beyond 1 the values run over", "clip before converting")


@checker
def tile_starts(attempt: Callable[[int, int, int], Sequence[int]], rng: np.random.Generator) -> None:
    """attempt(length, tile, overlap) -> starts of tiles that cover 0 .. length, none leaving it."""
    for _ in range(30):
        tile = int(rng.integers(8, 64))
        overlap, length = int(rng.integers(0, tile // 2)), int(rng.integers(1, 400))
        starts, case = list(attempt(length, tile, overlap)), f"length {length}, tile {tile}, overlap {overlap}"
        expect(starts and starts[0] == 0, f"{case}: the first tile must start at 0")
        if length <= tile:
            expect(starts == [0], f"{case}: one tile is enough where the picture is smaller")
            continue
        ends = [start + tile for start in starts]
        expect(ends[-1] >= length, f"{case}: the last {length - ends[-1]} pixels are never seen", "the far edge")
        expect(ends[-1] <= length, f"{case}: the last tile leaves the picture", "move it back instead of cutting it")
        gaps = [later - earlier for earlier, later in itertools.pairwise(starts)]
        expect(all(gap <= tile - overlap for gap in gaps), f"{case}: neighbours share fewer than {overlap} pixels")
        expect(all(gap > 0 for gap in gaps), f"{case}: a tile stands there twice, or the order is wrong")
        fewest = 1 + math.ceil((length - tile) / (tile - overlap))
        expect(len(starts) == fewest, f"{case}: {len(starts)} tiles, {fewest} would do")


@checker
def pairing(attempt: Callable[[Tensor, int], Tensor], rng: np.random.Generator) -> None:
    """attempt(clean (B, 3, h, w), R) -> (B * R, 3, h, w), the target of each output; outputs come scene by scene."""
    clean = torch.from_numpy(rng.uniform(size=(4, 3, 2, 2)))
    for rains in (1, 2, 3):
        found = attempt(clean.clone(), rains)
        expect(tuple(found.shape) == (4 * rains, 3, 2, 2), f"R = {rains}: shape {tuple(found.shape)}")
        true = clean[[b for b in range(4) for _ in range(rains)]]
        tiled = torch.equal(found, clean[[b for _ in range(rains) for b in range(4)]]) and rains > 1
        right = sum(torch.equal(f, t) for f, t in zip(found, true, strict=True))
        message = f"the batch is repeated as a whole: {right} of {4 * rains} outputs meet their own target"
        expect(not tiled, message, "the outputs' order is scene 0 rain 0, scene 0 rain 1, ...")
        expect(torch.equal(found, true), f"R = {rains}: {right} of {4 * rains} outputs meet their own target")


@checker
def pareto_front(attempt: Callable[[Sequence[tuple[float, float]]], Sequence[int]], rng: np.random.Generator) -> None:
    """attempt(points (cost, quality)) -> indices of the points that no other one beats, in any order."""
    for _ in range(20):
        points = [(float(c), float(q)) for c, q in rng.integers(0, 8, (12, 2))]
        found = set(attempt(list(points)))

        def beaten(k: int, points: list[tuple[float, float]] = points) -> bool:
            cost, quality = points[k]
            return any(c <= cost and q >= quality and (c, q) != (cost, quality) for c, q in points)

        true = {k for k in range(12) if not beaten(k)}
        turned = {
            k
            for k in range(12)
            if not any(c >= p and q <= r and (c, q) != (p, r) for c, q in points for p, r in [points[k]])
        }
        expect(found != turned or turned == true, "the worst points, not the best: cost should be low, quality high")
        extra, missing = sorted(found - true), sorted(true - found)
        expect(
            not extra,
            "a point is kept although another is cheaper, or as cheap, and better",
            "equal in one, worse in the other",
        )
        expect(
            not missing,
            "a point is lost that no other one beats",
            "two points that are quite equal do not beat each other",
        )


@checker
def mean_and_deviation(attempt: Callable[[Sequence[float]], str], rng: np.random.Generator) -> None:
    """attempt(values) -> "24.6 ± 0.5": the sample deviation to one significant digit, the mean to the same place."""
    cases = [[23.913, 24.789, 23.565, 22.104, 23.537]]  # a deviation of 0.97
    for _ in range(20):
        scale = 10.0 ** int(rng.integers(-2, 1))
        cases.append([25 + scale * float(x) for x in rng.normal(0, 2, int(rng.integers(3, 8)))])
    for values in cases:
        deviation, biased = float(np.std(values, ddof=1)), float(np.std(values))
        found = str(attempt(list(values))).strip()
        expect(
            found != _rounded(values, biased) or found == _rounded(values, deviation),
            "divided by n",
            "few values: n - 1",
        )
        case = "of " + ", ".join(f"{value:.3f}" for value in values)
        expect("±" in found, f"{case}: {found!r} has no ±")
        digits = found.rpartition("±")[2].strip().replace(".", "").lstrip("0")
        expect(
            not (digits == "10" and found != _rounded(values, deviation)),
            f"{case}: {found!r} has two digits of the deviation",
            f"a deviation of {deviation:.2g} to one digit is a 1, one place further left",
        )
        expect(
            found == _rounded(values, deviation),
            f"{case}: {found!r}",
            "0.5 dB of noise: what is a third decimal worth?",
        )


def _rounded(values: Sequence[float], deviation: float) -> str:
    digits = -math.floor(math.log10(deviation))
    if round(deviation, digits) >= 10.0 ** (1 - digits):  # 0.96 to one digit is 1, one place further left
        digits -= 1
    places = max(digits, 0)
    return f"{round(float(np.mean(values)), digits):.{places}f} ± {round(deviation, digits):.{places}f}"


@checker
def holm(attempt: Callable[[Sequence[float], float], Sequence[bool]], rng: np.random.Generator) -> None:
    """attempt(p values, level) -> which are significant after Holm's correction, in the given order."""
    for _ in range(40):
        p = [float(x) for x in np.concatenate([rng.uniform(0, 0.03, 5), rng.uniform(0, 1, 3)])]
        p = [p[k] for k in rng.permutation(len(p))]
        found = [bool(x) for x in attempt(list(p), 0.05)]
        n, order = len(p), np.argsort(p)
        step = [p[k] <= 0.05 / (n - rank) for rank, k in enumerate(order)]
        true = [False] * n
        for rank, k in enumerate(order):
            true[k] = all(step[: rank + 1])
        names = {
            "no correction at all": [x <= 0.05 for x in p],
            "that is Bonferroni: every p value at level / n": [x <= 0.05 / n for x in p],
            "it goes on after the first that fails": [step[list(order).index(k)] for k in range(n)],
        }
        for message, value in names.items():
            expect(found != value or value == true, message, "step down from the smallest, stop at the first failure")
        expect(found == true, "another set is significant", "is the answer in the order of the question?")
