"""What a folder holds: pairs and photographs, as `manas_lite.data.layouts` finds them or a table lists them."""

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from manas_lite.data.matching import part_of
from manas_lite.data.pictures import Picture
from manas_lite.photos.images import SUFFIXES


class DataWarning(UserWarning):
    """Something about a data set may not be as its owner believes."""


@dataclass(frozen=True)
class Pair:
    """A rainy picture and its clean twin; pairs of one `background` in one `part` make a scene."""

    clean: Picture
    rainy: Picture
    background: str
    label: str
    part: str | None


@dataclass(frozen=True)
class Photo:
    """A clean photograph."""

    picture: Picture
    background: str
    part: str | None


@dataclass
class Listing:
    """What a folder holds."""

    root: Path
    """The folder, or the folder of the table."""
    layouts: list[str] = field(default_factory=list)
    """The layouts that were found, each once."""
    pairs: list[Pair] = field(default_factory=list)
    photos: list[Photo] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)
    """(file or folder, reason) of what has no place."""
    notes: list[str] = field(default_factory=list)
    """What is not used, or looks wrong."""
    named: bool = True
    """Whether the set itself says which pairs share a background."""


@dataclass(frozen=True)
class Found:
    """What one layout found in one folder; the other fields are those of `Listing`."""

    layout: str | None = None
    pairs: list[Pair] = field(default_factory=list)
    photos: list[Photo] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    named: bool = True
    used: frozenset[Path] = frozenset()
    """Files and folders that no other layout may take."""


def read_csv(table: Path) -> Found:
    """Return the pairs of a CSV with columns rainy, clean and optionally scene or background, part, label.

    Raises:
        ValueError: a line is no such row, or not UTF-8; the message names the table and the line.
    """
    content = table.read_bytes()
    try:
        lines = io.StringIO(content.decode("utf-8-sig"), newline="")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(f"{table}, line {line}: is not UTF-8 text; save the table as UTF-8") from error
    reader = csv.DictReader(lines)
    columns = reader.fieldnames or ()
    if missing := {"rainy", "clean"} - set(columns):
        raise ValueError(f"{table}: needs the columns rainy and clean, lacks {', '.join(sorted(missing))}")
    scene_column = next((name for name in ("scene", "background") if name in columns), None)
    pairs = []
    for row in reader:
        empty = [c for c in ("rainy", "clean", scene_column) if c and not row[c]]
        if empty:
            raise ValueError(f"{table}, line {reader.line_num}: says nothing for {', '.join(empty)}")
        if None in row:
            raise ValueError(f"{table}, line {reader.line_num}: has more cells than columns; quote names with a comma")
        clean, rainy = (_picture(table.parent, row[c]) for c in ("clean", "rainy"))
        inside = PurePosixPath(row["rainy"].split("#")[0])
        part = part_of([row["part"]]) if row.get("part") else part_of(inside.parent.parts)
        background = row[scene_column] if scene_column else str(PurePosixPath(row["clean"]).with_suffix(""))
        pairs.append(Pair(clean, rainy, background, row.get("label") or inside.stem, part))
    return Found("csv", pairs, named=scene_column is not None)


def _picture(folder: Path, name: str) -> Picture:
    file, _, half = name.rpartition("#")
    return Picture(folder / file, half) if half in ("left", "right") else Picture(folder / name)  # type: ignore[arg-type]


def read_index(text: Path, above: tuple[str, ...]) -> list[Pair]:
    """Return the pairs of a text file with lines "rainy clean"; none where the file is not such an index.

    Args:
        text: the file.
        above: names of the folders between the root of the set and the file.
    """
    lines = [line.split() for line in text.read_text("utf-8", errors="replace").splitlines() if line.strip()]
    endings = {PurePosixPath(word).suffix.lower() for words in lines for word in words}
    if {len(words) for words in lines} != {2} or not endings <= SUFFIXES:
        return []
    pairs = []
    for rainy, clean in ([word.lstrip("/") for word in words] for words in lines):
        inside = PurePosixPath(rainy)
        part = part_of((*above, *inside.parent.parts, text.stem))
        background = str(PurePosixPath(*above, clean).with_suffix(""))
        pairs.append(Pair(Picture(text.parent / clean), Picture(text.parent / rainy), background, inside.stem, part))
    return pairs
