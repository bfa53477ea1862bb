"""Decoded scenes kept for the next epoch, so that training does not wait for PNG decoding."""

import os
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from manas_lite.data.pictures import check_seal
from manas_lite.data.scenes import Scene

__all__ = ["Cache", "MemoryCache", "NoCache", "open_cache"]

MEMORY_LIMIT = 2 << 30


class Cache(Protocol):
    """Gives decoded scenes: whatever it keeps, it must honour the seal."""

    def read(self, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
        """As `Scene.read`: rainy uint8 (R, H, W, 3), clean uint8 (H, W, 3). Not to be written to."""

    def size(self, scene: Scene) -> tuple[int, int]:
        """(height, width) of the scene, without decoding it."""


class NoCache:
    """Decodes every time."""

    def read(self, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
        return scene.read()

    def size(self, scene: Scene) -> tuple[int, int]:
        return scene.clean.size()


class MemoryCache(NoCache):
    """Keeps decoded scenes until `limit` bytes are reached, and decodes the rest every time."""

    def __init__(self, limit: int = MEMORY_LIMIT) -> None:
        self.limit, self.used = limit, 0
        self._kept: dict[Scene, tuple[np.ndarray, np.ndarray]] = {}

    def read(self, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
        if scene in self._kept:
            for file in scene.files():
                check_seal(file)
            return self._kept[scene]
        rainy, clean = scene.read()
        if self.used + rainy.nbytes + clean.nbytes <= self.limit:
            self.used += rainy.nbytes + clean.nbytes
            self._kept[scene] = rainy, clean
        return rainy, clean


def open_cache(cache: "Cache | str | os.PathLike[str] | None", scenes: Sequence[Scene]) -> Cache:
    """The cache that `scene_loader`'s argument names."""
    if cache is None:
        return NoCache()
    if cache == "memory":
        return MemoryCache()
    if isinstance(cache, str | os.PathLike):
        raise ValueError(f"cache must be 'memory', None or a Cache, got {cache!r}")
    return cache
