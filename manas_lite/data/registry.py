"""The registry of deraining sets: what each should hold, how to get it, where it lies, and what is there.

Its tables stand in `data_scripts/sets` of a clone, or inside an installed package. Rows and keys of tables of the same
names in the user's data folder are added to them.
"""

import difflib
import json
import os
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from manas_lite.data.layouts import list_folder, list_patterns
from manas_lite.data.listing import Listing
from manas_lite.photos.hub import Address
from manas_lite.photos.photographs import PHOTOGRAPHS
from manas_lite.runs.checkpoint import write_atomic
from manas_lite.runs.documents import about, read_json
from manas_lite.runs.settings import parse

_RECORDED = {"archives.toml": "recorded.json"}  # what --record writes: a machine's rows, beside a person's


@dataclass(frozen=True)
class Archive:
    """A file that sets come in."""

    name: str
    into: str
    """The folder below the data folder that it is unpacked into."""
    unpacked_limit: int
    """Bytes that it may unpack to."""
    hub: str | None = None
    """A repository of data on a hub, "OWNER/NAME@REVISION", whose files are packed here as a tar. Without a revision,
    the newest is taken until one is recorded."""
    hub_skip: tuple[str, ...] = ()
    """Patterns of files of the repository that the set does not need."""
    mirrors: tuple[str, ...] = ()
    """Addresses to try, in order."""
    drive: str | None = None
    """Its id on Google Drive."""
    drive_folder: str | None = None
    """The id of a folder on Google Drive, whose files are packed here as a tar."""
    size: int | None = None
    """Bytes; None until somebody has verified them."""
    sha256: str | None = None
    """Hex digest; None until somebody has verified it."""

    def sources(self) -> dict[str, str]:
        """Return an address of each kind of source, in the order of trying."""
        pages = {
            "hub": self.hub and f"https://huggingface.co/datasets/{Address.parse(self.hub).repository}",
            "http": next(iter(self.mirrors), None),
            "Drive": self.drive and f"https://drive.google.com/uc?id={self.drive}",
            "Drive folder": self.drive_folder and f"https://drive.google.com/drive/folders/{self.drive_folder}",
        }
        return {kind: page for kind, page in pages.items() if page}


@dataclass(frozen=True)
class DataSet:
    """A deraining set."""

    name: str
    title: str
    folder: str
    """Where it lies below the data folder."""
    pairs: dict[str, int]
    """Part -> number of rainy/clean pairs."""
    rains: str
    """Rainy versions per background."""
    group: str
    """How backgrounds are found: "name" or "hash" (see `manas_lite.data.grouping`)."""
    licence: str
    citation: str
    backgrounds: dict[str, int] = field(default_factory=dict)
    """Part -> number of scenes, where known."""
    layout: str | None = None
    """One of `manas_lite.data.layouts.LAYOUTS`, or None to detect it."""
    rainy: str = ""
    """What the paths of rainy pictures fit, where no layout says it (see `list_patterns`)."""
    clean: str = ""
    """What the paths of clean pictures fit then."""
    rename: dict[str, str] = field(default_factory=dict)
    """What the set calls a part -> what it is (RainCityscapes tests on what it calls val)."""
    archives: tuple[str, ...] = ()
    official: bool = True
    """Whether its authors, and not somebody else, publish what is downloaded."""
    drive_folder: str | None = None
    note: str = ""
    manual: str = ""
    """What to do by hand where there is no archive."""

    @property
    def automatic(self) -> bool:
        """Whether `manas_lite.data.download.get` can download it without the user's hands."""
        return bool(self.archives)


def data_folder(root: str | os.PathLike[str] | None = None) -> Path:
    """Return where sets are kept: `root`, or $MANAS_LITE_SETS, or .cache/manas_lite/sets in the home folder."""
    return Path(root or os.environ.get("MANAS_LITE_SETS") or Path.home() / ".cache" / "manas_lite" / "sets")


def data_sets() -> dict[str, DataSet]:
    """Return every registered set, by name, in the order of the table."""
    return {name: parse(DataSet, {"name": name, **row}, where=name) for name, row in _table("sets.toml").items()}


def data_set(name: str) -> DataSet:
    """Return the set of this name; raise ValueError with the nearest for an unknown one."""
    sets = data_sets()
    if name not in sets:
        close = [s for s in sets if s.startswith(name.lower())] or difflib.get_close_matches(name.lower(), sets)
        hint = f"; did you mean {' or '.join(map(repr, close))}?" if name and close else "."
        raise ValueError(f"no set is called {name!r}{hint} Known: {', '.join(sets)}")
    return sets[name]


def archive(name: str) -> Archive:
    """Return the archive of this name in `archives.toml`."""
    return parse(Archive, {"name": name, **_table("archives.toml")[name]}, where=name)


