"""Pictures are anything with `.read()`: a file, half of a side-by-side file, or rain over another picture.

While a set of files is sealed, reading any of them raises `LeakError`: search and training run under a seal
of the test set.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from manas_lite import rain
from manas_lite.photos.images import ImageError, image_size, read_image
from manas_lite.runs.settings import LATER


class LeakError(RuntimeError):
    """A sealed file (the test set, as a rule) was about to be read."""


@dataclass(frozen=True, order=True)
class Picture:
    """An image file, or the left or right half of one that holds two pictures of equal width."""

    path: Path
    half: Literal["left", "right"] | None = field(default=None, metadata=LATER)  # left out of the JSON of whole files

    def __post_init__(self) -> None:
        if self.half not in (None, "left", "right"):
            raise ValueError(f"half must be None, 'left' or 'right', got {self.half!r}")
        object.__setattr__(self, "path", Path(self.path))

    def __str__(self) -> str:
        return f"{self.path}#{self.half}" if self.half else str(self.path)

    def read(self) -> np.ndarray:
        """Return uint8 (H, W, 3), RGB; raise LeakError under a seal, ImageError or FileNotFoundError for a bad file."""
        check_seal(self.path)
        image = read_image(self.path)
        if self.half is None:
            return image
        middle = self._half_width(image.shape[1])
        return image[:, :middle] if self.half == "left" else image[:, middle:]

    def size(self) -> tuple[int, int]:
        """Return (height, width) in pixels, from the header alone."""
        height, width = image_size(self.path)
        return (height, width) if self.half is None else (height, self._half_width(width))

    def files(self) -> tuple[Path, ...]:
        """Return the files that `read` opens."""
        return (self.path,)

    def _half_width(self, width: int) -> int:
        if width % 2:
            raise ImageError(f"{self.path}: width {width} is odd, so it does not hold two pictures of equal width")
        return width // 2


@dataclass(frozen=True)
class RainyPicture:
    """Synthetic rain of a level ('light', 'medium', 'heavy' or a number) over a clean picture, drawn by a seed."""

    clean: Picture
    level: str | float
    seed: int

    def __str__(self) -> str:
        return f"{self.clean} under {self.level} rain (seed {self.seed})"

    def read(self) -> np.ndarray:
        """Return uint8 (H, W, 3), RGB."""
        return self.render(self.clean.read())

    def render(self, clean: np.ndarray) -> np.ndarray:
        """Return uint8 (H, W, 3) from the clean picture already decoded."""
        return rain_over(clean, self.level, self.seed)

    def size(self) -> tuple[int, int]:
        """Return (height, width) in pixels."""
        return self.clean.size()

    def files(self) -> tuple[Path, ...]:
        """Return the files that `read` opens."""
        return self.clean.files()


AnyPicture = Picture | RainyPicture


def rain_over(clean: np.ndarray, level: str | float, seed: int) -> np.ndarray:
    """Return a picture under a level of rain, or under `wild` rain, as uint8 (H, W, 3): like a file would hold it."""
    rainy = rain.wild_rain(clean, seed) if level == "wild" else rain.add_rain(clean, level, seed)
    return np.rint(rainy * 255).clip(0, 255).astype(np.uint8)


# The seal is a context variable: nested seals add up, and nothing is left behind when a block ends.
_SEALED: ContextVar[frozenset[str]] = ContextVar("manas_lite_sealed_files", default=frozenset())


def sealed_files() -> frozenset[str]:
    """Return the resolved paths of the files sealed here and now."""
    return _SEALED.get()


@contextmanager
def sealing(files: Iterable[str | os.PathLike[str]]) -> Iterator[None]:
    """Let reading any of these files, by whatever path, raise LeakError inside the block."""
    token = _SEALED.set(_SEALED.get() | {_resolved(file) for file in files})
    try:
        yield
    finally:
        _SEALED.reset(token)


def adopt_seal(files: frozenset[str], *_: object) -> None:
    """Take over, in a worker process, the seal of the process that started it."""
    _SEALED.set(files)


def check_seal(path: str | os.PathLike[str]) -> None:
    """Raise LeakError when `path` is sealed."""
    sealed = _SEALED.get()
    if sealed and _resolved(path) in sealed:
        raise LeakError(
            f"{path} belongs to a sealed part of the data (the test set); "
            "search and training must not read it: take their scenes from split.train and split.val"
        )


def _resolved(path: str | os.PathLike[str]) -> str:
    return os.path.normcase(os.path.realpath(path))
