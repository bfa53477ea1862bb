"""Checkers on what others make of derained pictures: boxes that overlap, detections matched, classes averaged."""

import operator
from collections.abc import Callable
from functools import partial

import numpy as np

from manas_course.checks.base import Attempt, Wrong, checker, compare, whole
from manas_course.downstream.boxes import iou

__all__ = ["box_iou", "consistent", "mean_iou"]

Box = np.ndarray
Detection = tuple[Box, int, float]


@checker
def box_iou(attempt: Attempt, rng: np.random.Generator) -> None:
    """Check attempt(a, b), each (left, top, right, bottom) -> intersection over union."""
    still = {
        "boxes that do not touch": ([0, 0, 10, 10], [20, 30, 35, 40]),
        "boxes side by side": ([0, 0, 10, 10], [20, 0, 30, 12]),
        "boxes one above the other": ([0, 0, 10, 10], [0, 20, 12, 30]),
        "boxes that share an edge": ([0, 0, 10, 10], [10, 0, 20, 10]),
        "the same box twice": ([3, 4, 13, 24], [3, 4, 13, 24]),
        "a box within another": ([0, 0, 20, 10], [5, 5, 10, 10]),
        "a wide box and a tall one": ([0, 4, 30, 10], [10, 0, 15, 40]),
        "boxes far from the corner": ([100, 200, 130, 240], [110, 205, 150, 250]),
    }
    cases = {name: tuple(np.array(box, float) for box in both) for name, both in still.items()}
    for k in range(6):
        corner = rng.uniform(0, 100, 2)
        a = np.concatenate([corner, corner + rng.uniform(10, 50, 2)])
        cases[f"random boxes {k + 1}"] = a, a + rng.uniform(-5, 5, 4)

    def sides(a: Box, b: Box) -> np.ndarray:
        return np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])

    def shared(a: Box, b: Box) -> float:
        return float(np.prod(np.clip(sides(a, b), 0, None)))

    def area(box: Box) -> float:
        return float(np.prod(box[2:] - box[:2]))

    def with_pixels(a: Box, b: Box) -> float:
        both = float(np.prod(np.clip(sides(a, b) + 1, 0, None)))
        return both / (sum(float(np.prod(x[2:] - x[:2] + 1)) for x in (a, b)) - both)

    union = "what is the union?"
    no_width = "a width below zero is no width; two of them multiply to something positive"
    wrong = [
        Wrong(
            "the overlap of boxes that do not touch is not 0: widths below 0 are multiplied",
            lambda a, b: _over(np.prod(sides(a, b)), area(a) + area(b) - np.prod(sides(a, b))),
            no_width,
        ),
        Wrong(
            "the overlap of boxes that do not touch is not 0: its area may be negative",
            lambda a, b: _over(max(np.prod(sides(a, b)), 0), area(a) + area(b) - max(np.prod(sides(a, b)), 0)),
            no_width,
        ),
        Wrong(
            "the overlap of boxes that do not touch is not 0: widths lose their sign",
            lambda a, b: _over(np.prod(abs(sides(a, b))), area(a) + area(b) - np.prod(abs(sides(a, b)))),
            no_width,
        ),
        Wrong(
            "the intersection is counted twice below the line", lambda a, b: shared(a, b) / (area(a) + area(b)), union
        ),
        Wrong("that is the share of the smaller box", lambda a, b: shared(a, b) / min(area(a), area(b)), union),
        Wrong("that is the share of the larger box", lambda a, b: shared(a, b) / max(area(a), area(b)), union),
        Wrong("that is the share of the first box", lambda a, b: shared(a, b) / area(a), union),
        Wrong("that is the share of the second box", lambda a, b: shared(a, b) / area(b), union),
        Wrong(
            "that is Dice: twice the intersection over both areas",
            lambda a, b: 2 * shared(a, b) / (area(a) + area(b)),
            union,
        ),
        Wrong(
            "the box around both is taken for their union",
            lambda a, b: shared(a, b) / float(np.prod(np.maximum(a[2:], b[2:]) - np.minimum(a[:2], b[:2]))),
            union,
        ),
        Wrong("that is the intersection, not divided by the union", shared, "intersection *over union*"),
        Wrong(
            "that is the union over the intersection",
            lambda a, b: _over(area(a) + area(b) - shared(a, b), shared(a, b)),
            "the other way round",
        ),
        Wrong("one pixel is added to each side: corners are places, not pixels", with_pixels, "width = right - left"),
        Wrong(
            "boxes are read as left, top, width, height",
            lambda a, b: _iou_of(a, b, lambda x: [x[0], x[1], x[0] + x[2], x[1] + x[3]]),
            "left, top, right, bottom",
        ),
        Wrong(
            "boxes are read as left, right, top, bottom",
            lambda a, b: _iou_of(a, b, lambda x: [x[0], x[2], x[1], x[3]]),
            "left, top, right, bottom",
        ),
        Wrong(
            "that is 1 less the overlap: a distance",
            lambda a, b: 1 - shared(a, b) / (area(a) + area(b) - shared(a, b)),
            "1 for the same box",
        ),
    ]
    compare(
        attempt, cases, lambda a, b: float(iou(a, b)[0, 0]), wrong, hint="the area of both, over the area of either"
    )


