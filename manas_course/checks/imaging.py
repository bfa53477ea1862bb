"""Checkers about pictures: rain over them, their PSNR, blending, and sizes that fit."""

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from manas_course.checks.base import checker, expect, rule_out, same
from manas_lite.metrics import LUMA, psnr

__all__ = ["padding", "psnr_rgb", "psnr_y", "screen_blend", "strength", "tile_starts"]

Blend = Callable[[np.ndarray, np.ndarray], np.ndarray]
Score = Callable[[np.ndarray, np.ndarray], float]


@checker
def screen_blend(attempt: Blend, rng: np.random.Generator) -> None:
    """Check attempt(background (H, W, 3), streaks (H, W)) -> rainy (H, W, 3), all in [0, 1]."""
    background = rng.uniform(0.05, 0.95, (7, 9, 3))
    streaks = rng.uniform(0.05, 0.95, (7, 9))
    rainy = np.asarray(attempt(background.copy(), streaks.copy()))
    expect(rainy.shape == background.shape, f"the result has shape {rainy.shape}, not that of the background")
    nothing = attempt(background.copy(), np.zeros((7, 9)))
    expect(np.allclose(nothing, background), "without streaks the picture changes", "what should S = 0 leave?")
    added = background + streaks[..., None]
    hint = "a streak must matter less the brighter the sky behind it already is"
    for name, wrong in (("added", added), ("added and clipped", np.minimum(added, 1))):
        expect(not np.allclose(rainy, wrong), f"the light is {name}, not screened", hint)
    expect(rainy.min() >= 0 and rainy.max() <= 1, "values leave [0, 1]", "screen blending needs no clipping")
    brighter = np.asarray(attempt(background, np.minimum(streaks + 0.02, 1)))
    expect((brighter > rainy).all(), "more rain does not always make a pixel brighter", "is every sign right?")
    darkness = (1 - rainy) / (1 - background)
    even = np.allclose(darkness, darkness[..., :1])
    expect(even, "the three channels lose different shares of their darkness", "streaks are white")
    hint = "write down how much darkness, 1 - value, each of the two leaves on its own"
    expect(np.allclose(darkness[..., 0], 1 - streaks), "this is no screen blend", hint)


@checker
def psnr_rgb(attempt: Score, rng: np.random.Generator) -> None:
    """Check attempt(x, clean) -> PSNR in dB over all three channels, of float arrays (H, W, 3) in [0, 1]."""
    clean = rng.uniform(0.2, 0.8, (11, 13, 3))
    x = clean + rng.uniform(-0.1, 0.1, clean.shape)
    found, true = float(attempt(x.copy(), clean.copy())), _noise_db(x - clean)
    wrong = {
        "the sign is turned round": -true,
        "natural logarithm: decibels count in powers of ten": true * math.log(10),
        "half of it: ten times the logarithm of the *mean square*, or twenty of its root": true / 2,
        "twice too much: the mean is squared already": 2 * true,
        "the peak is 255 here, but these pictures lie in [0, 1]": 20 * math.log10(255) + true,
        "the mean of the *absolute* difference": -20 * math.log10(float(np.mean(np.abs(x - clean)))),
    }
    rule_out(found, wrong, true)
    expect(same(found, true), f"{found:.3f} dB, expected another number", "10 log10(peak^2 / mean square)")


@checker
def psnr_y(attempt: Score, rng: np.random.Generator) -> None:
    """Check attempt(x (H, W, 3), clean (H, W, 3)) -> dB on MATLAB's Y; RGB in [0, 1], x may leave that range."""
    clean = rng.uniform(0.2, 0.8, (24, 20, 3))
    x = np.clip(clean + rng.normal(0, [0.05, 0.09, 0.14], clean.shape), 0, 1)
    found, true = float(attempt(x.copy(), clean.copy())), _psnr(x, clean, "y")
    full = np.array(LUMA) / sum(LUMA)  # weights of a luma that spans 0..255
    hint = "between which two values does MATLAB's Y lie?"
    rule_out(found, {"full-range Y: exactly 1.32 dB too low": _noise_db((x - clean) @ full)}, true, hint, 1e-3)
    wrong = {
        "the PSNR of RGB, not of Y": _psnr(x, clean, "rgb"),
        "Y of BGR: the channels are swapped": _psnr(x[..., ::-1], clean[..., ::-1], "y"),
        "the plain mean of the channels, no luma": _noise_db((x - clean).mean(-1)),
    }
    rule_out(found, wrong, true, "look at the weights of Y", 1e-3)
    hint = "mean of squares, then the logarithm"
    expect(same(found, true, 1e-3), f"{found:.3f} dB, expected another value", hint)
    wild = x + rng.choice([-1.5, 1.5], x.shape) * (rng.uniform(size=x.shape) < 0.1)
    clamped = same(float(attempt(wild.copy(), clean.copy())), _psnr(wild, clean, "y"), 1e-3)
    expect(clamped, "values outside [0, 1] are scored as they are", "a viewer cannot show a brightness of 1.5")


