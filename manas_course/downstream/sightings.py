"""One photograph in all its versions, clean, rainy and derained, and what a detector sees on each."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from torch import nn

from manas_course.downstream import ASSETS
from manas_course.downstream.boxes import AnnotatedPhoto, Boxes
from manas_course.downstream.detection import Detector
from manas_course.downstream.masks import MaskedPhoto
from manas_lite.compute.runtime import ComputeSettings
from manas_lite.data import Picture
from manas_lite.data.pictures import rain_over
from manas_lite.data.scenes import rain_seed
from manas_lite.metrics import psnr
from manas_lite.photos.images import to_tensor
from manas_lite.photos.inference import derain
from manas_lite.rain import LEVELS
from manas_lite.runs.checkpoint import write_atomic
from manas_lite.runs.progress import Progress

BUNDLED_SIGHTINGS = ASSETS / "sightings.json"
"""COCO-SSD on the six bundled test photographs, derained by `rain-any`."""

Key = tuple[str, str, str]
"""A photograph's name, a level of rain, and a version: ("street", "heavy", "derained"), ("street", "none", "clean")."""


@dataclass(frozen=True)
class Sighting:
    """What a detector sees on one picture."""

    boxes: Boxes
    psnr_rgb: float
    """How near the picture is to the clean one, in dB; infinite for the clean one itself."""


class Versions:
    """A clean picture under synthetic rain, and the same derained by one network.

    The rain is that of the kit's test scenes: a function of the picture's name and the level. A hundred pictures are
    remembered, for tasks that share them.
    """

    def __init__(self, net: nn.Module, compute: ComputeSettings | None = None) -> None:
        self.derain: Callable[[np.ndarray], np.ndarray] = lambda picture: derain(picture, net, compute=compute)
        self.of = lru_cache(maxsize=100)(self._of)

    def _of(self, picture: Picture, name: str, level: str) -> dict[str, np.ndarray]:
        rainy = rain_over(picture.read(), level, rain_seed(0, name, level))
        return {"rainy": rainy, "derained": self.derain(rainy)}

    def every(self, photo: AnnotatedPhoto | MaskedPhoto, levels: Sequence[str]) -> dict[tuple[str, str], np.ndarray]:
        """Return a photograph in every version by (level, version): ("none", "clean") first, then level by level."""
        pictures = {("none", "clean"): photo.picture.read()}
        for level in levels:
            for version, picture in self.of(photo.picture, photo.name, level).items():
                pictures[level, version] = picture
        return pictures


def look(
    versions: Versions,
    photos: Sequence[AnnotatedPhoto],
    detector: Detector,
    *,
    levels: Sequence[str] = tuple(LEVELS),
    progress: bool = True,
) -> dict[Key, Sighting]:
    """Show the detector every photograph in every version."""
    seen = {}
    with Progress(len(photos), "detection", show=progress) as bar:
        for photo in photos:
            pictures = versions.every(photo, levels)
            clean = to_tensor(pictures["none", "clean"])[None]
            for (level, version), picture in pictures.items():
                near = float("inf") if version == "clean" else float(psnr(to_tensor(picture)[None], clean, "rgb")[0])
                seen[photo.name, level, version] = Sighting(detector(picture), near)
            bar.step()
    return seen


def save_sightings(path: Path, seen: Mapping[Key, Sighting]) -> None:
    """Write sightings as JSON, with corners to a tenth of a pixel and scores to a ten-thousandth."""
    held = {}
    for key, sighting in seen.items():
        boxes = sighting.boxes
        columns = boxes.labels, boxes.scores.round(4), *boxes.corners.round(1).T
        rows = [[int(row[0]), *map(float, row[1:])] for row in zip(*columns, strict=True)]
        held["|".join(key)] = {"psnr_rgb": round(sighting.psnr_rgb, 3), "label, score, corners": rows}
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in held.items())
    write_atomic(path, f"{{\n{lines}\n}}\n".encode())


def load_sightings(path: Path = BUNDLED_SIGHTINGS) -> dict[Key, Sighting]:
    """Read what `save_sightings` wrote; raise ValueError for anything else."""
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        seen = {}
        for key, value in held.items():
            name, level, version = key.split("|")
            rows = np.array(value["label, score, corners"], float).reshape(-1, 6)
            seen[name, level, version] = Sighting(Boxes(rows[:, 2:], rows[:, 0], rows[:, 1]), value["psnr_rgb"])
    except (ValueError, AttributeError, KeyError, TypeError) as error:  # JSON's own error is a ValueError
        raise ValueError(f"{path} holds no sightings ({error}): make it anew by save_sightings") from None
    return seen
