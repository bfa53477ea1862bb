"""Checkers about pictures: rain over them, their PSNR, blending, and sizes that fit."""

import itertools
import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from manas_course.checks.base import Attempt, Wrong, array, checker, compare, expect, listed, whole
from manas_lite.metrics import LUMA, psnr

__all__ = ["gain", "padding", "psnr_rgb", "psnr_y", "screen_blend", "stitch", "strength", "tile_starts"]

Score = Callable[[np.ndarray, np.ndarray], float]
DB = 1e-3
"""How far two PSNRs that count as one may lie apart: float32 errs by less."""


@checker(may_write=True)  # the exercise promises nobody that the picture under the rain stays
def screen_blend(attempt: Attempt, rng: np.random.Generator) -> None:
    """Check attempt(background (H, W, 3), streaks (H, W)) -> rainy (H, W, 3), all in [0, 1]."""
    background, streaks = rng.uniform(0.05, 0.95, (7, 9, 3)), rng.uniform(0.05, 0.95, (7, 9))
    ends = np.array([[0.0, 0.0, 1.0], [1.0, 0.5, 1.0]])
    cases = {
        "some rain": (background, streaks),
        "no rain (S = 0)": (background, np.zeros((7, 9))),
        "heavy rain over a bright sky": (0.8 + background / 5, 0.8 + streaks / 5),
        "a picture of 3 by 3 pixels": (background[:3, :3], streaks[:3, :3]),
        "black, grey and white": (np.repeat(ends[..., None], 3, axis=2), ends[::-1].copy()),
    }
    sky = "a streak must matter less the brighter the sky behind it already is"
    whose = "write down how much darkness, 1 - value, each of the two leaves on its own"
    wrong = [
        Wrong("the light is added, not screened", lambda b, s: b + s[..., None], sky),
        Wrong("the light is added and clipped, not screened", lambda b, s: np.minimum(b + s[..., None], 1), sky),
        Wrong(
            "more rain does not make a pixel brighter: it takes light away", lambda b, s: b * (1 - s[..., None]), whose
        ),
        Wrong("the two are multiplied: that darkens", lambda b, s: b * s[..., None], whose),
        Wrong("the two are averaged: that is no light on top of the other", lambda b, s: (b + s[..., None]) / 2, whose),
        Wrong(
            "the brighter of the two wins, and the other one's light is lost", lambda b, s: np.maximum(b, s[..., None])
        ),
        Wrong("what is left of the darkness is returned, not the light", lambda b, s: (1 - b) * (1 - s[..., None])),
        Wrong("streaks are white: all three channels get the same", lambda b, s: _first_channel_only(b, s)),
        Wrong(
            "the streaks run along width and channels, not along height and width",
            lambda b, s: 1 - (1 - b) * (1 - (s if s.shape == b.shape[1:] else s[..., None])),
            "`s[..., None]` has one channel",
        ),
    ]
    compare(attempt, cases, lambda b, s: b + s[..., None] - b * s[..., None], wrong, read=array, near=1e-5, hint=whose)


def _first_channel_only(background: np.ndarray, streaks: np.ndarray) -> np.ndarray:
    rainy = background.copy()
    rainy[..., 0] += streaks * (1 - rainy[..., 0])
    return rainy


