"""Decoded scenes kept for the next epoch, so that training does not wait for PNG decoding.

`MemoryCache` keeps them in this process. `DiskCache` keeps each scene's bytes in a file that is memory-mapped: a crop
reads the pages it covers, processes share them, and the system drops them when memory is short, so that sets larger
than the memory cost no more of it. It needs the disk space of the decoded pictures (Rain100L's training set, 200
pairs: 185 MB).
"""

import hashlib
import math
import os
import warnings
from pathlib import Path

import numpy as np

from manas_lite import rain
from manas_lite.data.listing import DataWarning
from manas_lite.data.pictures import RainyPicture, check_seal
from manas_lite.data.scenes import Scene
from manas_lite.runs.checkpoint import clear_leftovers, write_atomic


class Cache:
    """The base of all caches: it decodes every time. Whatever a cache keeps, it must honour the seal."""

    def read(self, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
        """Return rainy uint8 (R, H, W, 3) and clean uint8 (H, W, 3), like `Scene.read`. They are not written to."""
        return scene.read()


class MemoryCache(Cache):
    """A cache that keeps decoded scenes until `limit` bytes are reached, and decodes the rest every time."""

    def __init__(self, limit: int = 2 << 30) -> None:
        self.limit, self.used = limit, 0
        self._kept: dict[Scene, tuple[np.ndarray, np.ndarray]] = {}

    def read(self, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
        """Return rainy uint8 (R, H, W, 3) and clean uint8 (H, W, 3)."""
        if scene in self._kept:
            _check_scene(scene)
            return self._kept[scene]
        rainy, clean = scene.read()
        if self.used + rainy.nbytes + clean.nbytes <= self.limit:
            self.used += rainy.nbytes + clean.nbytes
            self._kept[scene] = rainy, clean
        return rainy, clean


class DiskCache(Cache):
    """A cache below a folder: one file per scene, named after what its pictures are and when they changed.

    Several processes may share a folder: files are written aside and renamed. When the disk is full, a DataWarning
    says so and the rest is decoded every time.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        clear_leftovers(self.folder)
        self._full = False
        self._files: dict[Scene, tuple[Path, tuple[int, ...]]] = {}

    def read(self, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
        """Return rainy uint8 (R, H, W, 3) and clean uint8 (H, W, 3), memory-mapped."""
        _check_scene(scene)
        if scene not in self._files:
            shape: tuple[int, ...] = (len(scene.rainy) + 1, *scene.clean.size(), 3)
            self._files[scene] = self.folder / f"{scene_digest(scene)}.rgb", shape
        path, shape = self._files[scene]
        if not path.exists() or path.stat().st_size != math.prod(shape):  # not there yet, or damaged
            rainy, clean = scene.read()
            self._write(path, np.concatenate([rainy, clean[None]]))
            return rainy, clean
        stack = np.memmap(path, np.uint8, "r", shape=shape)
        return stack[:-1], stack[-1]

    def _write(self, path: Path, stack: np.ndarray) -> None:
        if self._full:
            return
        try:
            write_atomic(path, stack.reshape(-1).data)
        except OSError as error:
            self._full = True
            message = f"the cache {self.folder} cannot grow ({error}); what is not in it is decoded every time"
            warnings.warn(message, DataWarning, stacklevel=2)


def open_cache(cache: Cache | str | os.PathLike[str] | None) -> Cache:
    """Return the cache that `scene_loader`'s argument names: "memory", None for none, or a folder."""
    if cache is None:
        return Cache()
    if cache == "memory":
        return MemoryCache()
    return DiskCache(cache) if isinstance(cache, str | os.PathLike) else cache


def scene_digest(scene: Scene) -> str:
    """Return a hex digest of what decides a scene's pixels: files, their sizes and times, halves, synthetic rain."""
    digest = hashlib.sha256()
    for picture in (scene.clean, *scene.rainy):
        digest.update(f"{picture}\0".encode())
        for file in picture.files():
            status = file.stat()
            digest.update(f"{file.absolute()}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
        if isinstance(picture, RainyPicture):
            digest.update(f"rain {rain.VERSION}\0".encode())
    return digest.hexdigest()[:40]


def _check_scene(scene: Scene) -> None:
    for file in scene.files():
        check_seal(file)
