"""One call for the whole downstream table: CSV, a page in Markdown that says what the numbers mean, and pictures."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..backbone import DerainNet
from ..checkpoint import write_atomic
from ..data import Picture
from ..draw.sheets import contact_sheet, thumbnail
from ..folders import pictures_in
from ..images import write_image
from ..progress import Progress
from ..runtime import ComputeSettings
from .boxes import AnnotatedPhoto, bundled_boxes, open_boxes
from .detection import CocoSsd, Detector
from .masks import MaskedSet, bundled_masks, open_camvid
from .pages import page
from .pictures import draw_boxes, draw_classes
from .quality import PATCH
from .segmentation import (
    Segmenter,
    SegmenterSettings,
    load_segmenter,
    save_segmenter,
    segment,
    train_segmenter,
    was_trained_so,
)
from .sightings import LEVELS, Key, Sighting, Versions, look, save_sightings
from .tasks import Row, measure_detection, measure_quality, measure_segmentation

__all__ = ["TASKS", "DownstreamSettings", "run_downstream"]

T = TypeVar("T")
TASKS = ("detection", "segmentation", "quality")
BUNDLED = "bundled photographs"
SEGMENTER = Path(__file__).resolve().parents[1] / "assets" / "downstream" / "segmenter.safetensors"
SHIPPED = SEGMENTER.with_name("table.csv")
"""The table that `rain-any` made, real rain included."""
SHOWN = 3
"""Pictures that a sheet of boxes or classes shows."""


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
    except a segmenter trained by the same settings on the same frames: that is used again.
    detector: instead of the one in `settings`.
    """
    settings = settings or DownstreamSettings()
    pictures = out / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    versions, rows, notes = Versions(net, compute), [], {}
    if "detection" in settings.tasks:
        detector = detector or CocoSsd(settings.detector)
        photos = _first(open_boxes(settings.boxes) if settings.boxes else bundled_boxes(), settings.most)
        data = settings.boxes.name if settings.boxes else BUNDLED
        seen = look(versions, photos, detector, levels=settings.levels, progress=progress)
        found, records = measure_detection(photos, seen, data=data, levels=settings.levels, draws=settings.draws)
        rows += found
        write_table(out / "detection.csv", records)
        save_sightings(out / "sightings.json", {key: seen[key] for key in seen if key[0] in _held_out(photos)})
        _boxes_sheet(pictures / "boxes.jpg", versions, photos, seen, settings.levels[-1])
    if "segmentation" in settings.tasks:
        for masks in [bundled_masks(), *([open_camvid(settings.street)] if settings.street else [])]:
            notes[masks.name] = masks.note
            masks = replace(masks, test=_first(masks.test, settings.most))
            segmenter = _segmenter(out, masks, settings, compute, progress)
            rows += measure_segmentation(
                versions, masks, segmenter, levels=settings.levels, draws=settings.draws, progress=progress
            )
            sheet = pictures / f"classes-{masks.name.lower().replace(' ', '-')}.jpg"
            _classes_sheet(sheet, versions, masks, segmenter, settings.levels[-1])
    if "quality" in settings.tasks:
        found, records = _synthetic_quality(versions, settings)
        if settings.real:
            more, real_records = _real_rain(versions, settings, pictures / "real.jpg", progress)
            found, records = found + more, records + real_records
        rows += found
        write_table(out / "quality.csv", records)
    write_table(out / "table.csv", [asdict(row) for row in rows])
    write_atomic(out / "README.md", page(rows, name, settings.levels, notes).encode())
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
    pictures: dict[tuple[str, str], list[np.ndarray]] = {("none", "clean"): [p.picture.read() for p in photos]}
    for level in settings.levels:
        for photo in photos:
            for version, picture in versions.of(photo.picture, photo.name, level).items():
                pictures.setdefault((level, version), []).append(picture)
    rows, records = measure_quality(pictures, data=f"{BUNDLED}, held out", draws=settings.draws)
    return rows, [{"picture": photos[record.pop("number")].name, **record} for record in records]


def _real_rain(
    versions: Versions, settings: DownstreamSettings, sheet: Path, progress: bool
) -> tuple[list[Row], list[dict[str, Any]]]:
    """Photographs of real rain and of its sub-folders, before and after; those too small for NIQE are left out."""
    assert settings.real is not None
    files = _first([path for folder in _folders(settings.real) for path in pictures_in(folder)], settings.most)
    large = [path for path in files if _fits(Picture(path))]
    if not large:
        raise ValueError(f"{settings.real}: none of {len(files)} photographs is large enough for NIQE (2 x {PATCH})")
    pictures: dict[tuple[str, str], list[np.ndarray]] = {("real", "rainy"): [], ("real", "derained"): []}
    thumbnails = []
    with Progress(len(large), "real rain", show=progress) as bar:
        for path in large:
            before = Picture(path).read()
            pictures["real", "rainy"].append(before)
            pictures["real", "derained"].append(versions.derain(before))
            thumbnails.append((path.name, [thumbnail(group[-1]) for group in pictures.values()]))
            bar.step()
    write_image(sheet, contact_sheet(thumbnails))
    rows, records = measure_quality(pictures, data=settings.real.name, draws=settings.draws)
    return rows, [{"picture": large[record.pop("number")].name, **record} for record in records]


def _folders(folder: Path) -> list[Path]:
    """The folder, or the folders in it where it holds no picture itself."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of rainy photographs")
    inside = [child for child in sorted(folder.iterdir()) if child.is_dir()]
    return (
        inside
        if inside and not any(child.suffix.lower() in (".jpg", ".png") for child in folder.iterdir())
        else [folder]
    )


def _fits(picture: Picture) -> bool:
    height, width = picture.size()
    return (height // PATCH) * (width // PATCH) >= 2


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