def _over(above: float, below: float) -> float:
    return above / below if below else 0.0


def _iou_of(a: Box, b: Box, read: Callable[[Box], list[float]]) -> float:
    a, b = (np.array(read(box)) for box in (a, b))
    shared = float(np.prod(np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)))
    return _over(shared, sum(float(np.prod(x[2:] - x[:2])) for x in (a, b)) - shared)


@checker
def consistent(attempt: Attempt, rng: np.random.Generator) -> None:
    """Check attempt(clean, found), lists of (box, label, score of at least 0.5) -> how many of `clean` were found."""
    box = np.array([0.0, 0, 20, 10])

    def at(*shifts: float, label: int = 1, score: float = 0.9) -> list[Detection]:
        """Return boxes of 20 by 10 pixels, each moved to the right and made as much narrower at its right end."""
        return [(box + np.array([shift, 0, 0, 0]), label, score) for shift in shifts]

    def far(label: int = 1) -> list[Detection]:
        return [(box + 100, label, 0.8)]

    cases: dict[str, tuple[list[Detection], list[Detection]]] = {
        "one object, found again": (at(0), at(1)),
        "a second detection of one object": (at(0), at(1, 2)),
        "one object, found where it was not": (at(0), far()),
        "two objects, one found twice": (at(0) + far(), at(0, 1)),
        "an overlap of a tenth": (at(0), at(18)),
        "an overlap of 0.45": (at(0), at(11)),
        "an overlap of exactly a half": (at(0), at(10)),
        "an overlap of 0.55": (at(0), at(9)),
        "a box four times as large": (at(0), [(np.array([0.0, 0, 40, 20]), 1, 0.9)]),
        "a small box within": (at(0), [(np.array([5.0, 2, 10, 7]), 1, 0.9)]),
        "another label": (at(0), at(0, label=2)),
        "a first one of another label, a second that fits": (at(0), at(0, label=2) + at(1)),
        "a first one that fits, a second of another label": (at(0), at(1) + at(0, label=2)),
        "a score that fell": (at(0), at(0, score=0.55)),
        "nothing on the clean picture": ([], at(0)),
        "nothing found": (at(0) + far(), []),
        "more found than there were": (at(0), at(0) + far() + [(box + 300, 2, 0.7)]),
        "found in another order": (at(0) + far(2), far(2) + at(0)),
    }
    for k in range(6):
        places = 40 * np.arange(4)[:, None] + np.array([0.0, 0, 30, 30]) + rng.uniform(0, 3, (4, 1))
        clean: list[Detection] = [(place, int(rng.integers(1, 3)), float(rng.uniform(0.5, 1))) for place in places]
        found = [
            (box + rng.uniform(-1, 1, 4), label if rng.random() < 0.7 else 3 - label, float(rng.uniform(0.5, 1)))
            for box, label, _ in clean
            for _ in range(int(rng.integers(0, 3)))
        ]
        cases[f"four objects {k + 1}"] = clean, found

    def counted(
        fits: Callable[[Detection, Detection], bool] = lambda c, f: c[1] == f[1] and _overlap(c, f) >= 0.5,
        many: Callable[[list[bool]], int] = any,
    ) -> Callable[..., int]:
        return lambda clean, found: sum(int(many([fits(c, f) for f in found])) for c in clean)

    def same_label(near: Callable[[float], bool]) -> Callable[..., int]:
        return counted(lambda c, f: c[1] == f[1] and near(_overlap(c, f)))

    hint = "for each of `clean`: is there one like it in `found`, of the same label and overlapping by half?"
    half = "intersection over union, at least 0.5"
    wrong = [
        Wrong("one object, found twice, counts twice", counted(many=sum), hint),
        Wrong("a car found where a person stood is not found again", counted(lambda c, f: _overlap(c, f) >= 0.5), hint),
        Wrong(
            "a label alone makes no object found again: it may lie elsewhere", counted(lambda c, f: c[1] == f[1]), hint
        ),
        Wrong("every detection counts, wherever it lies", lambda clean, found: len(found), hint),
        Wrong("every object counts, found or not", lambda clean, found: len(clean), hint),
        Wrong(
            "the smaller of the two numbers says nothing of which were found",
            lambda clean, found: min(len(clean), len(found)),
            hint,
        ),
        Wrong("any overlap counts: at least half was asked for", same_label(lambda o: o > 0), half),
        Wrong("an overlap of exactly a half counts too: *at least* half", same_label(lambda o: o > 0.5), half),
        *(
            Wrong(
                f"overlaps count from {at_least:g}, not from a half",
                same_label(partial(operator.le, at_least)),
                half,
            )
            for at_least in (0.1, 0.25, 0.3, 0.4, 0.6, 0.7, 0.75, 0.9)
        ),
        Wrong(
            "half of the clean box, not of the union, must be covered",
            counted(lambda c, f: c[1] == f[1] and _share(c, f) >= 0.5),
            half,
        ),
        Wrong(
            "half of the found box, not of the union, must be covered",
            counted(lambda c, f: c[1] == f[1] and _share(f, c) >= 0.5),
            half,
        ),
        Wrong(
            "boxes must be equal: half an overlap is enough",
            counted(lambda c, f: c[1] == f[1] and np.allclose(c[0], f[0])),
            half,
        ),
        Wrong("only the first of `found` is looked at", lambda clean, found: counted()(clean, found[:1]), hint),
        Wrong(
            "an object counts only where *all* detections fit it",
            counted(many=lambda fits: bool(fits) and all(fits)),
            hint,
        ),
        Wrong("an object counts only where *all* detections fit it", counted(many=all), hint),
        Wrong(
            "only the detection at the same place of the list is looked at",
            lambda clean, found: sum(
                c[1] == f[1] and _overlap(c, f) >= 0.5 for c, f in zip(clean, found, strict=False)
            ),
            hint,
        ),
        Wrong("only the detection that overlaps most is looked at, whatever its label", _nearest_alone, hint),
        Wrong(
            "those that were *not* found again are counted",
            lambda clean, found: len(clean) - counted()(clean, found),
            hint,
        ),
        Wrong(
            "a share is returned: a number of objects was asked for",
            lambda clean, found: counted()(clean, found) / max(1, len(clean)),
            hint,
        ),
    ]
    compare(attempt, cases, counted(), wrong, read=whole, near=0, hint=hint)


