"""What a detector sees on photographs: clean, under synthetic rain, and derained. Kept in a file, where asked to."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from torch import nn

from manas_lite.compute.runtime import ComputeSettings
from manas_lite.data import Picture
from manas_lite.data.pictures import rain_over
from manas_lite.data.scenes import rain_seed
from manas_lite.downstream.boxes import AnnotatedPhoto, Boxes
from manas_lite.downstream.detection import Detector
from manas_lite.metrics import psnr
from manas_lite.photos.images import to_tensor
from manas_lite.photos.inference import derain
from manas_lite.runs.checkpoint import write_atomic
from manas_lite.runs.progress import Progress

__all__ = ["LEVELS", "SHIPPED", "Key", "Sighting", "Versions", "load_sightings", "look", "save_sightings"]

LEVELS = ("light", "medium", "heavy")
SHIPPED = Path(__file__).resolve().parents[1] / "assets" / "downstream" / "sightings.json"
"""COCO-SSD on the six bundled test photographs, derained by `rain-any`."""

Key = tuple[str, str, str]
"""A photograph's name, a level of rain, and a version: ("street", "heavy", "derained"), ("street", "none", "clean")."""


@dataclass(frozen=True)
class Sighting:
    """The detections on a picture, and how near the picture is to the clean one (PSNR of RGB, dB)."""

    boxes: Boxes
    psnr_rgb: float


class Versions:
    """A clean picture under synthetic rain, and the same derained. The rain is that of the kit's test scenes: a
    function of the picture's name and the level. A hundred pictures are remembered, for tasks that share them."""

    def __init__(self, net: nn.Module, compute: ComputeSettings | None = None) -> None:
        self.derain: Callable[[np.ndarray], np.ndarray] = lambda picture: derain(picture, net, compute=compute)
        self.of = lru_cache(maxsize=100)(self._of)

    def _of(self, picture: Picture, name: str, level: str) -> dict[str, np.ndarray]:
        rainy = rain_over(picture.read(), level, rain_seed(0, name, level))
        return {"rainy": rainy, "derained": self.derain(rainy)}


def look(
    versions: Versions,
    photos: Sequence[AnnotatedPhoto],
    detector: Detector,
    *,
    levels: Sequence[str] = LEVELS,
    progress: bool = True,
) -> dict[Key, Sighting]:
    """Show the detector every photograph in every version."""
    seen = {}
    with Progress(len(photos) * len(levels), "detection", show=progress) as bar:
        for photo in photos:
            clean = photo.picture.read()
            seen[photo.name, "none", "clean"] = Sighting(detector(clean), float("inf"))
            for level in levels:
                for version, picture in versions.of(photo.picture, photo.name, level).items():
                    near = psnr(to_tensor(picture)[None], to_tensor(clean)[None], "rgb")[0]
                    seen[photo.name, level, version] = Sighting(detector(picture), float(near))
                bar.step()
    return seen


def save_sightings(path: Path, seen: Mapping[Key, Sighting]) -> None:
    """As JSON; corners to a tenth of a pixel, scores to a ten-thousandth."""
    held = {}
    for key, sighting in seen.items():
        boxes = sighting.boxes
        columns = boxes.labels, boxes.scores.round(4), *boxes.corners.round(1).T
        rows = [[int(row[0]), *map(float, row[1:])] for row in zip(*columns, strict=True)]
        held["|".join(key)] = {"psnr_rgb": round(sighting.psnr_rgb, 3), "label, score, corners": rows}
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in held.items())
    write_atomic(path, f"{{\n{lines}\n}}\n".encode())


def load_sightings(path: Path = SHIPPED) -> dict[Key, Sighting]:
    """What `save_sightings` wrote; ValueError for anything else."""
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        seen = {}
        for key, value in held.items():
            name, level, version = key.split("|")
            table = np.array(value["label, score, corners"], float).reshape(-1, 6)
            seen[name, level, version] = Sighting(Boxes(table[:, 2:], table[:, 0], table[:, 1]), value["psnr_rgb"])
    except (ValueError, AttributeError, KeyError, TypeError) as error:  # JSON's own error is a ValueError
        raise ValueError(f"{path} holds no sightings ({error}): make it anew by save_sightings") from None
    return seen
