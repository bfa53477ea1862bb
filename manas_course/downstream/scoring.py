"""How well detections fit: average precision against true boxes, consistency with what the clean picture shows.

Average precision is COCO's own (pycocotools). torchmetrics calls the same code, and needs torchvision for it.
Consistency takes the detections on the clean picture for true: it says whether rain changes what a detector sees, not
whether it sees right.
"""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from manas_course.downstream.boxes import CATEGORIES, Boxes, iou

THRESHOLD = 0.5
"""Score from which a detection counts for consistency, and IoU from which two boxes are one object."""


class AveragePrecision:
    """COCO's evaluation of detections on pictures, also on a resample of these.

    Sizes of objects are not told apart. At most 100 detections count per picture.

    Args:
        truth: the true boxes, one `Boxes` per picture.
        found: the detections, in the same order.
    """

    def __init__(self, truth: Sequence[Boxes], found: Sequence[Boxes]) -> None:
        if len(truth) != len(found):
            raise ValueError(f"{len(truth)} pictures with true boxes, {len(found)} with detections: give both of each")
        if not any(len(boxes) for boxes in truth):
            raise ValueError("no picture has a true box: average precision is not defined")
        try:
            from pycocotools.cocoeval import COCOeval
        except ModuleNotFoundError:
            raise ModuleNotFoundError("scores need an extra: pip install 'manas_lite[downstream]'") from None
        self.count = len(truth)
        with contextlib.redirect_stdout(io.StringIO()):  # it prints as it goes
            self.evaluation = COCOeval(_coco(truth), _coco(found), "bbox")
            parameters = self.evaluation.params
            # Categories without a true box count nowhere: leaving them out is exact, and several times as quick.
            parameters.catIds = sorted({int(label) for boxes in truth for label in boxes.labels})
            parameters.areaRng, parameters.areaRngLbl, parameters.maxDets = [[0, 1e10]], ["all"], [100]
            self.evaluation.evaluate()
        self._results = list(self.evaluation.evalImgs)  # category by category, the pictures of each in order

    def ap(self, pictures: np.ndarray | None = None) -> dict[str, float]:
        """Return `ap50` (IoU 0.5) and `ap` (mean over IoU 0.5, 0.55, ... 0.95), means over the categories that occur.

        Args:
            pictures: their numbers, as many as there are, for a bootstrap resample; all of them by default.
        """
        results = np.array(self._results, dtype=object).reshape(-1, self.count)
        drawn = results if pictures is None else results[:, pictures]
        self.evaluation.evalImgs = list(drawn.ravel())
        with contextlib.redirect_stdout(io.StringIO()):
            self.evaluation.accumulate()
        precision = self.evaluation.eval["precision"][..., 0, 0]  # IoU thresholds, recall levels, categories
        return {"ap50": _mean(precision[0]), "ap": _mean(precision)}


def _mean(precision: np.ndarray) -> float:
    valid = precision[precision > -1]  # -1 stands for a category without a true box
    return float(valid.mean()) if valid.size else float("nan")


def _coco(pictures: Sequence[Boxes]) -> Any:
    from pycocotools.coco import COCO

    annotations: list[dict[str, Any]] = []
    for picture, boxes in enumerate(pictures, start=1):
        for (left, top, right, bottom), label, score in zip(boxes.corners, boxes.labels, boxes.scores, strict=True):
            width, height = right - left, bottom - top
            place = {"bbox": [left, top, width, height], "area": width * height, "score": float(score)}
            of = {"id": len(annotations) + 1, "image_id": picture, "category_id": int(label), "iscrowd": 0}
            annotations.append(of | place)
    coco = COCO()
    coco.dataset = {
        "images": [{"id": number} for number in range(1, len(pictures) + 1)],
        "categories": [{"id": number, "name": name} for number, name in CATEGORIES.items()],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco


@dataclass(frozen=True)
class Consistency:
    """What became of the detections on the clean version of one picture."""

    clean: int
    """Detections on the clean picture."""
    found: int
    """Detections on the other version."""
    matched: int
    """Detections that both have."""
    drop: tuple[float, ...]
    """Score lost, per clean detection: its own less that of the surest one in its place, or less 0 where none is.

    In its place means: of the same category, with an IoU of at least 0.5.
    """

    @staticmethod
    def recall(pictures: Sequence["Consistency"]) -> float:
        """Return the share of the clean pictures' detections that were found again; NaN without any."""
        return _ratio(sum(c.matched for c in pictures), sum(c.clean for c in pictures))

    @staticmethod
    def precision(pictures: Sequence["Consistency"]) -> float:
        """Return the share of the detections that the clean pictures have too; NaN without any."""
        return _ratio(sum(c.matched for c in pictures), sum(c.found for c in pictures))

    @staticmethod
    def confidence_drop(pictures: Sequence["Consistency"]) -> float:
        """Return the mean score lost, over all clean detections; NaN without any."""
        drops = [drop for c in pictures for drop in c.drop]
        return _ratio(sum(drops), len(drops))


def consistency(clean: Boxes, found: Boxes, score: float = THRESHOLD, overlap: float = THRESHOLD) -> Consistency:
    """Match the detections on one version of a picture with those on the clean one.

    Those of at least `score` are matched, the surest first, each with the one of the clean picture that it overlaps
    most (same category, IoU at least `overlap`) and that no surer one has taken.
    """
    reference, sure = clean.above(score), found.above(score)
    together = iou(sure.corners, reference.corners)
    together[sure.labels[:, None] != reference.labels[None]] = 0
    free = np.ones(len(reference), bool)
    for row in np.argsort(-sure.scores, kind="stable"):
        open_to_it = np.where(free, together[row], 0)
        if open_to_it.max(initial=0) >= overlap:
            free[open_to_it.argmax()] = False
    near = (iou(reference.corners, found.corners) >= overlap) & (reference.labels[:, None] == found.labels[None])
    best = np.where(near, found.scores[None], 0).max(1, initial=0)
    drop = tuple(float(value) for value in reference.scores - best)
    return Consistency(len(reference), len(sure), int((~free).sum()), drop)


def _ratio(part: float, whole: int) -> float:
    return part / whole if whole else float("nan")


def resamples(count: int, draws: int, seed: int = 0) -> np.ndarray:
    """Return (draws, count) picture numbers, each row drawn with replacement: a bootstrap over pictures."""
    if count < 1:
        raise ValueError("a bootstrap needs at least one picture")
    return np.random.default_rng(seed).integers(count, size=(draws, count))


def interval(samples: Sequence[float] | np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval of what a measure gave on the resamples; those where it was NaN are left out.

    It tells how much hangs on the choice of pictures; not on the training of the network, nor on the rain's seed.
    """
    values = np.asarray(samples, np.float64)
    values = values[np.isfinite(values)]
    if not values.size:
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
