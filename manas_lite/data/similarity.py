"""A perceptual hash of pictures: which show the same background, whatever the JPEG quality, rain or small
crop.

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
from scipy.ndimage import gaussian_filter
from tqdm import tqdm

from manas_lite.data.pictures import Picture, check_seal

__all__ = ["SAME", "clusters", "signature", "signatures", "similar_pairs"]

SAME = 0.65
"""Similarity from which two pictures count as one background."""

_SIDE = 24
_BLOCK = 2048  # rows compared at a time: 2048 x 13,711 floats are 112 MB


def signature(image: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) -> float32 (576,), of length 1; all zeros for a picture without any structure."""
    grey = Image.fromarray(np.ascontiguousarray(image)).convert("L")
    thumbnail = np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float32)
    band = gaussian_filter(thumbnail, 0.7) - gaussian_filter(thumbnail, 2.0)
    contrast = np.sqrt(gaussian_filter(band * band, 3.0))
    vector = (band / (contrast + 2.0)).ravel()  # 2 grey levels: noise in a flat sky is no structure
    vector -= vector.mean()
    length = float(np.linalg.norm(vector))
    return vector / length if length > 1.0 else np.zeros_like(vector)


def signatures(pictures: Sequence[Picture], progress: bool | None = None) -> np.ndarray:
    """float32 (n, 576). Each file is decoded once a process, until it changes; a bar from 500 pictures on."""
    hidden = len(pictures) < 500 if progress is None else not progress
    rows = [_of_file(p, *_stamp(p)) for p in tqdm(pictures, desc="comparing pictures", disable=hidden)]
    return np.stack(rows) if rows else np.zeros((0, _SIDE * _SIDE), np.float32)


def similar_pairs(a: np.ndarray, b: np.ndarray, threshold: float = SAME) -> list[tuple[int, int, float]]:
    """(row of a, row of b, similarity) of every pair at or above the threshold, best first."""
    found = []
    for start in range(0, len(a), _BLOCK):
        scores = a[start : start + _BLOCK] @ b.T
        for i, j in zip(*np.nonzero(scores >= threshold), strict=True):
            found.append((start + int(i), int(j), float(scores[i, j])))
    return sorted(found, key=lambda row: (-row[2], row[0], row[1]))


def clusters(count: int, links: Iterable[tuple[int, int]]) -> list[list[int]]:
    """0..count-1 divided into the connected groups of `links`, each sorted, by first member."""
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


def _stamp(picture: Picture) -> tuple[int, int]:
    status = os.stat(picture.path)
    return status.st_mtime_ns, status.st_size


@lru_cache(maxsize=1 << 16)
def _cached(picture: Picture, modified: int, size: int) -> np.ndarray:
    return signature(picture.read())


def _of_file(picture: Picture, modified: int, size: int) -> np.ndarray:
    check_seal(picture.path)  # a hash kept from before the seal would tell of a sealed picture too
    return _cached(picture, modified, size)
