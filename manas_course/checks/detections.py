"""Checkers on what others make of derained pictures: boxes that overlap, detections matched, classes averaged."""

from collections.abc import Callable
from typing import Any

import numpy as np

from manas_course.checks.base import checker, expect, rule_out, same
from manas_course.downstream.boxes import Boxes, iou
from manas_course.downstream.scoring import consistency

__all__ = ["box_iou", "consistent", "mean_iou"]

Box = np.ndarray


@checker
def box_iou(attempt: Callable[[Box, Box], float], rng: np.random.Generator) -> None:
    """Check attempt(a, b), each (left, top, right, bottom) -> intersection over union."""
    apart = float(attempt(np.array([0.0, 0, 10, 10]), np.array([20.0, 30, 35, 40])))
    hint = "a width below zero is no width; two of them multiply to something positive"
    expect(abs(apart) < 1e-9, f"boxes that do not touch overlap by {apart:.2f}", hint)
    for _ in range(10):
        corners = rng.uniform(0, 100, (2, 2))
        a, b = np.concatenate([corners, corners + rng.uniform(5, 50, (2, 2))], axis=1)
        b = a + rng.uniform(-5, 5, 4) if rng.random() < 0.7 else b
        truth, found = float(iou(a, b)[0, 0]), float(attempt(a, b))
        shared = np.prod(np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None))
        sizes = [np.prod(x[2:] - x[:2]) for x in (a, b)]
        wrong = {
            "the intersection is counted twice below the line": shared / sum(sizes),
            "that is the share of the smaller box": shared / min(sizes),
        }
        rule_out(found, wrong, truth, "what is the union?")
        expect(same(found, truth), f"{found:.3f}, but it is {truth:.3f}", "area of both, over area of either")


@checker
def consistent(attempt: Callable[[Any, Any], int], rng: np.random.Generator) -> None:
    """Check attempt(clean, found), lists of (box, label, score of at least 0.5) -> how many of `clean` were found."""
    trials: list[tuple[int, ...]] = []
    for _ in range(12):
        # Boxes of 30 pixels, 40 apart.
        places = 40 * np.arange(4)[:, None] + np.array([0.0, 0, 30, 30]) + rng.uniform(0, 3, (4, 1))
        clean = [(place, int(rng.integers(1, 3)), float(rng.uniform(0.5, 1))) for place in places]
        found = []
        for box, label, _score in clean:
            for _again in range(int(rng.integers(0, 3))):
                changed = label if rng.random() < 0.7 else 3 - label
                found.append((box + rng.uniform(-1, 1, 4), changed, float(rng.uniform(0.5, 1))))
        near = [[f for f in found if iou(c[0], f[0])[0, 0] >= 0.5] for c in clean]
        twice = sum(c[1] == f[1] for c, each in zip(clean, near, strict=True) for f in each)
        true = consistency(_as_boxes(clean), _as_boxes(found)).matched
        answer = int(attempt(list(clean), list(found)))
        trials.append((answer, true, twice, sum(map(bool, near)), len(found)))
    answers, truths, doubled, unlabelled, every = map(list, zip(*trials, strict=True))
    case = next((f"{a} found again, but it is {t}" for a, t in zip(answers, truths, strict=True) if a != t), "")
    wrong = {
        f"one object, found twice, counts twice: {case}": doubled,
        f"a car found where a person stood is not found again: {case}": unlabelled,
        f"every detection counts, wherever it lies: {case}": every,
    }
    hint = "for each of `clean`: is there one like it in `found`, of the same label and overlapping by half?"
    rule_out(answers, wrong, truths, hint)
    expect(not case, case, hint)


def _as_boxes(rows: list[tuple[Any, int, float]]) -> Boxes:
    return Boxes(np.reshape([r[0] for r in rows], (-1, 4)), *(np.array([r[k] for r in rows]) for k in (1, 2)))


@checker
def mean_iou(attempt: Callable[[np.ndarray], float], rng: np.random.Generator) -> None:
    """Check attempt(matrix), row: true class, column: predicted -> mean over classes of intersection over union."""
    for trial in range(8):
        matrix = rng.integers(0, 50, (4, 4)) + 60 * np.eye(4, dtype=int)
        if trial % 2:
            matrix[3] = matrix[:, 3] = 0  # a class that is nowhere
        hit = matrix.diagonal().astype(float)
        union = matrix.sum(0) + matrix.sum(1) - hit
        truth = float(np.mean(hit[union > 0] / union[union > 0]))
        found = float(attempt(matrix.copy()))
        expect(np.isfinite(found), "not finite where a class is neither true nor predicted", "leave such classes out")

        def mean(below: np.ndarray, hit: np.ndarray = hit) -> float:
            return float(np.mean(hit[below > 0] / below[below > 0]))

        wrong = {
            "that is the pixel accuracy": hit.sum() / matrix.sum(),
            "that is the mean accuracy: what is wrongly given to a class costs it nothing": mean(matrix.sum(1)),
            "the hits stand in the row sum and in the column sum, and are counted twice": mean(union + hit),
            "a class that is nowhere counts as nought": truth * (union > 0).mean(),
        }
        rule_out(found, wrong, truth, "hits, over all pixels that are or are called that class")
        expect(same(found, truth), f"{found:.3f}, but it is {truth:.3f}", "what is the union of a class, in pixels?")
