"""From pairs to scenes: by the names a set gives its backgrounds, or by perceptual hash where it has none."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
from PIL import Image

from manas_lite.data.listing import Listing, Pair
from manas_lite.data.matching import natural
from manas_lite.data.pictures import Picture
from manas_lite.data.scenes import Scene
from manas_lite.data.similarity import clusters, signatures, similar_pairs

Parts = dict[str | None, tuple[Scene, ...]]
"""Scenes by part: "train", "val", "test", or None where the set does not say."""

ALIGNED_PSNR = 35.0
"""Clean pictures of one background at least this close, in dB, are one picture up to JPEG noise."""

LARGEST_ERROR = 255**2 / 10 ** (ALIGNED_PSNR / 10)  # the same as a mean squared error


def group_scenes(listing: Listing, by: str = "auto") -> Parts:
    """Return the scenes of the pairs of a listing.

    A scene has one clean picture: pairs of a background are merged only where their clean pictures are the same up
    to JPEG noise, the others become scenes of the same name.

    Args:
        by: "name" groups pairs whose background has one name. "hash" then also gives backgrounds that look alike (the
            same picture, a crop, a stronger JPEG) one name, so that no split separates them. "auto" takes "name" where
            the set names its backgrounds (`listing.named`), else "hash".
    """
    if by not in ("auto", "name", "hash"):
        raise ValueError(f"scenes are grouped by 'auto', 'name' or 'hash', got {by!r}")
    named: dict[tuple[str | None, str], list[Pair]] = {}
    for pair in listing.pairs:
        named.setdefault((pair.part, pair.background), []).append(pair)
    parts: dict[str | None, list[Scene]] = {}
    for (part, background), pairs in sorted(named.items(), key=lambda item: natural(item[0][1])):
        parts.setdefault(part, []).extend(_aligned([Scene(background, p.clean, (p.rainy,), (p.label,)) for p in pairs]))
    if by == "hash" or (by == "auto" and not listing.named):
        return {part: _merged(scenes) for part, scenes in parts.items()}
    return {part: tuple(scenes) for part, scenes in parts.items()}


def without_leaks(train: Sequence[Scene], *others: Sequence[Scene]) -> tuple[tuple[Scene, ...], int]:
    """Return the scenes whose background is in no other part (by perceptual hash), and the number left out."""
    held = [scene for part in others for scene in part]
    if not held or not train:
        return tuple(train), 0
    links = similar_pairs(signatures([s.clean for s in train]), signatures([s.clean for s in held]))
    leaking = {i for i, _, _ in links}
    return tuple(scene for i, scene in enumerate(train) if i not in leaking), len(leaking)


def backgrounds_of(scenes: Sequence[Scene]) -> dict[str, str]:
    """Map each scene's name to the first, by alphabet, of the names whose scenes look alike (by perceptual hash)."""
    names = sorted({scene.name for scene in scenes})
    number = {name: k for k, name in enumerate(names)}
    links = [(number[scenes[i].name], number[scenes[j].name]) for i, j in _alike(scenes)]
    return {names[k]: names[group[0]] for group in clusters(len(names), links) for k in group}


def _merged(scenes: Sequence[Scene]) -> tuple[Scene, ...]:
    links, first = _alike(scenes), dict[str, int]()
    links += [(first.setdefault(scene.name, i), i) for i, scene in enumerate(scenes)]
    merged = []
    for group in clusters(len(scenes), links):
        merged += _aligned([replace(scenes[i], name=scenes[group[0]].name) for i in group])
    return tuple(merged)


def _alike(scenes: Sequence[Scene]) -> list[tuple[int, int]]:
    """Return the places of every two scenes that look alike."""
    hashes = signatures([scene.clean for scene in scenes])
    return [(i, j) for i, j, _ in similar_pairs(hashes, hashes) if i < j]


def _aligned(scenes: Sequence[Scene]) -> list[Scene]:
    """Merge those scenes of one background whose clean pictures are one."""
    kept: list[Scene] = []
    home: dict[Picture, int] = {}  # clean picture -> which of `kept` it belongs to
    small = cache(_thumbnail)
    for scene in scenes:
        k = home.get(scene.clean)
        if k is None:
            same = (k for k, other in enumerate(kept) if _one_picture(other.clean, scene.clean, small))
            k = home[scene.clean] = next(same, len(kept))
        if k == len(kept):
            kept.append(scene)
        else:
            rainy, labels = kept[k].rainy + scene.rainy, kept[k].labels + scene.labels
            kept[k] = replace(kept[k], rainy=rainy, labels=labels)
    return kept


def _one_picture(a: Picture, b: Picture, small: Callable[[Picture], tuple[tuple[int, ...], np.ndarray]]) -> bool:
    (shape, thumbnail), (other_shape, other_thumbnail) = small(a), small(b)
    if shape != other_shape:
        return False
    # Averaging only shrinks differences (twice: for its rounding). Most frames of a clip need no second decoding.
    if _error(thumbnail, other_thumbnail) > 2 * LARGEST_ERROR:
        return False
    return _error(a.read(), b.read()) <= LARGEST_ERROR


def _thumbnail(picture: Picture) -> tuple[tuple[int, ...], np.ndarray]:
    """Return the shape of a picture, and its averages over 32 x 32 cells."""
    image = picture.read()
    small = Image.fromarray(np.ascontiguousarray(image)).resize((32, 32), Image.Resampling.BOX)
    return image.shape, np.asarray(small)


def _error(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean((a.astype(np.float32) - b.astype(np.float32)) ** 2))
