"""From pairs to scenes: by the names a set gives its backgrounds, or by perceptual hash where it has none."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from manas_lite.data.listing import Listing, Pair
from manas_lite.data.matching import natural
from manas_lite.data.scenes import Scene
from manas_lite.data.similarity import clusters, signatures, similar_pairs

__all__ = ["Parts", "group_scenes", "without_leaks"]

Parts = dict[str | None, tuple[Scene, ...]]
"""Scenes by part: "train", "val", "test", or None where the set does not say."""

ALIGNED_PSNR = 35.0
"""Clean pictures of one background at least this close, in dB, are one picture up to JPEG noise."""


def group_scenes(listing: Listing, by: str = "auto") -> Parts:
    """Scenes of the pairs of a listing.

    by: "name" groups pairs whose background has one name; "hash" then also merges scenes whose clean pictures
      are the same up to JPEG noise, and gives near-duplicates (a crop, a stronger JPEG) one name, so that no
      split separates them; "auto" takes "name" where the set names its backgrounds (`listing.named`), else
      "hash".
    """
    if by not in ("auto", "name", "hash"):
        raise ValueError(f"scenes are grouped by 'auto', 'name' or 'hash', got {by!r}")
    named: dict[tuple[str | None, str], list[Pair]] = {}
    for pair in listing.pairs:
        named.setdefault((pair.part, pair.background), []).append(pair)
    parts: dict[str | None, list[Scene]] = {}
    for (part, background), pairs in sorted(named.items(), key=lambda item: natural(item[0][1])):
        rainy, labels = tuple(p.rainy for p in pairs), tuple(p.label for p in pairs)
        parts.setdefault(part, []).append(Scene(background, pairs[0].clean, rainy, labels))
    if by == "hash" or (by == "auto" and not listing.named):
        return {part: _merged(scenes) for part, scenes in parts.items()}
    return {part: tuple(scenes) for part, scenes in parts.items()}


def without_leaks(train: Sequence[Scene], *others: Sequence[Scene]) -> tuple[tuple[Scene, ...], int]:
    """Training scenes whose background is in no other part (by perceptual hash), and the number left out."""
    held = [scene for part in others for scene in part]
    if not held or not train:
        return tuple(train), 0
    links = similar_pairs(signatures([s.clean for s in train]), signatures([s.clean for s in held]))
    leaking = {i for i, _, _ in links}
    return tuple(scene for i, scene in enumerate(train) if i not in leaking), len(leaking)


def _merged(scenes: Sequence[Scene]) -> tuple[Scene, ...]:
    hashes = signatures([scene.clean for scene in scenes])
    links = [(i, j) for i, j, _ in similar_pairs(hashes, hashes) if i < j]
    merged = []
    for group in clusters(len(scenes), links):
        name = scenes[group[0]].name
        aligned: list[Scene] = []
        for scene in (scenes[i] for i in group):
            for k, kept in enumerate(aligned):
                if _one_picture(kept, scene):
                    both = replace(kept, rainy=kept.rainy + scene.rainy, labels=kept.labels + scene.labels)
                    aligned[k] = both
                    break
            else:
                aligned.append(replace(scene, name=name))
        merged += aligned
    return tuple(merged)


def _one_picture(a: Scene, b: Scene) -> bool:
    if a.clean.size() != b.clean.size():
        return False
    error = np.mean((a.clean.read().astype(np.float32) - b.clean.read().astype(np.float32)) ** 2)
    return bool(error <= 255**2 / 10 ** (ALIGNED_PSNR / 10))
