"""One call for the whole downstream table: CSV, a page in Markdown that says what the numbers mean, and pictures."""

import csv
import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from manas_course.downstream import ASSETS
from manas_course.downstream.boxes import AnnotatedPhoto, bundled_boxes, open_boxes
from manas_course.downstream.detection import CocoSsd, Detector
from manas_course.downstream.masks import BUNDLED, MaskedPhoto, MaskedSet, bundled_masks, open_camvid
from manas_course.downstream.overlays import draw_boxes, draw_classes
from manas_course.downstream.pages import markdown_page
from manas_course.downstream.segmentation import (
    Segmenter,
    SegmenterSettings,
    load_segmenter,
    save_segmenter,
    segment,
    train_segmenter,
    was_trained_so,
)
from manas_course.downstream.sightings import Versions, look, save_sightings
from manas_course.downstream.tasks import Row, measure_detection, measure_quality, measure_segmentation, quality_scores
from manas_lite.compute.runtime import ComputeSettings
from manas_lite.draw.sheets import contact_sheet, thumbnail
from manas_lite.networks.nets import DerainNet
from manas_lite.photos.images import rgb_array, write_image
from manas_lite.photos.photographs import PHOTOGRAPHS, open_photograph, to_pil
from manas_lite.rain import LEVELS
from manas_lite.runs.checkpoint import write_atomic
from manas_lite.runs.progress import Progress

T = TypeVar("T")
P = TypeVar("P", AnnotatedPhoto, MaskedPhoto)
Skip = Callable[[str, Exception], None]  # is told the name of a picture that is left out, and why
TASKS = ("detection", "segmentation", "quality")
BUNDLED_TABLE = ASSETS / "table.csv"
"""The table that `rain-any` made, real rain included."""
SHOWN = 3  # pictures on a sheet of boxes or classes
SHEET = 100  # photographs on the sheet of real rain: a JPEG has at most 65,500 rows of pixels


