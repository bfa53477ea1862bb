"""Scenes: one clean picture and R >= 1 rainy versions of it. Source: method section 5."""

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from manas_lite.data.pictures import AnyPicture, Picture, RainyPicture, sealing
from manas_lite.photos.images import ImageError


@dataclass(frozen=True)
class Scene:
    """One background: a clean picture and R >= 1 rainy versions of it."""

    name: str
    """Identifies the background: scenes of one name never stand in two parts of a split."""
    clean: Picture
    rainy: tuple[AnyPicture, ...]
    labels: tuple[str, ...]
    """One per rainy version: a level of rain, or a file's stem."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "rainy", tuple(self.rainy))
        object.__setattr__(self, "labels", tuple(self.labels))
        if not self.rainy:
            raise ValueError(f"scene {self.name!r} has no rainy picture; a scene needs R >= 1")
        if len(self.rainy) != len(self.labels):
            raise ValueError(f"scene {self.name!r} has {len(self.rainy)} rainy pictures and {len(self.labels)} labels")

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """Return rainy uint8 (R, H, W, 3) and clean uint8 (H, W, 3); raise ImageError where sizes differ."""
        clean = self.clean.read()
        versions = []
        for picture in self.rainy:
            if isinstance(picture, RainyPicture) and picture.clean == self.clean:
                version = picture.render(clean)  # rain over this very background need not decode it again
            else:
                version = picture.read()
            if version.shape != clean.shape:
                (rainy_height, rainy_width), (height, width) = version.shape[:2], clean.shape[:2]
                raise ImageError(
                    f"scene {self.name!r}: {picture} is {rainy_width}x{rainy_height} but its clean picture "
                    f"{self.clean} is {width}x{height}; a pair must have one size, so check that both belong together"
                )
            versions.append(version)
        return np.stack(versions), clean

    def files(self) -> tuple[Path, ...]:
        """Return every file that reading this scene opens, each once."""
        return tuple(dict.fromkeys(file for p in (self.clean, *self.rainy) for file in p.files()))


def sealed(scenes: Iterable[Scene]) -> AbstractContextManager[None]:
    """Let reading any file of these scenes raise LeakError inside the block, in DataLoader workers too.

    Either half of a file counts, and so does another path to it (a link, or a relative one).
    """
    return sealing(file for scene in scenes for file in scene.files())


def one_to_one(scenes: Iterable[Scene]) -> tuple[Scene, ...]:
    """Return one scene with R = 1 per rainy picture (the `multi_to_one=False` arm); names stay."""
    return tuple(
        replace(scene, rainy=(picture,), labels=(label,))
        for scene in scenes
        for picture, label in zip(scene.rainy, scene.labels, strict=True)
    )


def with_extra_rain(scenes: Iterable[Scene], levels: Sequence[str | float], seed: int) -> tuple[Scene, ...]:
    """Return the scenes with synthetic versions of their clean pictures appended, one per level. Source: method 5."""
    return tuple(
        replace(
            scene,
            rainy=scene.rainy + tuple(RainyPicture(scene.clean, x, rain_seed(seed, scene.name, x)) for x in levels),
            labels=scene.labels + tuple(str(x) for x in levels),
        )
        for scene in scenes
    )


def rain_seed(seed: int, name: str, level: str | float) -> int:
    """Return a seed in 0..2^32-1 for one level of rain over one scene, wherever the scene stands in a list."""
    return int.from_bytes(hashlib.sha256(f"{seed}|{name}|{level}".encode()).digest()[:4], "big")
