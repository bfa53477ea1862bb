"""Checkers about scenes: which pictures belong together, in a split and in a batch."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from manas_course.checks.base import checker, expect

__all__ = ["pairing", "split_by_scene"]

Split = Callable[[Sequence[tuple[str, str]], float, int], tuple[list, list]]


@checker
def split_by_scene(attempt: Split, rng: np.random.Generator) -> None:
    """Check attempt(pairs of (rainy file, scene), share, seed) -> (training pairs, validation pairs)."""
    scenes = [f"scene-{n}" for n in rng.permutation(100)[:40]]
    pairs = [(f"{scene}_rain{k}.png", scene) for scene in scenes for k in range(int(rng.integers(2, 6)))]
    pairs = [pairs[k] for k in rng.permutation(len(pairs))]
    train, val = map(list, attempt(list(pairs), 0.25, int(rng.integers(1000))))
    kept = sorted([*train, *val]) == sorted(pairs)
    expect(kept, "pairs were lost, doubled or changed", "every pair goes to one side")
    expect(train and val, "one side is empty")
    leak = sorted({scene for _, scene in train} & {scene for _, scene in val})
    hint = "the network would be judged on backgrounds it has seen: draw among what, pictures or scenes?"
    expect(not leak, f"{len(leak)} of 40 scenes stand on both sides ({', '.join(leak[:3])}, ...)", hint)
    share = len({scene for _, scene in val}) / 40
    expect(abs(share - 0.25) < 0.03, f"{share:.0%} of the scenes are for validation, 25 % were asked for")
    again, repeated, other = (sorted(attempt(list(pairs), 0.25, seed)[0]) for seed in (7, 7, 8))
    expect(again == repeated, "the same seed gives another split", "use a generator of your own")
    expect(again != other, "two seeds give one split", "shuffle with the seed")


@checker
def pairing(attempt: Callable[[Tensor, int], Tensor], rng: np.random.Generator) -> None:
    """Check attempt(clean (B, 3, h, w), R) -> targets (B * R, 3, h, w) of outputs that lie scene by scene."""
    clean = torch.from_numpy(rng.uniform(size=(4, 3, 2, 2)))
    for rains in (1, 2, 3):
        found = attempt(clean.clone(), rains)
        expect(tuple(found.shape) == (4 * rains, 3, 2, 2), f"R = {rains}: shape {tuple(found.shape)}")
        true, tiled = clean.repeat_interleave(rains, dim=0), clean.repeat(rains, 1, 1, 1)
        right = sum(torch.equal(f, t) for f, t in zip(found, true, strict=True))
        message = f"the batch is repeated as a whole: {right} of {4 * rains} outputs meet their own target"
        hint = "the outputs' order is scene 0 rain 0, scene 0 rain 1, ..."
        expect(rains == 1 or not torch.equal(found, tiled), message, hint)
        expect(torch.equal(found, true), f"R = {rains}: {right} of {4 * rains} outputs meet their own target")
