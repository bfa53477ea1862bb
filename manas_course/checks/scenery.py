"""Checkers about scenes: which pictures belong together, in a split and in a batch."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from manas_course.checks.base import Attempt, Misconception, Wrong, checker, compare, expect, tensor

__all__ = ["pairing", "split_by_scene"]

Pairs = list[tuple[str, str]]


@checker
def split_by_scene(attempt: Attempt, rng: np.random.Generator) -> None:
    """Check attempt(pairs of (rainy file, scene), share, seed) -> (training pairs, validation pairs)."""
    many = _scenery(rng, [int(n) for n in rng.integers(2, 6, 40)])
    uneven = _scenery(rng, [6] * 8 + [1] * 32)  # a share of the pairs is another one than a share of the scenes
    shares = []
    for pairs, share, seed in [(many, 0.25, 1), (many, 0.1, 2), *((uneven, 0.25, seed) for seed in range(3, 8))]:
        train, val = _parts(attempt, pairs, share, seed)
        kept = sorted([*train, *val]) == sorted(pairs)
        expect(kept, "pairs were lost, doubled or changed", "every pair goes to one side")
        expect(train and val, "one side is empty")
        leak = sorted({scene for _, scene in train} & {scene for _, scene in val})
        hint = "the network would be judged on backgrounds it has seen: draw among what, pictures or scenes?"
        expect(not leak, f"{len(leak)} of 40 scenes stand on both sides ({', '.join(leak[:3])}, ...)", hint)
        shares.append((share, len({scene for _, scene in val}) / 40, len(val) / len(pairs), 6 / len(pairs)))
    swapped = all(abs(1 - share - scenes) < 1e-9 for share, scenes, _, _ in shares)
    expect(not swapped, "the two sides are swapped: `share` was asked for validation", "training comes first")
    of_pairs = all(abs(share - part) <= most for share, _, part, most in shares)  # as near as whole scenes allow
    wrong = [f"{scenes:.0%} of the scenes" for share, scenes, _, _ in shares if abs(share - scenes) > 1e-9]
    hint = "scenes have different numbers of pairs: count scenes"
    expect(not wrong or not of_pairs, "the share is one of the pairs, not of the scenes", hint)
    expect(not wrong, f"{', '.join(wrong[:1])} are for validation, another share was asked for", "of how many scenes?")
    again, repeated, other = (_parts(attempt, many, 0.25, seed)[0] for seed in (7, 7, 8))
    hint = "use a generator of your own, np.random.default_rng(seed)"
    expect(sorted(again) == sorted(repeated), "the same seed gives another split", hint)
    expect(sorted(again) != sorted(other), "two seeds give one split", "shuffle with the seed")
    hint = "sort the scenes first: a set of texts has another order each time Python starts"
    expect(_keeps_its_order(attempt, rng), "the same seed gives another split in another process", hint)


def _keeps_its_order(attempt: Attempt, rng: np.random.Generator) -> bool:
    """Return whether a split follows from names or places, and not from the order of a set.

    Other names in the same alphabetical order change no split that sorts or counts. The same pairs in another order
    change no split that looks at names alone. The order of a set depends on hashes: both change it.
    """
    pairs = _scenery(rng, [1] * 200)
    first = sorted(_parts(attempt, pairs, 0.25, 7)[0])
    renamed = _parts(attempt, [(f"a-{file}", f"a-{scene}") for file, scene in pairs], 0.25, 7)[0]
    if sorted((file[2:], scene[2:]) for file, scene in renamed) == first:
        return True
    turns = [[pairs[k] for k in rng.permutation(len(pairs))] for _ in range(8)]
    return all(sorted(_parts(attempt, turn, 0.25, 7)[0]) == first for turn in turns)


def _scenery(rng: np.random.Generator, sizes: Sequence[int]) -> Pairs:
    scenes = [f"scene-{n}" for n in rng.permutation(1000)[: len(sizes)]]
    pairs = [(f"{scene}_rain{k}.png", scene) for scene, size in zip(scenes, sizes, strict=True) for k in range(size)]
    return [pairs[k] for k in rng.permutation(len(pairs))]


def _parts(attempt: Attempt, pairs: Pairs, share: float, seed: int) -> tuple[Pairs, Pairs]:
    """Return the two sides that an attempt makes, each as a list of pairs of texts."""
    found = attempt(pairs, share, seed)
    try:
        train, val = ([(str(file), str(scene)) for file, scene in side] for side in found)
    except (TypeError, ValueError):
        message = "two lists of (rainy file, scene) are asked for: training pairs, then validation pairs"
        raise Misconception(message, "does each side hold pairs, not names or numbers?") from None
    return train, val


@checker
def pairing(attempt: Attempt, rng: np.random.Generator) -> None:
    """Check attempt(clean (B, 3, h, w), R) -> targets (B * R, 3, h, w) of outputs that lie scene by scene."""
    clean = torch.from_numpy(rng.uniform(size=(4, 3, 2, 2)))
    cases = {
        f"R = {rains}, {len(part)} scenes": (part, rains)
        for rains in (1, 2, 3, 4)
        for part in (clean, clean[:3], clean[:1])
    }
    hint = "the outputs' order is scene 0 rain 0, scene 0 rain 1, ..."
    wrong = [
        Wrong(
            "the batch is repeated as a whole: outputs meet another scene's target",
            lambda c, r: c.repeat(r, 1, 1, 1),
            hint,
        ),
        Wrong("the scenes come in reverse", lambda c, r: c.flip(0).repeat_interleave(r, 0), hint),
        Wrong("every output meets the first scene", lambda c, r: c[:1].repeat(len(c) * r, 1, 1, 1), hint),
        Wrong(
            "the mean of the scenes is the target of all",
            lambda c, r: c.mean(0, True).repeat(len(c) * r, 1, 1, 1),
            hint,
        ),
    ]

    def targets(clean: Tensor, rains: int) -> Tensor:
        return torch.stack([scene for scene in clean for _ in range(rains)])

    for (label, args), expected in zip(cases.items(), (targets(*args) for args in cases.values()), strict=True):
        found = attempt(*args)
        shape = tuple(found.shape) if torch.is_tensor(found) else None
        message = f"{label}: shape {shape}, {tuple(expected.shape)} was asked for"
        expect(shape in (None, tuple(expected.shape)), message, "one target per output: B * R of them")
    compare(attempt, cases, targets, wrong, read=tensor, near=0, hint=hint)
