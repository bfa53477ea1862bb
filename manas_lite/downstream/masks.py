"""Street frames with a class for every pixel: CamVid's layout, and the bundled photographs in coarse classes."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from manas_lite.data import Picture
from manas_lite.photos.images import ImageError, refusing

__all__ = ["CAMVID", "COARSE", "IGNORE", "MaskedPhoto", "MaskedSet", "bundled_masks", "open_camvid"]

IGNORE = 255
"""The class of pixels that count nowhere."""

CAMVID = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")
"""CamVid's eleven classes (G. Brostow et al., Pattern Recognition Letters 30(2), 2009); 11 is unlabelled."""

COARSE = ("person", "sky", "plants", "ground", "building", "vehicle", "other")
"""Classes of the bundled photographs: COCO's panoptic categories in seven groups, this kit's choice."""


@dataclass(frozen=True)
class MaskedPhoto:
    """A clean photograph and the class of each pixel. classes: how many there are."""

    name: str
    picture: Picture
    mask: Path
    classes: int

    def truth(self) -> np.ndarray:
        """uint8 (H, W): 0 ... classes - 1, or IGNORE. Raises ImageError for a mask that is none of this picture."""
        with refusing(self.mask), Image.open(self.mask) as image:
            if image.mode not in ("L", "P"):
                raise ImageError(f"{self.mask}: a mask holds one class number a pixel (8-bit grey), not {image.mode}")
            mask = np.array(image.convert("L") if _packed_grey(image) else image)
        if mask.shape != self.picture.size():
            size, own = self.picture.size(), mask.shape
            raise ImageError(f"{self.mask} is {own[1]}x{own[0]}, its picture {self.picture} {size[1]}x{size[0]}")
        return np.where(mask < self.classes, mask, IGNORE).astype(np.uint8)


@dataclass(frozen=True)
class MaskedSet:
    """Photographs to train a segmenter on, clean, and others to test it on. note: what the set can show."""

    name: str
    classes: tuple[str, ...]
    train: tuple[MaskedPhoto, ...]
    test: tuple[MaskedPhoto, ...]
    note: str = ""


def open_camvid(folder: Path) -> MaskedSet:
    """A folder with `train` and `trainannot` and, where there are some, `test` and `testannot` (`val` is left alone).

    Without test frames every fourth training frame becomes one. Raises FileNotFoundError for missing folders and
    frames without a mask.
    """
    train = _frames(folder, "train")
    if (folder / "test").is_dir():
        test, note = _frames(folder, "test"), f"{len(train)} frames to train on, CamVid's own test frames"
    else:
        train, test = tuple(f for i, f in enumerate(train) if i % 4 != 3), train[3::4]
        note = f"{len(train)} frames to train on: the pipeline runs, and nothing more is shown"
    if not train or not test:
        raise ValueError(f"{folder} holds too few frames: at least four, or a `test` folder, are needed")
    return MaskedSet("CamVid", CAMVID, train, test, note)


def bundled_masks() -> MaskedSet:
    """The bundled photographs from COCO, trained on and tested on in the parts that their index states."""
    assets = Path(__file__).resolve().parents[1] / "assets"
    parts: dict[str, list[MaskedPhoto]] = {"train": [], "val": [], "test": []}
    with open(assets / "photos" / "index.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            path = assets / "photos" / row["file"]
            if path.name.startswith("coco_"):
                mask = assets / "downstream" / "masks" / f"{path.stem}.png"
                parts[row["part"]].append(MaskedPhoto(path.stem, Picture(path), mask, len(COARSE)))
    train = (*parts["train"], *parts["val"])
    note = f"{len(train)} everyday photographs to train on: enough for a rough segmenter, not for a good one"
    return MaskedSet("bundled photographs", COARSE, train, tuple(parts["test"]), note)


def _packed_grey(image: Image.Image) -> bool:
    """Whether a palette stands for grey levels, as PNG optimisers pack them: then these are the classes. In a palette
    of colours the numbers are."""
    if image.mode != "P":
        return False
    palette = np.array(image.getpalette("RGB")).reshape(-1, 3)
    used = palette[np.unique(np.asarray(image))]
    return bool((used == used[:, :1]).all())


def _frames(folder: Path, part: str) -> tuple[MaskedPhoto, ...]:
    frames, masks = folder / part, folder / f"{part}annot"
    for needed in (frames, masks):
        if not needed.is_dir():
            raise FileNotFoundError(f"{needed}: no such folder; CamVid's layout has train/ and trainannot/")
    found = [MaskedPhoto(p.stem, Picture(p), masks / p.name, len(CAMVID)) for p in sorted(frames.glob("*.png"))]
    missing: Sequence[str] = [photo.name for photo in found if not photo.mask.is_file()]
    if missing:
        raise FileNotFoundError(f"{masks} holds no mask for {', '.join(missing[:3])} ({len(missing)} missing)")
    return tuple(found)
