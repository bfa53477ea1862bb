"""A perceptual hash of pictures: which show the same background, whatever the JPEG quality, rain or small crop.

A picture becomes a 24 x 24 grey thumbnail, band-passed and divided by its local contrast, as a unit vector of
576 numbers; the similarity of two is their dot product. (This kit's choice. On Rain100L, Rain800, Kodak, COCO
and CamVid pictures, different ones reach at most 0.40; the same one stays above 0.74 after a crop of up to 16
pixels a side, and above 0.69 under Rain100H's heavy rain.)
"""

import os
import sqlite3
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from manas_lite.data.listing import DataWarning
from manas_lite.data.pictures import Picture, check_seal
from manas_lite.photos.images import ImageError

SAME = 0.65
"""Similarity from which two pictures count as one background."""

_SIDE = 24
_BLOCK = 2048  # rows compared at a time: 2048 x 13,711 floats are 112 MB


def signature(image: np.ndarray, side: int = _SIDE) -> np.ndarray:
    """Return the hash of a picture uint8 (H, W, 3): float32 (576,) of length 1, or zeros where it has no structure.

    With `side`, it is of a thumbnail of that side, and has side * side numbers.
    """
    from scipy.ndimage import gaussian_filter  # a quarter of a second, which only comparing pictures should cost

    small = thumbnail(image, side)
    band = gaussian_filter(small, 0.7) - gaussian_filter(small, 2.0)
    contrast = np.sqrt(gaussian_filter(band * band, 3.0))
    vector = (band / (contrast + 2.0)).ravel()  # 2 grey levels: noise in a flat sky is no structure
    vector -= vector.mean()
    length = float(np.linalg.norm(vector))
    return vector / length if length > 1.0 else np.zeros_like(vector)


def thumbnail(image: np.ndarray, side: int) -> np.ndarray:
    """Return a picture uint8 (H, W, 3) in grey and small: float32 (side, side)."""
    grey = Image.fromarray(np.ascontiguousarray(image)).convert("L")
    return np.asarray(grey.resize((side, side), Image.Resampling.BOX), np.float32)


class Looks(NamedTuple):
    """What is kept of n pictures."""

    hashes: np.ndarray
    """float32 (n, 576), each of length 1; zeros where a picture has no structure, or could not be read."""
    sizes: np.ndarray
    """int64 (n, 2): height and width in pixels; zeros where a picture could not be read."""


def looks(pictures: Sequence[Picture], progress: bool | None = None, strict: bool = True) -> Looks:
    """Return hashes and sizes of n pictures.

    Each file is decoded once, until its size or its time of change differs: what was seen is kept in `cache_file`.

    Args:
        progress: show a bar; None shows it from 500 pictures on.
        strict: True raises ImageError or OSError for a picture that cannot be read. False leaves its rows zero.
    """

    def see(image: np.ndarray) -> list[float]:
        return [*image.shape[:2], *signature(image)]

    rows = remembered("", [(picture,) for picture in pictures], see, 2 + _SIDE * _SIDE, progress, strict)
    return Looks(rows[:, 2:], rows[:, :2].astype(np.int64))  # exact: no side has 2^24 pixels


def remembered(
    kind: str,
    groups: Sequence[tuple[Picture, ...]],
    see: Callable[..., Sequence[float]],
    size: int,
    progress: bool | None = None,
    strict: bool = False,
) -> np.ndarray:
    """Return what `see` says of the images of each group of pictures, float32 (n, size), asked once and kept as `kind`.

    A group with a picture that cannot be read is a row of zeros; with `strict`, ImageError or OSError. See `looks`.
    """
    rows, keys = np.zeros((len(groups), size), np.float32), []
    for group in groups:
        files, stamps = [], []
        for picture in group:
            check_seal(picture.path)  # what was kept from before the seal would tell of a sealed picture too
            status = os.stat(picture.path) if strict or picture.path.exists() else None
            stamps.append(f"{status.st_mtime_ns} {status.st_size}" if status else "")
            file = os.fsencode(os.path.abspath(picture.path)).decode(errors="backslashreplace")  # it may be no text
            files.append(f"{file}#{picture.half}")
        keys.append((kind + "|".join(files), " ".join(stamps)))
    known = _ask("SELECT look FROM looks_1 WHERE file = ? AND stamp = ?", keys)
    new: dict[int, tuple[str, str, bytes]] = {}
    place = {key: i for i, key in enumerate(keys)}  # one clean picture may stand under many rains
    missing = [i for key, i in place.items() if not known[i]]
    try:
        for i in tqdm(missing, desc="comparing pictures", disable=hide_bar(len(missing), progress)):
            try:
                images = [picture.read() for picture in groups[i]]
            except (ImageError, OSError):
                if strict:
                    raise
                continue
            rows[i] = see(*images)
            new[i] = (*keys[i], rows[i].tobytes())
    finally:  # also after Ctrl-C
        _ask("INSERT OR REPLACE INTO looks_1 VALUES (?, ?, ?)", list(new.values()))
    for i, found in enumerate(known):
        rows[i] = np.frombuffer(found[0], np.float32) if found else rows[place[keys[i]]]
    return rows


def signatures(pictures: Sequence[Picture], progress: bool | None = None) -> np.ndarray:
    """Return the hashes of n pictures, float32 (n, 576); see `looks`."""
    return looks(pictures, progress).hashes


def cache_file() -> Path:
    """Return the file that hashes are kept in: in $MANAS_LITE_CACHE, or .cache/manas_lite in the home folder."""
    return Path(os.environ.get("MANAS_LITE_CACHE") or Path.home() / ".cache" / "manas_lite") / "looks.sqlite"


def _ask(statement: str, rows: Sequence[tuple[object, ...]]) -> list[Any]:
    """Run a statement once per row of values in `cache_file`, and return the first answer of each, or None.

    Where the file cannot be used, a DataWarning says so.
    """
    if not rows:
        return []
    try:
        cache_file().parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(cache_file(), timeout=30)) as base, base:
            base.execute("CREATE TABLE IF NOT EXISTS looks_1 (file TEXT PRIMARY KEY, stamp TEXT, look BLOB)")
            return [base.execute(statement, row).fetchone() for row in rows]
    except (sqlite3.Error, OSError) as error:
        message = f"{cache_file()} cannot be used ({error}): every picture is compared anew; set MANAS_LITE_CACHE"
        warnings.warn(message, DataWarning, stacklevel=3)
        return [None] * len(rows)


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


def nearest(hashes: np.ndarray, others: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return for each of n hashes the row of the most similar of `others`, int64 (n,), and the similarity, (n,).

    Without `others`, it is the most similar other one of `hashes`.
    """
    rows, best = np.arange(len(hashes)), np.zeros((2, len(hashes)))
    for block in np.split(rows, range(_BLOCK, len(rows), _BLOCK)):
        scores = hashes[block] @ (hashes if others is None else others).T
        if others is None:
            scores[block - block[:1], block] = -1
        best[:, block] = scores.argmax(1), scores.max(1)
    return best[0].astype(np.int64), best[1]


def clusters(count: int, links: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Divide 0..count-1 into the connected groups of `links`; return them by first member, each sorted."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    ends = np.array([*links], int).reshape(-1, 2)
    _, group_of = connected_components(coo_matrix((np.ones(len(ends)), ends.T), (count, count)), directed=False)
    groups: dict[int, list[int]] = {}
    for i, group in enumerate(group_of.tolist()):
        groups.setdefault(group, []).append(i)
    return list(groups.values())
