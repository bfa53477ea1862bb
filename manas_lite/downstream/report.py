"""One call for the whole downstream table: CSV, a page in Markdown that says what the numbers mean, and pictures."""

import csv
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from manas_lite.compute.runtime import ComputeSettings
from manas_lite.downstream.boxes import AnnotatedPhoto, bundled_boxes, open_boxes
from manas_lite.downstream.detection import CocoSsd, Detector
from manas_lite.downstream.masks import MaskedPhoto, MaskedSet, bundled_masks, open_camvid
from manas_lite.downstream.overlays import draw_boxes, draw_classes
from manas_lite.downstream.pages import page
from manas_lite.downstream.segmentation import (
    Segmenter,
    SegmenterSettings,
    load_segmenter,
    save_segmenter,
    segment,
    train_segmenter,
    was_trained_so,
)
from manas_lite.downstream.sightings import LEVELS, Key, Sighting, Versions, look, save_sightings
from manas_lite.downstream.tasks import Row, measure_detection, measure_quality, measure_segmentation, quality_scores
from manas_lite.draw.sheets import contact_sheet, thumbnail
from manas_lite.networks.nets import DerainNet
from manas_lite.photos.images import rgb_array, write_image
from manas_lite.photos.photographs import PHOTOGRAPHS, open_photograph, to_pil
from manas_lite.runs.checkpoint import write_atomic
from manas_lite.runs.progress import Progress

__all__ = ["TASKS", "DownstreamSettings", "run_downstream"]

T = TypeVar("T")
P = TypeVar("P", AnnotatedPhoto, MaskedPhoto)
Skip = Callable[[str, Exception], None]
"""Is told the name of a picture that is left out, and why."""
TASKS = ("detection", "segmentation", "quality")
BUNDLED = "bundled photographs"
SEGMENTER = Path(__file__).resolve().parents[1] / "assets" / "downstream" / "segmenter.safetensors"
SHIPPED = SEGMENTER.with_name("table.csv")
"""The table that `rain-any` made, real rain included."""
SHOWN = 3
"""Pictures that a sheet of boxes or classes shows."""
SHEET = 100
"""Photographs that the sheet of real rain shows: a JPEG has at most 65,500 rows of pixels."""


@dataclass(frozen=True)
class DownstreamSettings:
    """What to measure on. None means the bundled photographs, except for `real`: without a folder, no real rain.

    boxes: a folder with images/ and labels/ (YOLO's layout). street: also a folder in CamVid's layout, on which a
    segmenter is trained. real: a folder of photographs of real rain. detector: the ONNX file; None: where its script
    leaves it.
    levels: of the synthetic rain. draws: bootstrap resamples. most: at most so many photographs a task, 0 for all.
    """

    tasks: tuple[str, ...] = TASKS
    boxes: Path | None = None
    street: Path | None = None
    real: Path | None = None
    detector: Path | None = None
    levels: tuple[str, ...] = LEVELS
    draws: int = 200
    most: int = 0
    segmenter: SegmenterSettings = field(default_factory=SegmenterSettings)

    def __post_init__(self) -> None:
        unknown = [task for task in self.tasks if task not in TASKS]
        if unknown or not self.tasks:
            raise ValueError(f"unknown task {', '.join(unknown) or '(none)'}: choose from {', '.join(TASKS)}")
        if self.draws < 1 or self.most < 0:
            raise ValueError(f"draws is {self.draws} and most {self.most}: give at least 1, and at least 0")


