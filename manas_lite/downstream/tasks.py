"""The tasks, each on rainy, derained and clean pictures: rows of the table, and a record for every picture."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from manas_lite.downstream.boxes import AnnotatedPhoto, Boxes
from manas_lite.downstream.masks import MaskedSet
from manas_lite.downstream.quality import niqe, piqe
from manas_lite.downstream.scoring import AveragePrecision, Consistency, consistency, interval, resamples
from manas_lite.downstream.segmentation import Segmenter, confusion, scores, segment
from manas_lite.downstream.sightings import LEVELS, Key, Sighting, Versions
from manas_lite.runs.progress import Progress

__all__ = ["GAIN", "Row", "measure_detection", "measure_quality", "measure_segmentation", "quality_scores"]

GAIN = "derained - rainy"
"""The version of rows that hold a paired difference."""

Measured = dict[str, float]


@dataclass(frozen=True)
class Row:
    """One number of the table. level: of the synthetic rain; "none" for clean pictures, "real" for real rain.
    low, high: its 95 % interval over resampled pictures; NaN where none was computed."""

    task: str
    data: str
    pictures: int
    level: str
    version: str
    measure: str
    value: float
    low: float = float("nan")
    high: float = float("nan")


def table_rows(
    task: str,
    data: str,
    count: int,
    measures: Mapping[tuple[str, str], Callable[[np.ndarray], Measured]],
    *,
    draws: int,
    seed: int,
    plain: frozenset[str] = frozenset(),
) -> list[Row]:
    """A row for each level, version and measure, with its interval over resampled pictures; where a level has both,
    also the paired difference of derained and rainy.

    measures: by (level, version), a function of picture numbers (drawn with replacement). plain: without an interval.
    """
    everything, drawn = np.arange(count), resamples(count, draws, seed)
    values = {key: function(everything) for key, function in measures.items()}
    again = {key: [function(row) for row in drawn] for key, function in measures.items()}
    rows = []

    def add(level: str, version: str, measure: str, value: float, samples: list[float]) -> None:
        low, high = (np.nan, np.nan) if measure in plain else interval(samples)
        rows.append(Row(task, data, count, level, version, measure, value, low, high))

    for (level, version), found in values.items():
        for measure, value in found.items():
            add(level, version, measure, value, [sample[measure] for sample in again[level, version]])
        if version == "derained":
            for measure, value in found.items():
                if measure not in plain and measure in values[level, "rainy"]:
                    pairs = zip(again[level, "derained"], again[level, "rainy"], strict=True)
                    differences = [after[measure] - before[measure] for after, before in pairs]
                    add(level, GAIN, measure, value - values[level, "rainy"][measure], differences)
    return rows


def measure_detection(
    photos: Sequence[AnnotatedPhoto],
    seen: Mapping[Key, Sighting],
    *,
    data: str,
    levels: Sequence[str] = LEVELS,
    draws: int = 200,
    seed: int = 0,
) -> tuple[list[Row], list[dict[str, Any]]]:
    """Average precision against true boxes, and consistency with the detections on the clean picture.

    seen: what `sightings.look` found. Returns rows, and a record for every picture, level and version. Where
    photographs state a part, the test ones also make a group of their own, "held out": a deraining network trained on
    "photos" has not seen these.
    """
    groups = {f"{data}, all": list(photos)}
    held_out = [photo for photo in photos if photo.part == "test"]
    if held_out:
        groups[f"{data}, held out"] = held_out
    rows: list[Row] = []
    for name, chosen in groups.items():
        truth = [photo.truth() for photo in chosen]
        clean = [seen[photo.name, "none", "clean"].boxes for photo in chosen]
        measures = {("none", "clean"): _detection_measures(truth, clean, None)}
        for level in levels:
            for version in ("rainy", "derained"):
                found = [seen[photo.name, level, version].boxes for photo in chosen]
                measures[level, version] = _detection_measures(truth, found, clean)
        rows += table_rows("detection", name, len(chosen), measures, draws=draws, seed=seed)
    return rows, [_record(photo, level, v, seen) for photo in photos for level in levels for v in ("rainy", "derained")]


def _record(photo: AnnotatedPhoto, level: str, version: str, seen: Mapping[Key, Sighting]) -> dict[str, Any]:
    sighting = seen[photo.name, level, version]
    kept = consistency(seen[photo.name, "none", "clean"].boxes, sighting.boxes)
    record: dict[str, Any] = {"picture": photo.name, "part": photo.part or "", "level": level, "version": version}
    record |= {"clean": kept.clean, "found": kept.found, "matched": kept.matched}
    drop = fmean(kept.drop) if kept.drop else float("nan")
    return record | {"confidence_drop": drop, "psnr_rgb": sighting.psnr_rgb}


def _detection_measures(
    truth: Sequence[Boxes], found: Sequence[Boxes], clean: Sequence[Boxes] | None
) -> Callable[[np.ndarray], Measured]:
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
    levels: Sequence[str] = LEVELS,
    draws: int = 500,
    seed: int = 0,
    progress: bool = True,
) -> list[Row]:
    """mIoU, pixel accuracy and the IoU of each class, over all pixels of the test pictures of `data`."""
    matrices: dict[tuple[str, str], list[np.ndarray]] = {}
    with Progress(len(data.test) * len(levels), "segmentation", show=progress) as bar:
        for photo in data.test:
            truth = photo.truth()
            pictures = {("none", "clean"): photo.picture.read()}
            for level in levels:
                for version, picture in versions.of(photo.picture, photo.name, level).items():
                    pictures[level, version] = picture
                bar.step()
            for key, picture in pictures.items():
                matrices.setdefault(key, []).append(confusion(segment(net, picture), truth, len(data.classes)))

    def measure(stack: np.ndarray) -> Callable[[np.ndarray], Measured]:
        return lambda pictures: scores(stack[pictures].sum(0), data.classes)

    measures = {key: measure(np.stack(group)) for key, group in matrices.items()}
    plain = frozenset(f"iou_{name}" for name in data.classes)
    return table_rows("segmentation", data.name, len(data.test), measures, draws=draws, seed=seed, plain=plain)


def quality_scores(pictures: Mapping[tuple[str, str], np.ndarray]) -> dict[tuple[str, str], Measured]:
    """NIQE and PIQE of one photograph in all its versions, and how much deraining changed it (mean absolute change, in
    levels of 255).

    pictures: by (level, version), the version "rainy", "derained" or "clean". Raises ValueError where NIQE does.
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
    """Means over pictures of what `quality_scores` gave for each: (name, scores), all of the same versions.

    Returns rows, and a record for every picture of every (level, version).
    """
    measured = {key: [scores[key] for _, scores in scored] for key in scored[0][1]}

    def measure(each: list[Measured]) -> Callable[[np.ndarray], Measured]:
        return lambda drawn: {name: fmean(each[i][name] for i in drawn) for name in each[0]}

    measures = {key: measure(each) for key, each in measured.items()}
    records = [
        {"picture": name, "level": level, "version": version, **values}
        for (level, version), each in measured.items()
        for (name, _), values in zip(scored, each, strict=True)
    ]
    return table_rows("quality", data, len(scored), measures, draws=draws, seed=seed), records