def manual_steps(chosen: DataSet, root: Path) -> str:
    """Return the exact steps to take by hand for a set, or for an archive whose every source failed."""
    run, steps = "Run: python -m manas_lite.data", []
    for item in map(archive, chosen.archives):
        size = f"{item.size:,} bytes" if item.size else "size not published"
        digest = f"sha256 {item.sha256}" if item.sha256 else "no published checksum"
        for kind, page in item.sources().items():
            steps.append(f"Open {page} in a browser and download {'it' if kind in ('http', 'Drive') else 'all of it'}.")
        if item.hub or item.drive_folder:
            steps += [f"Unpack what arrives into {root / item.into}.", f"{run} check {chosen.name} --root {root}"]
        else:
            steps.append(f"Put the file at {root / 'archives' / item.name} ({size}, {digest}).")
            steps.append(f"{run} get {chosen.name} --root {root}")
    if chosen.drive_folder:
        link = f"https://drive.google.com/drive/folders/{chosen.drive_folder}"
        steps.append(f"Open {link} in a browser, choose Download all, and unpack what arrives.")
    if not chosen.archives:
        steps += [f"{chosen.manual} (All below {root}.)", f"{run} check {root / chosen.folder}"]
    counts = ", ".join(f"{count:,} {part}" for part, count in chosen.pairs.items()) or "an unknown number of"
    lines = [f"{chosen.title}: {counts} pairs. Licence: {chosen.licence}.", f"Cite: {chosen.citation}."]
    return "\n".join(lines + [f"  {i}. {step}" for i, step in enumerate(steps, start=1)])


def record_archives(found: dict[str, dict[str, Any]]) -> Path:
    """Add what proved right of archives, by name, to the table of the clone, else of the user; return its file."""
    file = (_tables() if _tables().parent.name == "data_scripts" else data_folder()) / "recorded.json"
    rows = read_json(file) if file.is_file() else {}
    write_atomic(file, f"{json.dumps({**rows, **found}, indent=1)}\n".encode())
    return file


def locate(name: str, root: str | os.PathLike[str] | None = None) -> tuple[DataSet, Path]:
    """Return a registered set and its folder; raise FileNotFoundError, which says how to get it, if it is missing."""
    chosen = data_set(name)
    where = data_folder(root) / chosen.folder
    if not holds_pictures(where):
        raise FileNotFoundError(
            f"the set {name!r} is not at {where}; get it with: python -m manas_lite.data get {name}"
            + (f" --root {root}" if root else "")
        )
    return chosen, where


def holds_pictures(folder: Path) -> bool:
    """Tell whether a picture lies anywhere below a folder."""
    return any(file.suffix.lower() in PHOTOGRAPHS for file in folder.rglob("*"))


def list_set(chosen: DataSet, base: Path) -> Listing:
    """Return the pairs of a set below the data folder `base`, in the layout and the parts that the registry states.

    Where the registry knows one part and the files state none, all pairs are of that part.
    """
    patterns, folder = (chosen.rainy, chosen.clean), base / chosen.folder
    listing = list_patterns(folder, *patterns) if chosen.rainy else list_folder(folder, chosen.layout)
    stated = any(pair.part for pair in listing.pairs)
    only = next(iter(chosen.pairs)) if len(chosen.pairs) == 1 and not stated else None
    listing.pairs = [
        replace(pair, part=only if pair.part is None else chosen.rename.get(pair.part, pair.part))
        for pair in listing.pairs
    ]
    return listing


def count_differences(chosen: DataSet, listing: Listing) -> list[str]:
    """Return a sentence per part whose number of pairs (or backgrounds, where named) is not the registry's."""
    backgrounds = chosen.backgrounds if chosen.group == "name" else {}
    parts = [(pair.part, pair.background) for pair in listing.pairs]
    told = []
    for kind, counts, items in (("pairs", chosen.pairs, parts), ("backgrounds", backgrounds, set(parts))):
        for part, expected in counts.items():
            found = sum(of == part for of, _ in items)
            if found != expected:
                told.append(f"{chosen.name}: {found:,} {part} {kind}, the registry states {expected:,}")
    return told


def _table(name: str) -> dict[str, dict[str, Any]]:
    """Return the rows of a table, each with the keys of the kit's, of the user's, and of what was recorded."""
    rows: dict[str, dict[str, Any]] = {}
    for file in (folder / each for folder in (_tables(), data_folder()) for each in (name, _RECORDED.get(name, ""))):
        if file.is_file():
            with about(file):
                added = read_json(file) if file.suffix == ".json" else tomllib.loads(file.read_text(encoding="utf-8"))
                if not (isinstance(added, dict) and all(isinstance(row, dict) for row in added.values())):
                    raise ValueError("a row of it is no table: expected [NAME] and keys below it")
            rows |= {row: {**rows.get(row, {}), **keys} for row, keys in added.items()}
    return rows


def _tables() -> Path:
    """Return the package's own copy where there is one (a wheel), else the clone's."""
    here = Path(__file__).resolve()
    for folder in (here.parent / "sets", here.parents[2] / "data_scripts" / "sets"):
        if (folder / "sets.toml").is_file():
            return folder
    raise FileNotFoundError("the tables of data sets are missing from this installation: install manas_lite anew")
