"""Batches of scenes that are a pure function of (seed, step): resuming needs nothing of the loader saved.

Draw d = step * batch + i takes the scene at position d mod n of the permutation of epoch d // n, and its
crop, flips, quarter turns and choice of versions from a generator seeded by (seed, d). So the number of workers changes
nothing, and starting at another step is resuming.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from manas_lite.data.caching import Cache, open_cache
from manas_lite.data.pictures import adopt_seal, rain_over, sealed_files
from manas_lite.data.scenes import Scene


class SceneBatch(NamedTuple):
    """Patches of B scenes, each under R rains."""

    rainy: torch.Tensor
    """uint8 (B, R, 3, h, w)."""
    clean: torch.Tensor
    """uint8 (B, 3, h, w)."""
    index: torch.Tensor  # type: ignore[assignment]  # shadows tuple.index, which no batch needs
    """int64 (B,): places in the list of scenes."""

    def to(self, device: str | torch.device) -> "SceneBatch":
        """Return the batch on a device as float32 in [0, 1]; the bytes travel, the conversion happens there.

        To a GPU they travel from pinned memory, while the caller goes on.
        """
        pinned = torch.device(device).type == "cuda"
        there = [(part.pin_memory() if pinned else part).to(device, non_blocking=True) for part in self]
        return SceneBatch(*(part.float().div_(255) if part.dtype == torch.uint8 else part for part in there))


def scene_loader(
    scenes: Iterable[Scene],
    *,
    batch: int,
    patch: int,
    seed: int,
    steps: int,
    start: int = 0,
    share: tuple[int, int] | None = None,
    rains: int | None = None,
    symmetries: int = 8,
    fresh_rain: Sequence[str | float] = (),
    workers: int = 0,
    cache: Cache | str | os.PathLike[str] | None = "memory",
) -> "SceneLoader":
    """Return the batches of steps start .. steps-1, each `batch` random patches of `patch` x `patch` pixels.

    All versions of a scene and its clean picture share the crop.

    Args:
        batch: patches per step.
        patch: side of a patch in pixels.
        seed: draws scenes, crops, turns and versions.
        steps: one past the last step.
        start: first step.
        share: (first, one past last) of the scenes of each batch that are read here; None: all of them.
        rains: versions drawn per scene, without replacement and in their own order. None takes the smallest R among
            the scenes; 0 takes none of them, for `fresh_rain` alone.
        symmetries: of the eight symmetries of the square, how many a patch is turned by, alike in all versions: all,
            4 (flips, no quarter turns), 2 (left and right exchanged) or 1 (none). Method section 5 says cropped and
            flipped; the quarter turns are this kit's choice, and make the rain of half the patches horizontal.
        fresh_rain: levels of rain synthesised anew over each crop and appended, so that a batch holds
            R = rains + len(fresh_rain) versions.
        cache: "memory" keeps decoded scenes up to 2 GiB in each process, None decodes every time, a folder keeps
            them decoded on disk (see `manas_lite.data.caching`).

    Raises:
        ValueError: there are too few versions, or a picture is smaller than the patch; the message names the scene.
    """
    scenes = tuple(scenes)
    for name, value, least in (("batch", batch, 1), ("patch", patch, 1), ("start", start, 0), ("workers", workers, 0)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if not scenes:
        raise ValueError("no scenes to load: the list is empty")
    if symmetries not in _SYMMETRIES:
        raise ValueError(f"symmetries is {symmetries!r}: a square has 8, of which 4, 2 or 1 can be asked for")
    first, end = share or (0, batch)
    draws: list[Any] = [range(step * batch + first, step * batch + end) for step in range(start, steps)]
    dataset = PatchDataset(scenes, patch, seed, rains, symmetries, tuple(fresh_rain), open_cache(cache))
    return SceneLoader(
        dataset,
        batch_sampler=draws,
        collate_fn=collate,
        num_workers=workers,
        generator=torch.Generator().manual_seed(seed),  # else each epoch reads the global random state
    )


class SceneLoader(DataLoader):
    """A DataLoader of `SceneBatch` whose workers take over the seal that holds where iteration starts."""

    def __iter__(self) -> Any:
        self.worker_init_fn = partial(adopt_seal, sealed_files())
        return super().__iter__()


@dataclass(eq=False, repr=False)
class PatchDataset(Dataset):
    """A data set whose item d is draw d: rainy uint8 (R, h, w, 3), clean uint8 (h, w, 3) and the scene's index."""

    scenes: tuple[Scene, ...]
    patch: int
    seed: int
    rains: int | None
    symmetries: int
    fresh_rain: tuple[str | float, ...]
    cache: Cache

    def __post_init__(self) -> None:
        fewest = min(self.scenes, key=lambda scene: len(scene.rainy))
        self.rains = len(fewest.rainy) if self.rains is None else self.rains
        if self.rains > len(fewest.rainy):
            raise ValueError(
                f"rains={self.rains}, but scene {fewest.name!r} has {len(fewest.rainy)} rainy version(s); "
                "lower `rains`, or give fresh_rain levels such as ('light', 'heavy')"
            )
        if self.rains < 0 or self.rains + len(self.fresh_rain) < 1:
            raise ValueError(
                f"a batch needs at least one rainy version, got rains={self.rains} and no fresh_rain levels"
            )
        for scene in self.scenes:
            height, width = scene.clean.size()
            if min(height, width) < self.patch:
                raise ValueError(
                    f"scene {scene.name!r} ({scene.clean}) is {width}x{height} pixels, smaller than a "
                    f"patch of {self.patch}; lower `patch` to {min(height, width)}, or leave the scene out"
                )

    def __getitem__(self, draw: int) -> tuple[np.ndarray, np.ndarray, int]:
        epoch, position = divmod(draw, len(self.scenes))
        index = int(permutation(self.seed, epoch, len(self.scenes))[position])
        rainy, clean = self.cache.read(self.scenes[index])
        rng = np.random.default_rng([self.seed, draw])
        kept = np.sort(rng.choice(len(rainy), self.rains, replace=False))
        height, width = clean.shape[:2]
        top = int(rng.integers(height - self.patch + 1))
        left = int(rng.integers(width - self.patch + 1))
        crop = np.s_[top : top + self.patch, left : left + self.patch]
        clean = np.array(clean[crop])
        versions = [rainy[i][crop] for i in kept]
        versions += [rain_over(clean, level, int(rng.integers(2**32))) for level in self.fresh_rain]
        stack = np.stack(versions)
        flip_rows, flip_columns, turns = rng.integers([2, 2, 4]) * _SYMMETRIES[self.symmetries]
        stack, clean = (_turn(image, flip_rows, flip_columns, turns) for image in (stack, clean))
        return stack, clean, index


