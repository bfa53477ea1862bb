"""Small pictures and pairs for the tests of data: every seed another background, every rain number another rain."""

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from manas_lite.photos.images import write_image


def background(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A picture of soft blobs, uint8 (height, width, 3): every seed another background."""
    small = np.random.default_rng([seed, 77]).integers(20, 200, (7, 9, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def rain_on(clean: np.ndarray, seed: int) -> np.ndarray:
    """A few bright diagonal streaks over a picture."""
    rng = np.random.default_rng([seed, 78])
    rainy = clean.astype(np.int32)
    height, width = clean.shape[:2]
    for _ in range(12):
        y, x = int(rng.integers(height)), int(rng.integers(width))
        steps = np.arange(8)
        rainy[(y + steps) % height, (x + steps // 3) % width] += 60
    return rainy.clip(0, 255).astype(np.uint8)


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_image(path, array)


def save_pair(rainy: Path, clean: Path, seed: int, rain: int = 0) -> None:
    """One background to `clean`, the same under rain to `rainy`."""
    picture = background(seed)
    if not clean.exists():
        save(clean, picture)
    save(rainy, rain_on(picture, 1000 * seed + rain))


def save_halves(path: Path, seed: int, rain: int = 0, order: str = "clean-left") -> None:
    """Both in one file, side by side."""
    clean = background(seed)
    halves = [clean, rain_on(clean, 1000 * seed + rain)]
    save(path, np.concatenate(halves if order == "clean-left" else halves[::-1], axis=1))


def zipped(files: dict[str, bytes]) -> bytes:
    """A zip file of these members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()