def run_downstream(
    net: DerainNet,
    out: Path,
    settings: DownstreamSettings | None = None,
    *,
    name: str = "the network",
    detector: Detector | None = None,
    compute: ComputeSettings | None = None,
    progress: bool = True,
) -> list[Row]:
    """Measure a deraining network by what a detector, a segmenter and no-reference scores make of its pictures.

    Writes to `out`: table.csv (every row), README.md (the same, explained), a CSV a task with a record for every
    picture, sightings.json (the detections on the held-out photographs) and pictures/. Files from before are replaced,
    except a segmenter trained by the same settings on the same frames: that is used again. What is measured is written
    after each task. Pictures that cannot be read or measured are left out: stderr and the page name them.
    detector: instead of the one in `settings`.
    Raises FileNotFoundError or ValueError before the first task for a folder that is missing or of another layout.
    """
    settings = settings or DownstreamSettings()
    rows: list[Row] = []
    left_out: list[str] = []

    def skip(picture: str, error: Exception) -> None:
        left_out.append(f"{picture}: {error}")
        print(f"skipped {left_out[-1]}", file=sys.stderr)

    # All folders are opened before the first task: a wrong one is not found out about hours later.
    photos: tuple[AnnotatedPhoto, ...] = ()
    masked: list[MaskedSet] = []
    files: tuple[Path, ...] = ()
    if "detection" in settings.tasks:
        detector = detector or CocoSsd(settings.detector)
        photos = _first(open_boxes(settings.boxes) if settings.boxes else bundled_boxes(), settings.most)
        photos = _readable(photos, skip)
        if not any(len(photo.relative) for photo in photos):
            raise ValueError(f"{settings.boxes}: no picture has a true box, so that there is nothing to find")
    if "segmentation" in settings.tasks:
        masked = [bundled_masks(), *([open_camvid(settings.street)] if settings.street else [])]
        masked = [_readable_set(replace(masks, test=_first(masks.test, settings.most)), skip) for masks in masked]
    if "quality" in settings.tasks and settings.real:
        files = _first(_rainy_files(settings.real), settings.most)
    notes = {masks.name: masks.note for masks in masked}
    pictures = out / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    versions = Versions(net, compute)

    def keep(found: list[Row]) -> None:
        rows.extend(found)
        write_table(out / "table.csv", [asdict(row) for row in rows])
        write_atomic(out / "README.md", page(rows, name, settings.levels, notes, left_out).encode())

    if detector and photos:
        data = settings.boxes.name if settings.boxes else BUNDLED
        seen = look(versions, photos, detector, levels=settings.levels, progress=progress)
        found, records = measure_detection(photos, seen, data=data, levels=settings.levels, draws=settings.draws)
        write_table(out / "detection.csv", records)
        save_sightings(out / "sightings.json", {key: seen[key] for key in seen if key[0] in _held_out(photos)})
        keep(found)
        _boxes_sheet(pictures / "boxes.jpg", versions, photos, seen, settings.levels[-1])
    for masks in masked:
        segmenter = _segmenter(out, masks, settings, compute, progress)
        keep(
            measure_segmentation(
                versions, masks, segmenter, levels=settings.levels, draws=settings.draws, progress=progress
            )
        )
        sheet = pictures / f"classes-{masks.name.lower().replace(' ', '-')}.jpg"
        _classes_sheet(sheet, versions, masks, segmenter, settings.levels[-1])
    if "quality" in settings.tasks:
        found, records = _synthetic_quality(versions, settings)
        write_table(out / "quality.csv", records)
        keep(found)
        if settings.real:
            found, more = _real_rain(versions, settings, files, pictures / "real.jpg", skip, progress)
            write_table(out / "quality.csv", records + more)
            keep(found)
    return rows


def write_table(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """Records as CSV, numbers in six digits; a record that lacks a column leaves it empty."""
    columns = list(dict.fromkeys(name for record in records for name in record))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in record.items()})
    write_atomic(path, text.getvalue().encode())


def read_table(path: Path) -> list[Row]:
    """The rows of a table.csv."""
    kinds = {f.name: f.type for f in fields(Row)}
    with open(path, newline="", encoding="utf-8") as file:
        return [Row(**{k: kinds[k](v) for k, v in record.items()}) for record in csv.DictReader(file)]  # type: ignore[operator]


def _first(items: Sequence[T], most: int) -> tuple[T, ...]:
    return tuple(items[:most] if most else items)


def _readable(photos: Sequence[P], skip: Skip) -> tuple[P, ...]:
    """The photographs whose picture and truth can be read; ValueError where there are none."""
    good = []
    for photo in photos:
        try:
            photo.picture.read()
            photo.truth()
        except (ValueError, OSError) as error:
            skip(photo.name, error)
        else:
            good.append(photo)
    if not good:
        raise ValueError(f"none of {len(photos)} photographs can be read, {photos[0].picture} the first of them")
    return tuple(good)


def _readable_set(masks: MaskedSet, skip: Skip) -> MaskedSet:
    train, test = _readable(masks.train, skip), _readable(masks.test, skip)
    bad = len(masks.train) - len(train)
    return replace(masks, train=train, test=test, note=f"{masks.note}; {bad} of them unreadable" if bad else masks.note)