_SYMMETRIES = {8: (1, 1, 1), 4: (1, 1, 0), 2: (0, 1, 0), 1: (0, 0, 0)}
"""Number of symmetries -> whether rows are flipped, columns are, and quarter turns are made."""


@lru_cache(maxsize=8)
def permutation(seed: int, epoch: int, n: int) -> np.ndarray:
    """Return the order of n scenes in an epoch."""
    # The third word keeps this stream of numbers apart from those of the draws.
    return np.random.default_rng([seed, epoch, 1]).permutation(n)


def collate(items: list[tuple[np.ndarray, np.ndarray, int]]) -> SceneBatch:
    """Stack items, channels first."""
    rainy, clean, index = zip(*items, strict=True)
    return SceneBatch(
        rainy=torch.from_numpy(np.ascontiguousarray(np.moveaxis(np.stack(rainy), -1, -3))),
        clean=torch.from_numpy(np.ascontiguousarray(np.moveaxis(np.stack(clean), -1, -3))),
        index=torch.tensor(index),
    )


def _turn(image: np.ndarray, flip_rows: int, flip_columns: int, turns: int) -> np.ndarray:
    """Flip and turn (..., h, w, 3) by quarters: the eight symmetries of a square."""
    if flip_rows:
        image = np.flip(image, -3)
    if flip_columns:
        image = np.flip(image, -2)
    return np.rot90(image, turns, axes=(-3, -2))
