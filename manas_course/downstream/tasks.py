"""The tasks, each on rainy, derained and clean pictures: rows of the table, and a record for every picture."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from manas_course.downstream.boxes import AnnotatedPhoto, Boxes
from manas_course.downstream.masks import MaskedSet
from manas_course.downstream.quality import niqe, piqe
from manas_course.downstream.scoring import AveragePrecision, Consistency, consistency, interval, resamples
from manas_course.downstream.segmentation import Segmenter, confusion, scores, segment
from manas_course.downstream.sightings import Key, Sighting, Versions
from manas_lite.rain import LEVELS
from manas_lite.runs.progress import Progress

GAIN = "derained - rainy"
"""The version of rows that hold a paired difference."""

Measured = dict[str, float]
Measure = Callable[[np.ndarray], Measured]
"""A function of picture numbers, which a bootstrap draws with replacement."""


@dataclass(frozen=True)
class Row:
    """One number of the table."""

    task: str
    data: str
    pictures: int
    level: str
    """Of the synthetic rain; "none" for clean pictures, "real" for real rain."""
    version: str
    measure: str
    value: float
    low: float = float("nan")
    """Start of the 95 % interval over resampled pictures; NaN where none was computed."""
    high: float = float("nan")


def table_rows(
    task: str,
    data: str,
    count: int,
    measures: Mapping[tuple[str, str], Measure],
    *,
    draws: int,
    seed: int,
    plain: frozenset[str] = frozenset(),
) -> list[Row]:
    """Return a row for each level, version and measure, with its interval over resampled pictures.

    Where a level has both versions, the paired difference of derained and rainy follows.

    Args:
        task, data: for the columns of these names.
        count: how many pictures there are.
        measures: by (level, version).
        draws, seed: number and seed of the resamples.
        plain: measures without an interval and a difference.
    """
    drawn = [np.arange(count), *resamples(count, draws, seed)]  # first each picture once: the value itself
    found = {key: [measure(pictures) for pictures in drawn] for key, measure in measures.items()}
    rows = []

    def add(level: str, version: str, measure: str, values: np.ndarray) -> None:
        low, high = (np.nan, np.nan) if measure in plain else interval(values[1:])
        rows.append(Row(task, data, count, level, version, measure, float(values[0]), low, high))

    for (level, version), samples in found.items():
        columns = {measure: np.array([sample[measure] for sample in samples]) for measure in samples[0]}
        for measure, values in columns.items():
            add(level, version, measure, values)
        for measure in columns if version == "derained" else ():
            if measure not in plain and measure in found[level, "rainy"][0]:
                before = np.array([sample[measure] for sample in found[level, "rainy"]])
                add(level, GAIN, measure, columns[measure] - before)
    return rows


def measure_detection(
    photos: Sequence[AnnotatedPhoto],
    seen: Mapping[Key, Sighting],
    *,
    data: str,
    levels: Sequence[str] = tuple(LEVELS),
    draws: int = 200,
    seed: int = 0,
) -> tuple[list[Row], list[dict[str, Any]]]:
    """Return average precision against true boxes, and consistency with the detections on the clean picture.

    Where photographs state a part, the test ones also make a group of their own, "held out": a deraining network
    trained on "photos" has not seen these.

    Args:
        photos: what to measure on.
        seen: what `sightings.look` found.
        data: the name of the photographs.
        levels: of the rain.
        draws, seed: number and seed of the resamples.

    Returns:
        The rows, and a record for every picture, level and version.
    """
    versions = [(level, version) for level in levels for version in ("rainy", "derained")]
    groups = {"all": photos, "held out": [photo for photo in photos if photo.part == "test"]}
    rows: list[Row] = []
    for name, chosen in groups.items():
        if not chosen:
            continue
        truth = [photo.truth() for photo in chosen]
        clean = [seen[photo.name, "none", "clean"].boxes for photo in chosen]
        measures = {("none", "clean"): _fit(truth, clean, None)}
        for key in versions:
            measures[key] = _fit(truth, [seen[photo.name, *key].boxes for photo in chosen], clean)
        rows += table_rows("detection", f"{data}, {name}", len(chosen), measures, draws=draws, seed=seed)
    return rows, [_record(photo, *key, seen) for photo in photos for key in versions]


def _record(photo: AnnotatedPhoto, level: str, version: str, seen: Mapping[Key, Sighting]) -> dict[str, Any]:
    sighting = seen[photo.name, level, version]
    kept = consistency(seen[photo.name, "none", "clean"].boxes, sighting.boxes)
    record = {"picture": photo.name, "part": photo.part or "", "level": level, "version": version}
    counts = {"clean": kept.clean, "found": kept.found, "matched": kept.matched}
    return record | counts | {"confidence_drop": Consistency.confidence_drop([kept]), "psnr_rgb": sighting.psnr_rgb}


def _fit(truth: Sequence[Boxes], found: Sequence[Boxes], clean: Sequence[Boxes] | None) -> Measure:
    precision = AveragePrecision(truth, found)
    kept = None if clean is None else [consistency(a, b) for a, b in zip(clean, found, strict=True)]

    def measure(pictures: np.ndarray) -> Measured:
        values = precision.ap(pictures)
        if kept is not None:
            drawn = [kept[i] for i in pictures]
            values |= {"recall": Consistency.recall(drawn), "precision": Consistency.precision(drawn)}
            values["confidence_drop"] = Consistency.confidence_drop(drawn)
        return values

    return measure


def measure_segmentation(
    versions: Versions,
    data: MaskedSet,
    net: Segmenter,
    *,
    levels: Sequence[str] = tuple(LEVELS),
    draws: int = 500,
    seed: int = 0,
    progress: bool = True,
) -> list[Row]:
    """Return mIoU, pixel accuracy and the IoU of each class, over all pixels of the test pictures of `data`."""
    matrices: dict[tuple[str, str], list[np.ndarray]] = {}
    with Progress(len(data.test), "segmentation", show=progress) as bar:
        for photo in data.test:
            truth = photo.truth()
            for key, picture in versions.every(photo, levels).items():
                matrices.setdefault(key, []).append(confusion(segment(net, picture), truth, len(data.classes)))
            bar.step()

    def measure(stack: np.ndarray) -> Measure:
        return lambda pictures: scores(stack[pictures].sum(0), data.classes)

    measures = {key: measure(np.stack(each)) for key, each in matrices.items()}
    plain = frozenset(f"iou_{name}" for name in data.classes)
    return table_rows("segmentation", data.name, len(data.test), measures, draws=draws, seed=seed, plain=plain)


def quality_scores(pictures: Mapping[tuple[str, str], np.ndarray]) -> dict[tuple[str, str], Measured]:
    """Return NIQE and PIQE of one photograph in all its versions, and how much deraining changed it.

    The change is the mean absolute one, in levels of 255. Raises ValueError where NIQE does.

    Args:
        pictures: uint8 (H, W, 3) by (level, version), with the version "rainy", "derained" or "clean".
    """
    found = {key: {"niqe": niqe(picture), "piqe": piqe(picture)} for key, picture in pictures.items()}
    for (level, version), picture in pictures.items():
        if version == "derained":
            before = pictures[level, "rainy"].astype(float)
            found[level, version]["change"] = float(np.abs(before - picture).mean())
    return found


def measure_quality(
    scored: Sequence[tuple[str, Mapping[tuple[str, str], Measured]]], *, data: str, draws: int = 500, seed: int = 0
) -> tuple[list[Row], list[dict[str, Any]]]:
    """Return means over pictures of what `quality_scores` gave for each.

    Args:
        scored: name and scores of each picture, all of the same versions.
        data: the name of the photographs.
        draws, seed: number and seed of the resamples.

    Returns:
        The rows, and a record for every picture of every (level, version).
    """
    measured = {key: [found[key] for _, found in scored] for key in scored[0][1]}

    def measure(each: list[Measured]) -> Measure:
        return lambda drawn: {name: fmean(each[i][name] for i in drawn) for name in each[0]}

    measures = {key: measure(each) for key, each in measured.items()}
    records = [
        {"picture": name, "level": level, "version": version, **found[level, version]}
        for level, version in measured
        for name, found in scored
    ]
    return table_rows("quality", data, len(scored), measures, draws=draws, seed=seed), records
