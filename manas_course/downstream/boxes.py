"""Photographs with the boxes of their objects, and detections: one form for both, in COCO's categories."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from manas_course.downstream import ASSETS
from manas_lite.data import Picture, open_split

_NAMES = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,,stop sign,parking meter,"
    "bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,,backpack,umbrella,,,handbag,tie,suitcase,frisbee,"
    "skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,,wine glass,"
    "cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,"
    "potted plant,bed,,dining table,,,toilet,,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,"
    "refrigerator,,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
)

CATEGORIES: dict[int, str] = {number: name for number, name in enumerate(_NAMES.split(","), start=1) if name}
"""COCO's 80 categories by their ids, 1 to 90 with gaps. YOLO counts them 0 to 79, in the same order."""


@dataclass(frozen=True)
class Boxes:
    """N boxes of one picture."""

    corners: np.ndarray
    """Left, top, right and bottom in pixels, (N, 4)."""
    labels: np.ndarray
    """Category ids, (N,)."""
    scores: np.ndarray
    """Scores in [0, 1], (N,); 1 for true objects."""

    def __post_init__(self) -> None:
        corners = np.asarray(self.corners, np.float64).reshape(-1, 4)
        labels, scores = np.asarray(self.labels, np.int64).ravel(), np.asarray(self.scores, np.float64).ravel()
        if not len(corners) == len(labels) == len(scores):
            raise ValueError(f"{len(corners)} boxes, {len(labels)} labels and {len(scores)} scores: give one of each")
        if (corners[:, 2:] < corners[:, :2]).any():
            raise ValueError("a box ends before it begins: corners are left, top, right, bottom")
        for name, value in (("corners", corners), ("labels", labels), ("scores", scores)):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.labels)

    def above(self, score: float) -> "Boxes":
        """Return the boxes that have at least this score."""
        return self[self.scores >= score]

    def __getitem__(self, chosen: np.ndarray) -> "Boxes":
        return Boxes(self.corners[chosen], self.labels[chosen], self.scores[chosen])


@dataclass(frozen=True)
class AnnotatedPhoto:
    """A clean photograph and the objects on it."""

    name: str
    picture: Picture
    relative: np.ndarray
    """YOLO's rows, (N, 5): class, then centre x, centre y, width and height as shares of the picture."""
    part: str | None = None
    """Train, val or test of the bundled split; None for other photographs."""

    def truth(self) -> Boxes:
        """Return the true boxes, in pixels of the picture."""
        height, width = self.picture.size()
        x, y, w, h = self.relative[:, 1:].T * np.array([width, height, width, height])[:, None]
        ids = np.array(list(CATEGORIES))[self.relative[:, 0].astype(int)]
        return Boxes(np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=1), ids, np.ones(len(ids)))


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the intersection over union of every box of (N, 4) with every one of (M, 4): (N, M) in [0, 1].

    Example:
        >>> iou(np.array([[0, 0, 2, 2]]), np.array([[1, 0, 3, 2], [5, 5, 6, 6]])).round(3).tolist()
        [[0.333, 0.0]]
    """
    a, b = np.reshape(first, (-1, 1, 4)).astype(float), np.reshape(second, (1, -1, 4)).astype(float)
    sides = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None)
    shared = sides.prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def open_boxes(folder: Path) -> tuple[AnnotatedPhoto, ...]:
    """Return the photographs of `folder/images` with the YOLO boxes of `folder/labels`, by name.

    A line of NAME.txt is `class x y width height`: the class from 0 to 79, then the centre and the size as shares of
    the picture. A photograph without such a file has no object.

    Raises:
        FileNotFoundError: a folder is missing.
        ValueError: there is no picture, or a line is no box; the line is named.
    """
    pictures, labels = folder / "images", folder / "labels"
    for needed in (pictures, labels):
        if not needed.is_dir():
            raise FileNotFoundError(f"{needed}: no such folder; a set of boxes has images/ and labels/ (YOLO's layout)")
    files = sorted(p for p in pictures.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not files:
        raise ValueError(f"{pictures} holds no .jpg or .png picture")
    return tuple(AnnotatedPhoto(p.stem, Picture(p), _yolo_rows(labels / f"{p.stem}.txt")) for p in files)


def bundled_boxes() -> tuple[AnnotatedPhoto, ...]:
    """Return the 26 bundled photographs from COCO, with COCO's boxes (CC BY 4.0) and their part of "photos"."""
    split = open_split("photos")
    return tuple(
        AnnotatedPhoto(scene.name, scene.clean, _yolo_rows(ASSETS / "boxes" / f"{scene.name}.txt"), part)
        for part, scenes in (("train", split.train), ("val", split.val), ("test", split.test))
        for scene in scenes
        if scene.name.startswith("coco_")
    )


def _yolo_rows(path: Path) -> np.ndarray:
    """Return class and box of each line, (N, 5); none for a missing file."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.exists() else (), start=1):
        if not line.strip():
            continue
        try:
            row = [float(word) for word in line.split()]
            good = len(row) == 5 and row[0] in range(len(CATEGORIES)) and all(0 <= x <= 1 for x in row[1:])
        except ValueError:
            good = False
        if not good:
            raise ValueError(f"{path}, line {number}: {line!r} is no `class x y width height` (0-79, then shares)")
        rows.append(row)
    return np.array(rows).reshape(-1, 5)