@checker
def psnr_rgb(attempt: Attempt, rng: np.random.Generator) -> None:
    """Check attempt(x, clean) -> PSNR in dB over all three channels, of float arrays (H, W, 3) in [0, 1]."""
    clean = rng.uniform(0.2, 0.8, (11, 13, 3))
    noise = rng.uniform(-0.1, 0.1, clean.shape)
    cases = {
        "noise in all channels": (clean + noise, clean),
        "noise in blue alone": (clean + noise * [0.1, 0.1, 1.5], clean),
        "a picture that is 0.1 too bright": (clean + 0.1 + noise / 4, clean),
        "strong noise in one corner": (clean + noise * (np.indices((11, 13)).sum(0) < 6)[..., None] * 2, clean),
    }
    mean = "10 log10(peak^2 / mean square)"
    wrong = [
        Wrong("the sign is turned round", lambda x, c: -_decibels(x - c), mean),
        Wrong("natural logarithm: decibels count in powers of ten", lambda x, c: _decibels(x - c) * math.log(10)),
        Wrong(
            "half of it: ten times the logarithm of the *mean square*, or twenty of its root",
            lambda x, c: _decibels(x - c) / 2,
        ),
        Wrong("twice too much: the mean is squared already", lambda x, c: 2 * _decibels(x - c)),
        Wrong("a tenth of it: bel, not decibel", lambda x, c: _decibels(x - c) / 10),
        Wrong(
            "the peak is 255 here, but these pictures lie in [0, 1]",
            lambda x, c: 20 * math.log10(255) + _decibels(x - c),
        ),
        Wrong(
            "the largest value of the picture is taken for the peak: it is 1, for every picture",
            lambda x, c: _decibels(x - c) + 20 * math.log10(c.max()),
        ),
        Wrong("the mean of the *absolute* difference", lambda x, c: -20 * math.log10(np.mean(np.abs(x - c))), mean),
        Wrong("the absolute difference is not squared", lambda x, c: -10 * math.log10(np.mean(np.abs(x - c))), mean),
        Wrong(
            "the squares are summed: larger pictures get fewer dB", lambda x, c: -10 * math.log10(np.sum((x - c) ** 2))
        ),
        Wrong(
            "one PSNR per channel, averaged: first the mean over all pixels and channels, then the logarithm",
            lambda x, c: np.mean([_decibels(d) for d in np.moveaxis(x - c, -1, 0)]),
        ),
        Wrong(
            "the mean error is taken off: that is a standard deviation", lambda x, c: -20 * math.log10(np.std(x - c))
        ),
        Wrong("one channel alone is looked at", lambda x, c: _decibels((x - c)[..., 0]), "three channels"),
        Wrong("the picture is made grey first", lambda x, c: _decibels((x - c).mean(-1)), "all three channels count"),
        Wrong("that is the mean square, without the logarithm", lambda x, c: float(np.mean((x - c) ** 2)), mean),
    ]
    compare(attempt, cases, lambda x, c: _decibels(x - c), wrong, near=DB, hint=mean)


def _decibels(difference: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean(np.square(difference))))


@checker
def psnr_y(attempt: Attempt, rng: np.random.Generator) -> None:
    """Check attempt(x (H, W, 3), clean (H, W, 3)) -> dB on MATLAB's Y; RGB in [0, 1], x may leave that range."""
    clean = rng.uniform(0.2, 0.8, (24, 20, 3))
    x = np.clip(clean + rng.normal(0, [0.05, 0.09, 0.14], clean.shape), 0, 1)
    stray = rng.uniform(size=x.shape)
    cases = {
        "noise": (x, clean),
        "noise in blue alone": (np.stack([clean[..., 0], clean[..., 1], x[..., 2]], axis=-1), clean),
        "an output above 1": (x + 1.5 * (stray < 0.1), clean),
        "an output below 0": (x - 1.5 * (stray > 0.9), clean),
    }
    full = np.array(LUMA) / sum(LUMA)  # weights of a luma that spans 0..255
    kinds: list[tuple[str, Score, str]] = [
        (
            "full-range Y: exactly 1.32 dB too low",
            lambda x, c: _decibels((x - c) @ full),
            "between which two values does MATLAB's Y lie?",
        ),
        ("the PSNR of RGB, not of Y", lambda x, c: _decibels(x - c), "look at the weights of Y"),
        (
            "Y of BGR: the channels are swapped",
            lambda x, c: _luma_db(x[..., ::-1], c[..., ::-1]),
            "R, G, B: in that order",
        ),
        ("the plain mean of the channels, no luma", lambda x, c: _decibels((x - c).mean(-1)), "the weights of Y"),
        (
            "one of the two is on a scale of 255 and the other of 1",
            lambda x, c: _luma_db(x, c) - 20 * math.log10(255),
            "Y is divided by 255, and the peak is 1",
        ),
        (
            "the offset of 16 is added to one of the two pictures alone",
            lambda x, c: _decibels((x - c) @ (np.array(LUMA) / 255) + 16 / 255),
            "it cancels",
        ),
        ("the sign is turned round", lambda x, c: -_luma_db(x, c), "more is better"),
        ("half of it: twenty times the logarithm of a root", lambda x, c: _luma_db(x, c) / 2, ""),
        ("the mean of the *absolute* difference", lambda x, c: -20 * math.log10(_mean_luma(x, c)), "mean of squares"),
    ]
    shown = "a viewer cannot show a brightness of 1.5"
    wrong = [Wrong("values outside [0, 1] are scored as they are", _luma_db, shown)]
    for name, score, hint in kinds:  # with the clamping that the exercise asks for, or without it as well
        wrong.append(Wrong(name, lambda x, c, score=score: score(np.clip(x, 0, 1), c), hint))
        wrong.append(Wrong(name, score, hint))
    half = "it is not clamped at both ends"
    wrong += [
        Wrong(
            f"{half}: above 1 it is, below 0 not", lambda x, c: _luma_db(np.minimum(x, 1), c), "values outside [0, 1]"
        ),
        Wrong(
            f"{half}: below 0 it is, above 1 not", lambda x, c: _luma_db(np.maximum(x, 0), c), "values outside [0, 1]"
        ),
        Wrong(
            "Y is clamped, but each channel of x should be",
            lambda x, c: _decibels(np.clip(_luma(x), 0, 1) - _luma(c)),
            shown,
        ),
    ]
    eight_bits = (
        "Y is rounded to 8 bits, as MATLAB does with uint8: that counts as right, though this kit rounds nothing"
    )
    also = [
        Wrong(eight_bits, lambda x, c: _decibels(_bytes(_luma(np.clip(x, 0, 1))) - _bytes(_luma(c)))),
        Wrong(eight_bits, lambda x, c: _decibels(_luma(_bytes(np.clip(x, 0, 1))) - _luma(_bytes(c)))),
        Wrong(eight_bits, lambda x, c: _decibels(_bytes(_luma(_bytes(np.clip(x, 0, 1)))) - _bytes(_luma(_bytes(c))))),
    ]
    compare(attempt, cases, _psnr, wrong, near=DB, also=also, hint="mean of squares, then the logarithm")


