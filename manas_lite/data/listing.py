"""What a folder holds: pairs and photographs, found by `manas_lite.data.layouts` or listed in a file."""

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from manas_lite.data.matching import part_of
from manas_lite.data.pictures import Picture
from manas_lite.photos.images import SUFFIXES

__all__ = ["DataWarning", "Listing", "Pair", "Photo", "read_csv", "read_index"]


class DataWarning(UserWarning):
    """Something about a data set that may not be as its owner believes."""


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
    """What a folder holds. `named`: the set itself says which pairs share a background."""

    root: Path
    layouts: list[str] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    photos: list[Photo] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    named: bool = True


def read_csv(listing: Listing, table: Path) -> None:
    """Adds the pairs of a CSV with columns rainy, clean and optionally scene or background, part, label.

    ValueError names the table and the line of what is no such row, or not UTF-8.
    """
    content = table.read_bytes()
    try:
        lines = io.StringIO(content.decode("utf-8-sig"), newline="")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(f"{table}, line {line}: is not UTF-8 text; save the table as UTF-8") from error
    reader = csv.DictReader(lines)
    missing = {"rainy", "clean"} - set(reader.fieldnames or ())
    if missing:
        raise ValueError(f"{table}: needs the columns rainy and clean, lacks {', '.join(sorted(missing))}")
    scene_column = next((c for c in ("scene", "background") if c in (reader.fieldnames or ())), None)
    for row in reader:
        empty = [c for c in ("rainy", "clean", scene_column) if c and not row[c]]
        if empty:
            raise ValueError(f"{table}, line {reader.line_num}: says nothing for {', '.join(empty)}")
        if None in row:
            raise ValueError(f"{table}, line {reader.line_num}: has more cells than columns; quote names with a comma")
        clean, rainy = (_half(table.parent, row[c]) for c in ("clean", "rainy"))
        inside = PurePosixPath(row["rainy"].split("#")[0])
        part = part_of([row["part"]]) if row.get("part") else part_of(inside.parent.parts)
        background = row[scene_column] if scene_column else str(PurePosixPath(row["clean"]).with_suffix(""))
        listing.pairs.append(Pair(clean, rainy, background, row.get("label") or inside.stem, part))
    listing.named &= scene_column is not None
    listing.layouts.append("csv")


def _half(folder: Path, name: str) -> Picture:
    for half in ("left", "right"):
        if name.endswith(f"#{half}"):
            return Picture(folder / name.removesuffix(f"#{half}"), half)
    return Picture(folder / name)


def read_index(listing: Listing, text: Path) -> bool:
    """Reads lines "rainy clean"; False where the file is not such an index."""
    lines = [line.split() for line in text.read_text("utf-8", errors="replace").splitlines() if line.strip()]
    endings = {PurePosixPath(word).suffix.lower() for words in lines for word in words}
    if not lines or {len(words) for words in lines} != {2} or not endings <= SUFFIXES:
        return False
    above = text.parent.relative_to(listing.root).parts
    for rainy, clean in ([word.lstrip("/") for word in words] for words in lines):
        inside = PurePosixPath(rainy)
        part = part_of((*above, *inside.parent.parts, text.stem))
        pictures = Picture(text.parent / clean), Picture(text.parent / rainy)
        background = str(PurePosixPath(*above, clean).with_suffix(""))
        listing.pairs.append(Pair(*pictures, background, inside.stem, part))
    listing.named = False
    listing.layouts += [] if "index" in listing.layouts else ["index"]
    return True
