"""Checkers about rain, metrics and data."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from manas_lite.course.checks.base import checker, expect
from manas_lite.metrics import LUMA, psnr


@checker
def screen_blend(attempt: Callable[[np.ndarray, np.ndarray], np.ndarray], rng: np.random.Generator) -> None:
    """attempt(background (H, W, 3), streaks (H, W)) -> rainy (H, W, 3), all in [0, 1]."""
    background = rng.uniform(0.05, 0.95, (7, 9, 3))
    streaks = rng.uniform(0.05, 0.95, (7, 9))
    rainy = np.asarray(attempt(background.copy(), streaks.copy()))
    expect(rainy.shape == background.shape, f"the result has shape {rainy.shape}, not that of the background")
    nothing = attempt(background.copy(), np.zeros((7, 9)))
    expect(np.allclose(nothing, background), "without streaks the picture changes", "what should S = 0 leave?")
    added = background + streaks[..., None]
    for name, wrong in (("added", added), ("added and clipped", np.minimum(added, 1))):
        hint = "a streak must matter less the brighter the sky behind it already is"
        expect(not np.allclose(rainy, wrong), f"the light is {name}, not screened", hint)
    expect(rainy.min() >= 0 and rainy.max() <= 1, "values leave [0, 1]", "screen blending needs no clipping")
    brighter = np.asarray(attempt(background, np.minimum(streaks + 0.02, 1)))
    expect((brighter > rainy).all(), "more rain does not always make a pixel brighter", "no sign is wrong somewhere?")
    darkness = (1 - rainy) / (1 - background)
    even = np.allclose(darkness, darkness[..., :1])
    expect(even, "the three channels lose different shares of their darkness", "streaks are white")
    hint = "write down how much darkness, 1 - value, each of the two leaves on its own"
    expect(np.allclose(darkness[..., 0], 1 - streaks), "this is no screen blend", hint)


@checker
def psnr_y(attempt: Callable[[np.ndarray, np.ndarray], float], rng: np.random.Generator) -> None:
    """attempt(x (H, W, 3), clean (H, W, 3)) -> dB on MATLAB's Y; RGB in [0, 1], x may leave that range."""
    clean = rng.uniform(0.2, 0.8, (24, 20, 3))
    x = np.clip(clean + rng.normal(0, [0.05, 0.09, 0.14], clean.shape), 0, 1)
    found, true = float(attempt(x.copy(), clean.copy())), _psnr(x, clean, "y")
    full = np.array(LUMA) / sum(LUMA)  # weights of a luma that spans 0..255
    wrong = {
        "full-range Y: exactly 1.32 dB too low": _noise_db((x - clean) @ full),
        "the PSNR of RGB, not of Y": _psnr(x, clean, "rgb"),
        "Y of BGR: the channels are swapped": _psnr(x[..., ::-1], clean[..., ::-1], "y"),
        "the plain mean of the channels, no luma": _noise_db((x - clean).mean(-1)),
    }
    hints = {"full-range": "between which two values does MATLAB's Y lie?"}
    for message, value in wrong.items():
        hint = next((text for key, text in hints.items() if message.startswith(key)), "look at the weights of Y")
        expect(abs(found - value) > 1e-3 or abs(value - true) < 2e-3, message, hint)
    expect(abs(found - true) < 1e-3, f"{found:.3f} dB, expected another value", "mean of squares, then the logarithm")
    wild = x + rng.choice([-1.5, 1.5], x.shape) * (rng.uniform(size=x.shape) < 0.1)
    clamped = abs(float(attempt(wild.copy(), clean.copy())) - _psnr(wild, clean, "y")) < 1e-3
    expect(clamped, "values outside [0, 1] are scored as they are", "a viewer cannot show a brightness of 1.5")


@checker
def split_by_scene(
    attempt: Callable[[Sequence[tuple[str, str]], float, int], tuple[list, list]], rng: np.random.Generator
) -> None:
    """attempt(pairs of (rainy file, scene), share, seed) -> (training pairs, validation pairs)."""
    scenes = [f"scene-{n}" for n in rng.permutation(100)[:40]]
    pairs = [(f"{scene}_rain{k}.png", scene) for scene in scenes for k in range(int(rng.integers(2, 6)))]
    pairs = [pairs[k] for k in rng.permutation(len(pairs))]
    train, val = attempt(list(pairs), 0.25, int(rng.integers(1000)))
    train, val = list(train), list(val)
    expect(
        sorted([*train, *val]) == sorted(pairs), "pairs were lost, doubled or changed", "every pair goes to one side"
    )
    expect(train and val, "one side is empty")
    leak = sorted({scene for _, scene in train} & {scene for _, scene in val})
    shown = ", ".join(leak[:3])
    hint = "the network would be judged on backgrounds it has seen: draw among what, pictures or scenes?"
    expect(not leak, f"{len(leak)} of 40 scenes stand on both sides ({shown}, ...)", hint)
    share = len({scene for _, scene in val}) / 40
    expect(abs(share - 0.25) < 0.03, f"{share:.0%} of the scenes are for validation, 25 % were asked for")
    again, _ = attempt(list(pairs), 0.25, 7)
    same, _ = attempt(list(pairs), 0.25, 7)
    expect(sorted(again) == sorted(same), "the same seed gives another split", "use a generator of your own")
    other, _ = attempt(list(pairs), 0.25, 8)
    expect(sorted(again) != sorted(other), "two seeds give one split", "shuffle with the seed")


def _psnr(x: np.ndarray, y: np.ndarray, convention: str) -> float:
    first, second = (torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None] for image in (x, y))
    return float(psnr(first, second, convention))


def _noise_db(difference: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean(np.square(difference))))
