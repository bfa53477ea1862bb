"""What a folder holds: pairs and photographs, as `manas_lite.data.layouts` finds them or a table lists them."""

import codecs
import csv
import io
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from manas_lite.data.matching import part_of
from manas_lite.data.pictures import Picture
from manas_lite.photos.photographs import PHOTOGRAPHS
from manas_lite.runs.documents import LARGEST, read_bytes

_LONGEST_LINE = 8192  # characters of a line of an index: two paths of the most that Linux takes


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
    """What a folder holds, or what one layout found in it."""

    root: Path = Path()
    """The folder, or the folder of the table."""
    layouts: list[str] = field(default_factory=list)
    """The layouts that were found, each once."""
    pairs: list[Pair] = field(default_factory=list)
    photos: list[Photo] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)
    """(file or folder, reason) of what has no place."""
    notes: list[str] = field(default_factory=list)
    """What looks wrong. `list_folder` warns of it."""
    remarks: list[str] = field(default_factory=list)
    """What was decided without being told, and what is not used. `check` prints it, and `open_split` warns of it."""
    hidden: list[Path] = field(default_factory=list)
    """Pictures in hidden and system folders, and hidden pictures. They are no data, and only `check` counts them."""
    named: bool = True
    """Whether the set itself says which pairs share a background."""
    used: set[Path] = field(default_factory=set)
    """Files and folders that no other layout may take."""

    def add(self, found: "Listing") -> None:
        """Add what a layout found."""
        for name in ("pairs", "photos", "problems", "notes", "remarks"):
            getattr(self, name).extend(getattr(found, name))
        self.layouts += [name for name in found.layouts if name not in self.layouts]
        self.named &= found.named


def read_csv(table: Path) -> Listing:
    """Return the pairs of a CSV with columns rainy, clean and optionally scene or background, part, label.

    Raises:
        ValueError: a line is no such row, or not UTF-8; the message names the table and the line.
    """
    content = read_bytes(table)
    try:
        lines = io.StringIO(content.decode(encoding_of(content)), newline="")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(f"{table}, line {line}: is not UTF-8 text; save the table as UTF-8") from error
    delimiter = max(",;\t", key=lines.readline().count)
    lines.seek(0)
    reader = csv.DictReader(lines, delimiter=delimiter, skipinitialspace=True)
    try:
        columns = [name.strip().lower() for name in reader.fieldnames or ()]
        reader.fieldnames = columns
        cells = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise ValueError(f"{table}, line {reader.line_num + 1}: {error}; close each quotation mark") from error
    if missing := {"rainy", "clean"} - set(columns):
        raise ValueError(f"{table}: needs the columns rainy and clean, lacks {', '.join(sorted(missing))}")
    scene_column = next((name for name in ("scene", "background") if name in columns), None)
    rows: list[tuple[str, Pair]] = []
    problems = []
    for number, row in cells:
        where = f"{table}, line {number}"
        empty = [c for c in ("rainy", "clean", scene_column) if c and not row[c]]
        if empty:
            raise ValueError(f"{where}: says nothing for {', '.join(empty)}")
        if None in row:
            raise ValueError(f"{where}: has more cells than columns; quote names with a {delimiter!r}")
        clean, rainy = (_picture(table.parent, row[column]) for column in ("clean", "rainy"))
        if clean is None or rainy is None:
            problems.append((where, f"names {row['clean' if clean is None else 'rainy']}, which is not there"))
            continue
        inside = PurePosixPath(_posix(row["rainy"]).split("#")[0])
        stated = (row.get("part") or "").strip()
        part = part_of([stated] if stated else inside.parent.parts)
        if stated and not part:
            raise ValueError(f"{where}: the part {stated!r} is not known; write train, val or test, or leave it empty")
        background = row[scene_column] if scene_column else str(PurePosixPath(_posix(row["clean"])).with_suffix(""))
        rows.append((where, Pair(clean, rainy, background, row.get("label") or inside.stem, part)))
    found = Listing(layouts=["csv"], problems=problems, named=scene_column is not None)
    _add_rows(found, rows)
    return found


