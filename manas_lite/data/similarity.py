"""A perceptual hash of pictures: which show the same background, whatever the JPEG quality, rain or small crop.

A picture becomes a 24 x 24 grey thumbnail, band-passed and divided by its local contrast, as a unit vector of
576 numbers; the similarity of two is their dot product. (This kit's choice. On Rain100L, Rain800, Kodak, COCO
and CamVid pictures, different ones reach at most 0.40; the same one stays above 0.74 after a crop of up to 16
pixels a side, and above 0.69 under Rain100H's heavy rain.)
"""

import os
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
from PIL import Image
from tqdm import tqdm

from manas_lite.data.pictures import Picture, check_seal

SAME = 0.65
"""Similarity from which two pictures count as one background."""

_SIDE = 24
_BLOCK = 2048  # rows compared at a time: 2048 x 13,711 floats are 112 MB


def signature(image: np.ndarray) -> np.ndarray:
    """Return the hash of a picture uint8 (H, W, 3): float32 (576,) of length 1, or zeros where it has no structure."""
    from scipy.ndimage import gaussian_filter  # a quarter of a second, which only comparing pictures should cost

    grey = Image.fromarray(np.ascontiguousarray(image)).convert("L")
    thumbnail = np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float32)
    band = gaussian_filter(thumbnail, 0.7) - gaussian_filter(thumbnail, 2.0)
    contrast = np.sqrt(gaussian_filter(band * band, 3.0))
    vector = (band / (contrast + 2.0)).ravel()  # 2 grey levels: noise in a flat sky is no structure
    vector -= vector.mean()
    length = float(np.linalg.norm(vector))
    return vector / length if length > 1.0 else np.zeros_like(vector)


def signatures(pictures: Sequence[Picture], progress: bool | None = None) -> np.ndarray:
    """Return the hashes of n pictures, float32 (n, 576); each file is decoded once per process, until it changes."""
    rows = []
    for picture in tqdm(pictures, desc="comparing pictures", disable=hide_bar(len(pictures), progress)):
        check_seal(picture.path)  # a hash kept from before the seal would tell of a sealed picture too
        status = os.stat(picture.path)
        rows.append(_kept_signature(picture, status.st_mtime_ns, status.st_size))
    return np.stack(rows) if rows else np.zeros((0, _SIDE * _SIDE), np.float32)


def hide_bar(count: int, progress: bool | None) -> bool:
    """Tell whether a bar over this many pictures is hidden; None for `progress` shows it from 500 pictures on."""
    return count < 500 if progress is None else not progress


def similar_pairs(a: np.ndarray, b: np.ndarray, threshold: float = SAME) -> list[tuple[int, int, float]]:
    """Return (row of a, row of b, similarity) of every pair of hashes at or above the threshold, best first."""
    found = []
    for start in range(0, len(a), _BLOCK):
        scores = a[start : start + _BLOCK] @ b.T
        for i, j in zip(*np.nonzero(scores >= threshold), strict=True):
            found.append((start + int(i), int(j), float(scores[i, j])))
    return sorted(found, key=lambda row: (-row[2], row[0], row[1]))


def clusters(count: int, links: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Divide 0..count-1 into the connected groups of `links`; return them by first member, each sorted."""
    parent = list(range(count))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, j in links:
        low, high = sorted((root(i), root(j)))
        parent[high] = low
    groups: dict[int, list[int]] = {}
    for i in range(count):
        groups.setdefault(root(i), []).append(i)
    return list(groups.values())


@lru_cache(maxsize=1 << 16)
def _kept_signature(picture: Picture, modified: int, size: int) -> np.ndarray:
    return signature(picture.read())
