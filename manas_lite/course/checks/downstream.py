"""Checkers on what others make of derained pictures: boxes that overlap, detections matched, classes averaged."""

from collections.abc import Callable
from typing import Any

import numpy as np

from manas_lite.course.checks.base import checker, expect
from manas_lite.downstream.boxes import Boxes, iou
from manas_lite.downstream.scoring import consistency

__all__ = ["box_iou", "consistent", "mean_iou"]

Box = np.ndarray


def _boxes(rng: np.random.Generator, count: int, side: float = 100) -> np.ndarray:
    corners = rng.uniform(0, side, (count, 2))
    return np.concatenate([corners, corners + rng.uniform(5, side / 2, (count, 2))], axis=1)


@checker
def box_iou(attempt: Callable[[Box, Box], float], rng: np.random.Generator) -> None:
    """attempt(a, b), each (left, top, right, bottom) -> intersection over union."""
    far = np.array([0.0, 0, 10, 10]), np.array([20.0, 30, 35, 40])
    expect(
        abs(float(attempt(*far))) < 1e-9,
        f"boxes that do not touch overlap by {float(attempt(*far)):.2f}",
        "a width below zero is no width; two of them multiply to something positive",
    )
    for _ in range(10):
        a, b = _boxes(rng, 2)
        b = a + rng.uniform(-5, 5, 4) if rng.random() < 0.7 else b
        truth, found = float(iou(a, b)[0, 0]), float(attempt(a, b))
        shared = np.prod(np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None))
        sizes = [np.prod(x[2:] - x[:2]) for x in (a, b)]
        if abs(found - truth) < 1e-6:
            continue
        expect(abs(found - shared / sum(sizes)) > 1e-6, "the intersection is counted twice below the line", "a or b")
        expect(abs(found - shared / min(sizes)) > 1e-6, "that is the share of the smaller box", "what is the union?")
        expect(False, f"two boxes: {found:.3f}, but it is {truth:.3f}", "area of both, over area of either")


@checker
def consistent(attempt: Callable[[Any, Any], int], rng: np.random.Generator) -> None:
    """attempt(clean, found): lists of (box, label, score), scores of at least 0.5 -> how many of `clean` were found."""
    answers: list[int] = []
    truths: list[int] = []
    told: dict[str, list[int]] = {"twice": [], "label": [], "all": []}
    for _ in range(12):
        places = 40 * np.arange(4)[:, None] + _spot(rng, 4)
        clean = [(place, int(rng.integers(1, 3)), float(rng.uniform(0.5, 1))) for place in places]
        found = []
        for box, label, _score in clean:
            for _again in range(int(rng.integers(0, 3))):
                changed = label if rng.random() < 0.7 else 3 - label
                found.append((box + rng.uniform(-1, 1, 4), changed, float(rng.uniform(0.5, 1))))
        answers.append(int(attempt(list(clean), list(found))))
        truths.append(consistency(_as_boxes(clean), _as_boxes(found)).matched)
        near = [[f for f in found if iou(c[0], f[0])[0, 0] >= 0.5] for c in clean]
        told["twice"].append(sum(c[1] == f[1] for c, each in zip(clean, near, strict=True) for f in each))
        told["label"].append(sum(bool(each) for each in near))
        told["all"].append(len(found))
    wrong = next((k for k, (a, t) in enumerate(zip(answers, truths, strict=True)) if a != t), None)
    if wrong is None:
        return
    said = f"{answers[wrong]} of {truths[wrong]}"
    expect(answers != told["twice"], f"one object, found twice, counts twice: {said}", "each is found or is not")
    hint = "compare the labels too"
    expect(answers != told["label"], f"a car found where a person stood is not found again: {said}", hint)
    expect(answers != told["all"], f"every detection counts, wherever it lies: {said}", "overlap by at least half")
    hint = "for each of `clean`: is there one like it in `found`?"
    expect(False, f"{answers[wrong]} found again, but it is {truths[wrong]}", hint)


def _spot(rng: np.random.Generator, count: int) -> np.ndarray:
    """Boxes of about 30 pixels, apart from one another once shifted by 40."""
    return np.array([0.0, 0, 30, 30]) + rng.uniform(0, 3, (count, 1))


def _as_boxes(rows: list[tuple[Any, int, float]]) -> Boxes:
    return Boxes(
        np.array([r[0] for r in rows]).reshape(-1, 4), np.array([r[1] for r in rows]), np.array([r[2] for r in rows])
    )


@checker
def mean_iou(attempt: Callable[[np.ndarray], float], rng: np.random.Generator) -> None:
    """attempt(matrix), row: true class, column: predicted -> mean over classes of intersection over union."""
    for trial in range(8):
        matrix = rng.integers(0, 50, (4, 4)) + 60 * np.eye(4, dtype=int)
        if trial % 2:
            matrix[3] = matrix[:, 3] = 0  # a class that is nowhere
        hit = matrix.diagonal().astype(float)
        union = matrix.sum(0) + matrix.sum(1) - hit
        truth = float(np.mean(hit[union > 0] / union[union > 0]))
        found = float(attempt(matrix.copy()))
        if abs(found - truth) < 1e-6:
            continue
        expect(np.isfinite(found), "not finite where a class is neither true nor predicted", "leave such classes out")
        present = matrix.sum(1) > 0
        accuracies = {
            "that is the pixel accuracy": hit.sum() / matrix.sum(),
            "that is the mean accuracy: what is wrongly given to a class costs it nothing": np.mean(
                hit[present] / matrix.sum(1)[present]
            ),
            "the hits stand in the row sum and in the column sum, and are counted twice": np.mean(
                hit[union > 0] / (matrix.sum(0) + matrix.sum(1))[union > 0]
            ),
            "a class that is nowhere counts as nought": float(np.sum(hit[union > 0] / union[union > 0])) / 4,
        }
        for message, value in accuracies.items():
            expect(abs(found - value) > 1e-6, message, "hits, over all pixels that are or are called that class")
        expect(False, f"{found:.3f}, but it is {truth:.3f}", "what is the union of a class, in pixels?")