def _psnr(x: np.ndarray, clean: np.ndarray) -> float:
    first, second = (torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None] for image in (x, clean))
    return float(psnr(first, second, "y"))


def _luma(picture: np.ndarray) -> np.ndarray:
    return (picture @ np.array(LUMA) + 16) / 255


def _luma_db(x: np.ndarray, clean: np.ndarray) -> float:
    return _decibels(_luma(x) - _luma(clean))


def _mean_luma(x: np.ndarray, clean: np.ndarray) -> float:
    return float(np.mean(np.abs(_luma(x) - _luma(clean))))


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.rint(values * 255) / 255


@checker
def strength(attempt: Attempt, rng: np.random.Generator) -> None:
    """Check attempt(rainy, derained, s) -> uint8: s = 0 the rainy picture, 1 the derained one, between them a blend."""
    rainy, derained = (rng.integers(0, 256, (6, 5, 3)).astype(np.uint8) for _ in range(2))
    rainy[0], derained[0] = [[255, 0, 7]], [[0, 255, 250]]  # s = 1.5 leaves the bytes at both ends
    cases = {f"s = {s:g}": (rainy, derained, s) for s in (0.0, 1.0, 0.5, 0.25, 0.75, 1.5, 3.0)}

    def exact(rainy: np.ndarray, derained: np.ndarray, s: float) -> np.ndarray:
        return np.clip(rainy + s * (derained.astype(float) - rainy), 0, 255)

    def blend(
        rainy: np.ndarray,
        derained: np.ndarray,
        s: float,
        rounded: Callable[[np.ndarray], np.ndarray] = np.rint,
        most: float = 255,
    ) -> np.ndarray:
        values = rounded(rainy + s * (derained.astype(float) - rainy))
        return np.clip(values, 255 - most, most).astype(np.int64).astype(np.uint8)

    beyond, way = "clip before converting", "np.rint"
    bytes_ = "200 + 100 is 44 in uint8: convert before you compute"
    wrong = [
        Wrong("bytes overflow in the middle", lambda r, d, s: blend(r, r + (d - r), s), bytes_),
        Wrong("bytes overflow in the middle", lambda r, d, s: r if s == 0 else d if s == 1 else (r + d) // 2, bytes_),
        Wrong("bytes overflow in the middle", lambda r, d, s: np.clip(np.rint(r + s * (d - r)), 0, 255), bytes_),
        Wrong("s is clipped to 1: beyond 1 is allowed", lambda r, d, s: blend(r, d, min(s, 1.0))),
        Wrong("an end is not the picture it should be", lambda r, d, s: np.zeros_like(r), "s = 0 gives rainy"),
    ]
    swapped = "the two ends are swapped: strength 0 must leave the picture alone"
    for name, rounded in (("", np.rint), ("cut off", np.trunc), ("always rounded up", np.ceil)):
        for most in (255, 1e9):
            told = f"values are {name}, not rounded" if name else "beyond 1 the values run over"
            hint = way if name else beyond
            each = partial(blend, rounded=rounded, most=most)
            wrong.append(Wrong(told, each, hint))
            wrong.append(Wrong(swapped, lambda r, d, s, each=each: each(d, r, s), "s = 0 gives rainy"))
    # A value may lie this far from the blend: every rounding of a half counts, and float32 errs a little.
    compare(attempt, cases, exact, wrong, read=_as_bytes, near=0.501)


def _as_bytes(found: np.ndarray, like: np.ndarray) -> np.ndarray:
    return array(found, like.astype(np.uint8))


@checker
def padding(attempt: Attempt, rng: np.random.Generator) -> None:
    """Check attempt(side, multiple) -> the fewest pixels to add so that `multiple` divides the side."""
    sides = [1, 7, 8, 9, 24, 63, 64, 321, 481, *map(int, rng.integers(1, 2000, 8))]
    cases = {f"side {side}, multiple {of}": (side, of) for of in (8, 2, 3, 16, 1) for side in sides}
    some = "try side = multiple"
    wrong = [
        Wrong("a whole multiple is added where nothing is needed", lambda side, of: of - side % of, some),
        Wrong(
            "what is left over is added again", lambda side, of: side % of, "side 9, multiple 8: how many are missing?"
        ),
        Wrong("that would crop, not pad", lambda side, of: -(side % of), "pixels are added"),
        Wrong("the padded side is returned, not what is added to it", lambda side, of: side + -side % of, some),
        Wrong("nothing is added", lambda side, of: 0),
        Wrong("a whole multiple is added, always", lambda side, of: of, some),
        Wrong("the multiple is 8, whatever was asked for", lambda side, of: -side % 8, "`multiple` is an argument"),
        Wrong("side and multiple are swapped", lambda side, of: -of % side, "`multiple` must divide the side"),
        Wrong("it goes to the nearest multiple, which may lie below", lambda side, of: round(side / of) * of - side),
        Wrong("a multiple of that many is counted, not pixels", lambda side, of: -(-side // of)),
    ]
    compare(
        attempt,
        cases,
        lambda side, of: next(n for n in range(of) if (side + n) % of == 0),
        wrong,
        read=whole,
        near=0,
        hint=some,
    )


@checker
def tile_starts(attempt: Attempt, rng: np.random.Generator) -> None:
    """Check attempt(length, tile, overlap) -> starts of tiles that cover 0 .. length, none leaving it."""
    cases = [
        (length, tile, tile // part if part else 0) for tile in (4, 9) for part in (0, 2, 4) for length in range(1, 50)
    ]
    for _ in range(20):
        tile = int(rng.integers(8, 64))
        cases.append((int(rng.integers(1, 400)), tile, int(rng.integers(0, tile))))
    for length, tile, overlap in cases:
        case = f"length {length}, tile {tile}, overlap {overlap}"
        starts = [whole(start) for start in listed(attempt(length, tile, overlap), [])]
        expect(starts, f"{case}: no tile at all")
        if length <= tile:
            expect(starts == [0], f"{case}: one tile is enough where the picture is smaller", "is one at 0 enough?")
            continue
        expect(starts[0] == 0, f"{case}: the first tile must start at 0")
        end, gaps = starts[-1] + tile, [later - earlier for earlier, later in itertools.pairwise(starts)]
        expect(min(gaps, default=1) > 0, f"{case}: a tile stands there twice, or the order is wrong")
        expect(end >= length, f"{case}: the last {length - end} pixels are never seen", "the far edge")
        expect(end <= length, f"{case}: the last tile leaves the picture", "move it back instead of cutting it")
        expect(max(gaps) <= tile, f"{case}: between two tiles some pixels are never seen", "how far apart may two be?")
        expect(max(gaps) <= tile - overlap, f"{case}: neighbours share fewer than {overlap} pixels", "step = ?")
        fewest = 1 + math.ceil((length - tile) / (tile - overlap))
        expect(
            len(starts) == fewest, f"{case}: {len(starts)} tiles, {fewest} would do", "the largest step that is allowed"
        )


@checker
def gain(attempt: Attempt, rng: np.random.Generator) -> None:
    """Check attempt(rainy, derained, clean) -> what deraining gains in PSNR, in dB, of float arrays (H, W, 3)."""
    clean = rng.uniform(0.2, 0.8, (9, 7, 3))
    noise = rng.uniform(-0.2, 0.2, clean.shape)
    cases = {
        "a tenth of the rain is left": (clean + noise, clean + noise / 10, clean),
        "half of the rain is left": (clean + noise, clean + noise / 2, clean),
        "nothing was done": (clean + noise, clean + noise, clean),
        "worse than before": (clean + noise / 3, clean + noise, clean),
        "the rain is gone, and the picture is darker": (clean + noise, clean - 0.04, clean),
    }

    def of(formula: Callable[[float, float, float], float]) -> Callable[..., float]:
        """Return a formula of three mean squares: rainy and derained against clean, and against each other."""
        return lambda r, d, c: formula(*(float(np.mean(np.square(x))) for x in (r - c, d - c, r - d)))

    true = of(lambda rainy, derained, _: 10 * math.log10(rainy / derained))
    both = "a PSNR of the derained picture, minus a PSNR of the rainy one, both against the clean picture"
    wrong = [
        Wrong("the sign is turned round: a better picture gains", lambda r, d, c: -true(r, d, c), both),
        Wrong("that is the PSNR of the derained picture, not what it gained", of(lambda r, d, _: -10 * math.log10(d))),
        Wrong("that is the PSNR of the rainy picture", of(lambda r, d, _: -10 * math.log10(r)), both),
        Wrong(
            "derained and rainy are compared with each other, not with the clean picture",
            of(lambda r, d, change: -10 * math.log10(change + 1e-300)),
            both,
        ),
        Wrong("natural logarithm: decibels count in powers of ten", of(lambda r, d, _: 10 * math.log(r / d)), both),
        Wrong("half of it: ten times the logarithm of the *mean square*", of(lambda r, d, _: 5 * math.log10(r / d))),
        Wrong("twice the gain: a mean square is squared already", of(lambda r, d, _: 20 * math.log10(r / d)), both),
        Wrong("mean squares are subtracted: that is no gain in dB", of(lambda r, d, _: r - d), both),
        Wrong("the two PSNRs are divided: dB are subtracted", of(lambda r, d, _: math.log10(d) / math.log10(r)), both),
    ]
    compare(attempt, cases, true, wrong, near=DB, hint=both)


@checker
def stitch(attempt: Attempt, rng: np.random.Generator) -> None:
    """Check attempt(tiles, starts, length) -> a line of pixels; where tiles overlap, their mean."""
    cases = {}
    shapes = [(6, [0], 6), (4, [0, 2], 6), (5, [0, 3, 6], 11), (6, [0, 2, 4], 10), (3, [0, 3], 6), (6, [0, 1, 6], 12)]
    for size, starts, length in shapes:
        tiles = [rng.uniform(0, 1, size) for _ in starts]
        cases[f"{len(starts)} tiles of {size} pixels on {length}"] = tiles, starts, length

    def laid(first: bool) -> Callable[..., np.ndarray]:
        """Return a line on which the first tile keeps a pixel, or the last one takes it."""

        def answer(tiles: list[np.ndarray], starts: list[int], length: int) -> np.ndarray:
            line = np.zeros(length)
            for tile, start in sorted(zip(tiles, starts, strict=True), key=lambda pair: pair[1], reverse=first):
                line[start : start + len(tile)] = tile
            return line

        return answer

    def summed(tiles: list[np.ndarray], starts: list[int], length: int) -> np.ndarray:
        line = np.zeros(length)
        for tile, start in zip(tiles, starts, strict=True):
            line[start : start + len(tile)] += tile
        return line

    def mean(tiles: list[np.ndarray], starts: list[int], length: int) -> np.ndarray:
        return np.array(
            [
                np.mean([t[k - s] for t, s in zip(tiles, starts, strict=True) if s <= k < s + len(t)])
                for k in range(length)
            ]
        )

    def halved(tiles: list[np.ndarray], starts: list[int], length: int) -> np.ndarray:
        line = laid(False)(tiles[:1], starts[:1], length)
        end = starts[0] + len(tiles[0])
        for tile, start in zip(tiles[1:], starts[1:], strict=True):
            seen = max(end - start, 0)
            line[start : start + seen] = (line[start : start + seen] + tile[:seen]) / 2
            line[start + seen : start + len(tile)] = tile[seen:]
            end = start + len(tile)
        return line

    count = "keep a second line that counts how many tiles hold each pixel"
    wrong = [
        Wrong("where tiles overlap, the last one covers the others: the seam stays", laid(False), count),
        Wrong("where tiles overlap, the first one covers the others: the seam stays", laid(True), count),
        Wrong("overlapping tiles are added and never divided: overlaps are too bright", summed, count),
        Wrong(
            "everything is divided by the number of tiles, also where one alone is",
            lambda tiles, starts, length: summed(tiles, starts, length) / len(tiles),
            count,
        ),
        Wrong("a pixel under three tiles is halved twice: the last tile counts half", halved, count),
        Wrong("overlaps are always divided by two", lambda t, s, n: _by_two(summed(t, s, n), t, s), count),
    ]
    compare(attempt, cases, mean, wrong, read=array, near=1e-5, hint=count)


def _by_two(line: np.ndarray, tiles: list[np.ndarray], starts: list[int]) -> np.ndarray:
    held = np.zeros(len(line))
    for tile, start in zip(tiles, starts, strict=True):
        held[start : start + len(tile)] += 1
    return np.where(held > 1, line / 2, line)