def _add_rows(found: Listing, rows: Iterable[tuple[str, Pair]]) -> None:
    """Add the pairs of (place, pair), each once; a picture that is rainy here and clean there is a problem."""
    roles, first = dict[object, tuple[str, str]](), dict[object, str]()
    for where, pair in rows:
        both = clean, rainy = _identity(pair.clean), _identity(pair.rainy)
        if before := first.get(both):
            found.notes.append(f"{where} repeats {before}; the pair is counted once")
            continue
        first[both] = where
        for picture, file, kind in ((pair.clean, clean, "clean"), (pair.rainy, rainy, "rainy")):
            other, place = roles.setdefault(file, (kind, where))
            if other != kind:
                elsewhere = f"which {place} names" if place != where else "and"
                found.problems.append((where, f"names {picture} as {kind}, {elsewhere} as {other}"))
                break
        else:
            found.pairs.append(pair)


def _identity(picture: Picture) -> tuple[object, ...]:
    """Return what is the same of a picture however a row spells its path."""
    status = os.stat(picture.path)
    return status.st_dev, status.st_ino, picture.half


def _picture(folder: Path, text: str) -> Picture | None:
    """Return the picture that a table names, as it stands or with a Windows machine's separators; None: not there."""
    for name in (text, _posix(text)):
        file, _, half = name.rpartition("#")
        if half in ("left", "right") and os.path.isfile(folder / file):
            return Picture(folder / file, half)  # type: ignore[arg-type]
        if os.path.isfile(folder / name):
            return Picture(folder / name)
    return None


NO_TEXT = re.compile("[\ud800-\udfff]")
"""What stands in a name for bytes that are no UTF-8 text."""


def encoding_of(content: bytes) -> str:
    """Return how a text is encoded: as UTF-16, which Windows' editors mark, or else as UTF-8."""
    return "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"


def _is_named(word: str) -> bool:
    """Tell whether a word of a text ends like the name of a picture."""
    return os.path.splitext(word.strip("\"'"))[1].lower() in PHOTOGRAPHS


def _posix(text: str) -> str:
    """Return a name without the blanks and quotes around it, its folders divided by slashes."""
    return text.strip(" \"'").replace("\\", "/")


def read_index(text: Path, above: tuple[str, ...]) -> Listing:
    """Return the pairs of a text file with lines "rainy clean"; nothing where the file is no such index.

    Names may hold spaces: of all ways to divide a line, the one counts whose two files are there. A text is an index
    if half of its lines name such files. A text is told of if every line ends like a picture's name, or if most lines
    hold two such words. `above` are the names of the folders between the root of the set and the file.
    """
    rows, odd, found = [], [], Listing()
    if text.stat().st_size > LARGEST:
        return found
    content = text.read_bytes()
    rows_of_text = content.decode(encoding_of(content), errors="replace").splitlines()
    lines = [(n, line.strip()) for n, line in enumerate(rows_of_text, start=1) if line.strip()]
    for number, line in lines:
        where = f"{text}, line {number}"
        for cut in re.finditer(r"\s*[,;|]\s*|\s+", line if len(line) <= _LONGEST_LINE else ""):
            names = [name.lstrip("/") for name in (line[: cut.start()], line[cut.end() :])]
            if not all(map(_is_named, names)):
                continue
            rainy, clean = (_picture(text.parent, name) for name in names)
            if rainy and clean:
                inside, twin = map(PurePosixPath, map(_posix, names))
                part = part_of((*above, *inside.parent.parts, text.stem))
                background = str(PurePosixPath(*above, twin).with_suffix(""))
                rows.append((where, Pair(clean, rainy, background, inside.stem, part)))
                break
        else:
            odd.append((where, "names no two pictures that are there; expected: rainy, a space, clean"))
    if rows and len(rows) >= len(odd):
        found = Listing(layouts=["index"], problems=odd, named=False)
        _add_rows(found, rows)
        return found
    named = [[_is_named(word) for word in re.split(r"[\s,;|]+", line)] for _, line in lines]
    if lines and (all(words[-1] for words in named) or 2 * sum(sum(words) > 1 for words in named) > len(lines)):
        found.notes.append(f"{text} looks like an index of pairs, but {odd[0][0]} {odd[0][1]}; it is not used")
    return found