def _overlap(a: Detection, b: Detection) -> float:
    return float(iou(a[0], b[0])[0, 0])


def _share(a: Detection, b: Detection) -> float:
    """Return which share of the first box the second one covers."""
    sides = np.clip(np.minimum(a[0][2:], b[0][2:]) - np.maximum(a[0][:2], b[0][:2]), 0, None)
    return float(np.prod(sides) / np.prod(a[0][2:] - a[0][:2]))


def _nearest_alone(clean: list[Detection], found: list[Detection]) -> int:
    best = [(c, max(found, key=lambda f: _overlap(c, f))) for c in clean if found]
    return sum(c[1] == f[1] and _overlap(c, f) >= 0.5 for c, f in best)


@checker
def mean_iou(attempt: Attempt, rng: np.random.Generator) -> None:
    """Check attempt(matrix), row: true class, column: predicted -> mean over classes of intersection over union."""
    full = rng.integers(1, 50, (4, 4)) + 60 * np.eye(4, dtype=int)
    cases = {
        "four classes": (full,),
        "a class that is nowhere": (_without(full, row=True, column=True),),
        "a class that is predicted, but never true": (_without(full, row=True),),
        "a class that is true, but never predicted": (_without(full, column=True),),
        "no hit at all": (full - np.diag(full.diagonal()),),
        "two classes": (full[:2, :2],),
        "a class of one pixel, which was missed": (np.array([[50, 3, 0], [2, 40, 0], [1, 0, 0]]),),
        "large counts": (full * 1_000_000,),
    }

    def mean(
        below: Callable[[np.ndarray], np.ndarray], over: Callable[[np.ndarray], np.ndarray] | None = None
    ) -> Callable[..., float]:
        """Return the mean of hits over `below`, over the classes where `over` (by default `below`) is not 0."""

        def answer(matrix: np.ndarray) -> float:
            hit, whole, kept = matrix.diagonal().astype(float), below(matrix), (over or below)(matrix) > 0
            return (
                float(np.mean(np.divide(hit, whole, out=np.zeros(len(hit)), where=whole > 0)[kept]))
                if kept.any()
                else 0.0
            )

        return answer

    def union(matrix: np.ndarray) -> np.ndarray:
        return matrix.sum(0) + matrix.sum(1) - matrix.diagonal()

    def everything(matrix: np.ndarray) -> np.ndarray:
        return np.ones(len(matrix))

    def weighted(matrix: np.ndarray) -> float:
        truth = matrix.sum(1)
        ratio = np.divide(matrix.diagonal(), union(matrix), out=np.zeros(len(matrix)), where=union(matrix) > 0)
        return float((truth * ratio).sum() / truth.sum())

    def nowhere(matrix: np.ndarray) -> float:
        return mean(union)(matrix) if (union(matrix) > 0).all() else float("nan")

    out = "leave such classes out"
    hits = "hits, over all pixels that are or are called that class"
    wrong = [
        Wrong("not finite where a class is neither true nor predicted", nowhere, out),
        Wrong("that is the pixel accuracy", lambda m: float(m.trace() / m.sum()), hits),
        Wrong(
            "that is the mean accuracy: what is wrongly given to a class costs it nothing",
            mean(lambda m: m.sum(1)),
            hits,
        ),
        Wrong(
            "that is the mean accuracy: what is wrongly given to a class costs it nothing",
            mean(lambda m: m.sum(1), everything),
            hits,
        ),
        Wrong(
            "that is the mean precision: pixels of a class that were missed cost it nothing",
            mean(lambda m: m.sum(0)),
            hits,
        ),
        Wrong(
            "that is the mean precision: pixels of a class that were missed cost it nothing",
            mean(lambda m: m.sum(0), everything),
            hits,
        ),
        Wrong(
            "the hits stand in the row sum and in the column sum, and are counted twice",
            mean(lambda m: m.sum(0) + m.sum(1)),
            hits,
        ),
        Wrong(
            "the hits are taken off twice: misses and false alarms alone stand below the line",
            lambda m: float(np.mean(_safe(m.diagonal(), union(m) - m.diagonal()))),
            hits,
        ),
        Wrong(
            "that is Dice: the hits count twice",
            lambda m: float(np.mean(_safe(2 * m.diagonal(), m.sum(0) + m.sum(1))[union(m) > 0])),
            hits,
        ),
        Wrong("a class that is nowhere counts as nought", mean(union, everything), out),
        Wrong(
            "a class that is nowhere counts as perfect",
            lambda m: float(np.mean(np.where(union(m) > 0, _safe(m.diagonal(), union(m)), 1.0))),
            out,
        ),
        Wrong(
            "a class that is never true is left out, although it was predicted",
            mean(union, lambda m: m.sum(1)),
            "which pixels are its union?",
        ),
        Wrong(
            "a class that is never predicted is left out, although it was there",
            mean(union, lambda m: m.sum(0)),
            "which pixels are its union?",
        ),
        Wrong(
            "a class without a hit is left out, although it was there",
            mean(union, lambda m: m.diagonal()),
            "0 is an IoU too",
        ),
        Wrong(
            "a class is left out unless it is both true and predicted",
            mean(union, lambda m: m.sum(0) * m.sum(1)),
            "which pixels are its union?",
        ),
        Wrong(
            "one ratio over all classes, no mean over classes",
            lambda m: float(m.trace() / union(m).sum()),
            "first the ratio, then the mean",
        ),
        Wrong(
            "classes are weighed by their size: the mean over classes was asked for",
            weighted,
            "each class counts alike",
        ),
        Wrong("the classes are summed, not averaged", lambda m: mean(union)(m) * (union(m) > 0).sum(), "a mean"),
        Wrong(
            "an error of one true class is counted over all pixels",
            lambda m: float(np.mean(m.diagonal() / m.sum())),
            hits,
        ),
    ]
    compare(attempt, cases, mean(union), wrong, hint="what is the union of a class, in pixels?")


def _safe(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.zeros(len(above)), where=below != 0)


def _without(matrix: np.ndarray, row: bool = False, column: bool = False) -> np.ndarray:
    """Return a matrix whose class 2 is never true (its row is 0), never predicted (its column is 0), or both."""
    changed = matrix.copy()
    if row:
        changed[2] = 0
    if column:
        changed[:, 2] = 0
    return changed
