"""Photographs with a class for every pixel: CamVid's layout, and the bundled photographs in coarse classes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from manas_course.downstream import ASSETS
from manas_lite.data import Picture, open_split
from manas_lite.photos.images import ImageError, opened

IGNORE = 255
"""The class of pixels that count nowhere."""

CAMVID = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")
"""CamVid's eleven classes (G. Brostow et al., Pattern Recognition Letters 30(2), 2009); 11 is unlabelled."""

COARSE = ("person", "sky", "plants", "ground", "building", "vehicle", "other")
"""Classes of the bundled photographs: COCO's panoptic categories in seven groups, this kit's choice."""

BUNDLED = "bundled photographs"


@dataclass(frozen=True)
class MaskedPhoto:
    """A clean photograph and the class of each of its pixels."""

    name: str
    picture: Picture
    mask: Path
    classes: int
    """How many classes there are."""

    def truth(self) -> np.ndarray:
        """Return the classes, uint8 (H, W): 0 to classes - 1, or IGNORE.

        Raises:
            ImageError: the mask cannot be read, or is not of this picture.
        """
        with opened(self.mask) as image:
            if image.mode not in ("L", "P"):
                raise ImageError(f"{self.mask}: a mask holds one class number a pixel (8-bit grey), not {image.mode}")
            mask = np.array(image.convert("L") if _packed_grey(image) else image)
        if mask.shape != self.picture.size():
            size, own = self.picture.size(), mask.shape
            raise ImageError(f"{self.mask} is {own[1]}x{own[0]}, its picture {self.picture} {size[1]}x{size[0]}")
        return np.where(mask < self.classes, mask, IGNORE).astype(np.uint8)


@dataclass(frozen=True)
class MaskedSet:
    """Clean photographs to train a segmenter on, and others to test it on."""

    name: str
    classes: tuple[str, ...]
    train: tuple[MaskedPhoto, ...]
    test: tuple[MaskedPhoto, ...]
    note: str = ""
    """What the set can show."""


def open_camvid(folder: Path) -> MaskedSet:
    """Open a folder with `train` and `trainannot` and, where there are some, `test` and `testannot`.

    `val` is left alone. Without test frames, every fourth training frame becomes one.

    Raises:
        FileNotFoundError: a folder, or the mask of a frame, is missing.
        ValueError: there are too few frames.
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
    """Return the bundled photographs from COCO; what "photos" trains or validates on is trained on here."""
    split = open_split("photos")
    train, test = (
        tuple(
            MaskedPhoto(scene.name, scene.clean, ASSETS / "masks" / f"{scene.name}.png", len(COARSE))
            for scene in scenes
            if scene.name.startswith("coco_")
        )
        for scenes in (split.train + split.val, split.test)
    )
    note = f"{len(train)} everyday photographs to train on: enough for a rough segmenter, not for a good one"
    return MaskedSet(BUNDLED, COARSE, train, test, note)


def _packed_grey(image: Image.Image) -> bool:
    """Return whether a palette stands for grey levels, as PNG optimisers pack them.

    Then the levels are the classes. With a palette of colours, the numbers of the palette are.
    """
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
    missing = [photo.name for photo in found if not photo.mask.is_file()]
    if missing:
        raise FileNotFoundError(f"{masks} holds no mask for {', '.join(missing[:3])} ({len(missing)} missing)")
    return tuple(found)