@dataclass(frozen=True)
class DownstreamSettings:
    """What to measure, and on what. None means the bundled photographs, except for `street`, `real` and `detector`."""

    tasks: tuple[str, ...] = TASKS
    boxes: Path | None = None
    """A folder with images/ and labels/ (YOLO's layout)."""
    street: Path | None = None
    """A folder in CamVid's layout, on which a segmenter is trained; None measures on no streets."""
    real: Path | None = None
    """A folder of photographs of real rain; None measures no real rain."""
    detector: Path | None = None
    """The detector's ONNX file; None takes it from where its script leaves it."""
    levels: tuple[str, ...] = tuple(LEVELS)
    """Of the synthetic rain."""
    draws: int = 200
    """Resamples of the bootstrap."""
    most: int = 0
    """At most this many photographs per task; 0 for all."""
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

    Writes to `out`: table.csv (every row), README.md (the same, explained), one CSV per task with a record for every
    picture, sightings.json (the detections on the held-out photographs) and pictures/. What is measured is written
    after each task. Files from before are replaced, except a segmenter trained by the same settings on the same frames:
    that is used again. Pictures that cannot be read or measured are left out: stderr and the page name them.

    Args:
        net: the deraining network.
        out: the folder to write to.
        settings: what to measure on.
        name: of the network, for the page.
        detector: instead of the one in `settings`.
        compute: device and precision.
        progress: whether to show bars.

    Raises:
        FileNotFoundError: a folder is missing; nothing was measured yet.
        ValueError: a folder is of another layout (nothing was measured yet), or no picture of a task can be measured.
    """
    settings = settings or DownstreamSettings()
    run = _Run(out, settings, name, Versions(net, compute), compute, progress)
    # All folders are opened before the first task: a wrong one is not found out about hours later.
    photos: tuple[AnnotatedPhoto, ...] = ()
    masked: list[MaskedSet] = []
    files: tuple[Path, ...] = ()
    if "detection" in settings.tasks:
        detector = detector or CocoSsd(settings.detector)
        photos = _readable(run.first(open_boxes(settings.boxes) if settings.boxes else bundled_boxes()), run.skip)
        if not any(len(photo.relative) for photo in photos):
            raise ValueError(f"{settings.boxes}: no picture has a true box, so that there is nothing to find")
    if "segmentation" in settings.tasks:
        masked = [bundled_masks(), *([open_camvid(settings.street)] if settings.street else [])]
        masked = [_readable_set(replace(data, test=run.first(data.test)), run.skip) for data in masked]
    if "quality" in settings.tasks and settings.real:
        files = run.first(_rainy_files(settings.real))
    run.notes = {data.name: data.note for data in masked}
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    if detector and photos:
        run.detection(photos, detector)
    for data in masked:
        run.segmentation(data)
    if "quality" in settings.tasks:
        run.quality(files)
    return run.rows


@dataclass
class _Run:
    """One call of `run_downstream`: what it was asked for, the rows so far, and the pictures that were left out."""

    out: Path
    settings: DownstreamSettings
    name: str
    versions: Versions
    compute: ComputeSettings | None
    progress: bool
    rows: list[Row] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)

    def first(self, items: Sequence[T]) -> tuple[T, ...]:
        return tuple(items[: self.settings.most or None])

    def skip(self, picture: str, error: Exception) -> None:
        self.left_out.append(f"{picture}: {error}")
        print(f"skipped {self.left_out[-1]}", file=sys.stderr)

    def keep(self, found: list[Row]) -> None:
        self.rows.extend(found)
        write_table(self.out / "table.csv", [asdict(row) for row in self.rows])
        page = markdown_page(self.rows, self.name, self.settings.levels, self.notes, self.left_out)
        write_atomic(self.out / "README.md", page.encode())

    def detection(self, photos: Sequence[AnnotatedPhoto], detector: Detector) -> None:
        levels, draws = self.settings.levels, self.settings.draws
        seen = look(self.versions, photos, detector, levels=levels, progress=self.progress)
        data = self.settings.boxes.name if self.settings.boxes else BUNDLED
        found, records = measure_detection(photos, seen, data=data, levels=levels, draws=draws)
        write_table(self.out / "detection.csv", records)
        held_out = [photo for photo in photos if photo.part == "test"] or list(photos)
        names = {photo.name for photo in held_out}
        save_sightings(self.out / "sightings.json", {key: each for key, each in seen.items() if key[0] in names})
        self.keep(found)

        def draw(photo: AnnotatedPhoto) -> list[np.ndarray]:
            return [draw_boxes(picture, seen[photo.name, *key].boxes) for key, picture in self.three(photo)]

        held_out.sort(key=lambda photo: -len(seen[photo.name, "none", "clean"].boxes.above(0.5)))
        self.sheet("boxes", held_out, draw, width=480)

    def segmentation(self, data: MaskedSet) -> None:
        net = _segmenter(self.out, data, self.settings, self.compute, self.progress)
        options: Any = {"levels": self.settings.levels, "draws": self.settings.draws, "progress": self.progress}
        self.keep(measure_segmentation(self.versions, data, net, **options))

        def draw(photo: MaskedPhoto) -> list[np.ndarray]:
            three = [picture for _, picture in self.three(photo)]
            drawn = [draw_classes(picture, segment(net, picture), data.classes) for picture in three]
            return [*drawn, draw_classes(three[-1], photo.truth(), data.classes)]

        name = f"classes-{data.name.lower().replace(' ', '-')}"
        self.sheet(name, data.test, draw, width=360, more=("true classes",))

    def quality(self, files: Sequence[Path]) -> None:
        # Where the truth is known: do the scores like the clean picture best, and the derained one next?
        test = self.first([photo for photo in bundled_boxes() if photo.part == "test"])
        scored = [(photo.name, quality_scores(self.versions.every(photo, self.settings.levels))) for photo in test]
        found, records = measure_quality(scored, data=f"{BUNDLED}, held out", draws=self.settings.draws)
        write_table(self.out / "quality.csv", records)
        self.keep(found)
        if self.settings.real:
            scored = self.real_rain(files)
            found, more = measure_quality(scored, data=self.settings.real.name, draws=self.settings.draws)
            write_table(self.out / "quality.csv", records + more)
            self.keep(found)

    def real_rain(self, files: Sequence[Path]) -> list[tuple[str, dict[tuple[str, str], dict[str, float]]]]:
        """Return the scores of photographs of real rain, before and after; leave out those that NIQE cannot judge."""
        scored, thumbnails = [], []
        with Progress(len(files), "real rain", show=self.progress) as bar:
            for path in files:
                try:
                    before = rgb_array(to_pil(open_photograph(path)), path)
                    after = self.versions.derain(before)
                    pair = {("real", "rainy"): before, ("real", "derained"): after}
                    scored.append((path.name, quality_scores(pair)))
                    thumbnails.append((path.name, [thumbnail(before), thumbnail(after)]))
                except (ValueError, OSError) as error:
                    self.skip(path.name, error)
                bar.step()
        if not scored:
            reasons = f"none of {len(files)} photographs could be measured, for the reasons above"
            raise ValueError(f"{self.settings.real}: {reasons}")
        write_image(self.out / "pictures" / "real.jpg", contact_sheet(thumbnails[:SHEET]))
        return scored

    def three(self, photo: AnnotatedPhoto | MaskedPhoto) -> list[tuple[tuple[str, str], np.ndarray]]:
        """Return a photograph under the last level of rain, derained and clean, with the (level, version) of each."""
        clean, *rest = self.versions.every(photo, self.settings.levels[-1:]).items()
        return [*rest, clean]

    def sheet(
        self,
        name: str,
        photos: Sequence[P],
        draw: Callable[[P], list[np.ndarray]],
        *,
        width: int,
        more: tuple[str, ...] = (),
    ) -> None:
        """Write a sheet of the first photographs, one per row, with what `draw` makes of each."""
        headings = f"{self.settings.levels[-1]} rain", "derained", "clean", *more
        rows = [(photo.name, draw(photo)) for photo in photos[:SHOWN]]
        write_image(self.out / "pictures" / f"{name}.jpg", contact_sheet(rows, headings, width=width, pairs=1))


def write_table(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """Write records as CSV, numbers in six digits; a record that lacks a column leaves it empty."""
    text = io.StringIO()
    columns = list(dict.fromkeys(name for record in records for name in record))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in record.items()} for record in records)
    write_atomic(path, text.getvalue().encode())


def read_table(path: Path = BUNDLED_TABLE) -> list[Row]:
    """Return the rows of a table.csv."""
    kinds = {f.name: f.type for f in fields(Row)}
    with open(path, newline="", encoding="utf-8") as file:
        return [Row(**{k: kinds[k](v) for k, v in record.items()}) for record in csv.DictReader(file)]  # type: ignore[operator]


def _readable(photos: Sequence[P], skip: Skip) -> tuple[P, ...]:
    """Return the photographs whose picture and truth can be read; raise ValueError where there are none."""
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


def _readable_set(data: MaskedSet, skip: Skip) -> MaskedSet:
    train, test = _readable(data.train, skip), _readable(data.test, skip)
    bad = len(data.train) - len(train)
    return replace(data, train=train, test=test, note=f"{data.note}; {bad} of them unreadable" if bad else data.note)


def _rainy_files(folder: Path) -> list[Path]:
    """Return the photographs directly in a folder or, where it holds none, in its sub-folders."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of rainy photographs")
    own, below = (
        sorted(path for path in folder.glob(pattern) if path.suffix.lower() in PHOTOGRAPHS) for pattern in ("*", "*/*")
    )
    if not own and not below:
        raise ValueError(f"{folder} holds no rainy photograph, nor do the folders in it")
    return own or below


def _segmenter(
    out: Path, data: MaskedSet, settings: DownstreamSettings, compute: ComputeSettings | None, progress: bool
) -> Segmenter:
    """Return the bundled segmenter for the bundled photographs, else the one in `out`.

    It is trained first where `out` holds none of these settings and frames.
    """
    if data.name == BUNDLED:
        return load_segmenter(data=data)
    path = out / f"segmenter-{data.name}.safetensors"
    if not (path.exists() and was_trained_so(path, settings.segmenter, data)):
        net = train_segmenter(data, settings.segmenter, compute=compute, progress=progress)
        save_segmenter(path, net, settings.segmenter, data)
    return load_segmenter(path, data)