def _psnr(x: np.ndarray, y: np.ndarray, convention: str) -> float:
    first, second = (torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None] for image in (x, y))
    return float(psnr(first, second, convention))


def _noise_db(difference: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean(np.square(difference))))


@checker
def strength(attempt: Callable[[np.ndarray, np.ndarray, float], np.ndarray], rng: np.random.Generator) -> None:
    """Check attempt(rainy, derained, s) -> uint8: s = 0 the rainy picture, 1 the derained one, between them a blend."""
    rainy, derained = (rng.integers(0, 256, (6, 5, 3)).astype(np.uint8) for _ in range(2))
    found = {s: np.asarray(attempt(rainy.copy(), derained.copy(), s)) for s in (0.0, 0.5, 1.0, 1.5)}
    expect(all(picture.dtype == np.uint8 for picture in found.values()), "the result must be uint8")
    swapped = (found[0.0] == derained).all() and (found[1.0] == rainy).all()
    expect(not swapped, "the two ends are swapped: strength 0 must leave the picture alone")
    expect((found[0.0] == rainy).all() and (found[1.0] == derained).all(), "an end is not the picture it should be")
    wrapped = np.abs(found[0.5].astype(float) - (rainy.astype(float) + derained) / 2).max()
    hint = "200 + 100 is 44 in uint8: convert before you compute"
    expect(wrapped < 100, "bytes overflow in the middle", hint)
    expect(wrapped <= 0.5 + 1e-9, "halfway is not the mean of the two, rounded", "round, do not cut off")
    beyond = np.clip(rainy + 1.5 * (derained.astype(float) - rainy), 0, 255)
    expect(np.abs(found[1.5] - beyond).max() <= 0.5 + 1e-9, "beyond 1 the values run over", "clip before converting")


@checker
def padding(attempt: Callable[[int, int], int], rng: np.random.Generator) -> None:
    """Check attempt(side, multiple) -> the fewest pixels to add so that `multiple` divides the side."""
    for multiple in (2, 8, 16):
        for side in [multiple, 3 * multiple, 1, *map(int, rng.integers(1, 500, 12))]:
            found, over, case = attempt(side, multiple), side % multiple, f"side {side}, multiple {multiple}"
            whole = f"{case}: a whole multiple is added where nothing is needed"
            expect(found != multiple, whole, "try side = multiple")
            expect(found != -over or found == 0, f"{case}: that would crop, not pad")
            expect(found != over or 2 * found in (0, multiple), f"{case}: what is left over is added again")
            expect((side + found) % multiple == 0, f"{case}: {side + found} is no multiple of {multiple}")
            expect(0 <= found < multiple, f"{case}: {found} pixels, but fewer do")


@checker
def tile_starts(attempt: Callable[[int, int, int], Sequence[int]], rng: np.random.Generator) -> None:
    """Check attempt(length, tile, overlap) -> starts of tiles that cover 0 .. length, none leaving it."""
    for _ in range(30):
        tile = int(rng.integers(8, 64))
        overlap, length = int(rng.integers(0, tile // 2)), int(rng.integers(1, 400))
        starts, case = list(attempt(length, tile, overlap)), f"length {length}, tile {tile}, overlap {overlap}"
        expect(starts and starts[0] == 0, f"{case}: the first tile must start at 0")
        if length <= tile:
            expect(starts == [0], f"{case}: one tile is enough where the picture is smaller")
            continue
        end = starts[-1] + tile
        expect(end >= length, f"{case}: the last {length - end} pixels are never seen", "the far edge")
        expect(end <= length, f"{case}: the last tile leaves the picture", "move it back instead of cutting it")
        gaps = [later - earlier for earlier, later in itertools.pairwise(starts)]
        expect(max(gaps) <= tile - overlap, f"{case}: neighbours share fewer than {overlap} pixels")
        expect(min(gaps) > 0, f"{case}: a tile stands there twice, or the order is wrong")
        fewest = 1 + math.ceil((length - tile) / (tile - overlap))
        expect(len(starts) == fewest, f"{case}: {len(starts)} tiles, {fewest} would do")