def _rainy_files(folder: Path) -> list[Path]:
    """The photographs directly in a folder or, where it holds none, in its sub-folders."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of rainy photographs")
    own, *below = (
        sorted(path for path in place.iterdir() if path.suffix.lower() in PHOTOGRAPHS)
        for place in (folder, *sorted(child for child in folder.iterdir() if child.is_dir()))
    )
    files = own or [path for group in below for path in group]
    if not files:
        raise ValueError(f"{folder} holds no rainy photograph, nor do the folders in it")
    return files


def _segmenter(
    out: Path, data: MaskedSet, settings: DownstreamSettings, compute: ComputeSettings | None, progress: bool
) -> Segmenter:
    """The bundled one for the bundled photographs; else the one in `out`, trained first where none of these settings
    and frames is there."""
    if data.name == BUNDLED:
        return load_segmenter(SEGMENTER, data)
    path = out / f"segmenter-{data.name}.safetensors"
    if not (path.exists() and was_trained_so(path, settings.segmenter, data)):
        net = train_segmenter(data, settings.segmenter, compute=compute, progress=progress)
        save_segmenter(path, net, settings.segmenter, data)
    return load_segmenter(path, data)


def _synthetic_quality(versions: Versions, settings: DownstreamSettings) -> tuple[list[Row], list[dict[str, Any]]]:
    """The scores where the truth is known: do they like the clean picture best, and the derained one next?"""
    photos = _first([photo for photo in bundled_boxes() if photo.part == "test"], settings.most)
    scored = []
    for photo in photos:
        pictures = {("none", "clean"): photo.picture.read()}
        for level in settings.levels:
            for version, picture in versions.of(photo.picture, photo.name, level).items():
                pictures[level, version] = picture
        scored.append((photo.name, quality_scores(pictures)))
    return measure_quality(scored, data=f"{BUNDLED}, held out", draws=settings.draws)


def _real_rain(
    versions: Versions, settings: DownstreamSettings, files: Sequence[Path], sheet: Path, skip: Skip, progress: bool
) -> tuple[list[Row], list[dict[str, Any]]]:
    """Photographs of real rain, before and after; those that NIQE cannot judge are left out."""
    assert settings.real is not None
    scored, thumbnails = [], []
    with Progress(len(files), "real rain", show=progress) as bar:
        for path in files:
            try:
                before = rgb_array(to_pil(open_photograph(path)), path)
                after = versions.derain(before)
                scored.append((path.name, quality_scores({("real", "rainy"): before, ("real", "derained"): after})))
                thumbnails.append((path.name, [thumbnail(before), thumbnail(after)]))
            except (ValueError, OSError) as error:
                skip(path.name, error)
            bar.step()
    if not scored:
        raise ValueError(f"{settings.real}: none of {len(files)} photographs could be measured, for the reasons above")
    write_image(sheet, contact_sheet(thumbnails[:SHEET]))
    return measure_quality(scored, data=settings.real.name, draws=settings.draws)


def _held_out(photos: Sequence[AnnotatedPhoto]) -> set[str]:
    """Names of the test photographs; of all where none states a part."""
    return {photo.name for photo in photos if photo.part == "test"} or {photo.name for photo in photos}


def _boxes_sheet(
    path: Path, versions: Versions, photos: Sequence[AnnotatedPhoto], seen: Mapping[Key, Sighting], level: str
) -> None:
    """The held-out photographs with the most detections when clean."""
    mine = [photo for photo in photos if photo.name in _held_out(photos)]
    mine.sort(key=lambda photo: -len(seen[photo.name, "none", "clean"].boxes.above(0.5)))
    sheet = []
    for photo in mine[:SHOWN]:
        three = {(level, version): p for version, p in versions.of(photo.picture, photo.name, level).items()}
        three["none", "clean"] = photo.picture.read()
        drawn = [draw_boxes(picture, seen[photo.name, *key].boxes) for key, picture in three.items()]
        sheet.append((photo.name, drawn))
    write_image(path, contact_sheet(sheet, (f"{level} rain", "derained", "clean"), width=480, pairs=1))


def _classes_sheet(path: Path, versions: Versions, data: MaskedSet, net: Segmenter, level: str) -> None:
    sheet = []
    for photo in data.test[:SHOWN]:
        clean = photo.picture.read()
        three = [*versions.of(photo.picture, photo.name, level).values(), clean]
        drawn = [draw_classes(picture, segment(net, picture), data.classes) for picture in three]
        sheet.append((photo.name, [*drawn, draw_classes(clean, photo.truth(), data.classes)]))
    columns = (f"{level} rain", "derained", "clean", "true classes")
    write_image(path, contact_sheet(sheet, columns, width=360, pairs=1))
