"""The registry of deraining sets: tables in `data_scripts/sets` of a clone, or inside an installed package."""

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

__all__ = ["Archive", "DataSet", "archive", "data_folder", "data_set", "data_sets", "manual_steps"]

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Archive:
    """A file that sets come in. `size` in bytes and `sha256` are None until somebody has verified them."""

    name: str
    into: str
    unpacked_limit: int
    drive: str | None = None
    mirrors: tuple[str, ...] = ()
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class DataSet:
    """A set: where it lies below the data folder, how it is laid out, and what it should hold.

    pairs: rainy/clean pairs a part. backgrounds: scenes a part, where known. rains: versions a background.
    group: how backgrounds are found (`manas_lite.data.grouping`). layout: None to detect it.
    rename: what the set calls a part -> what it is (RainCityscapes tests on what it calls val).
    """

    name: str
    title: str
    folder: str
    pairs: Mapping[str, int]
    rains: str
    group: str
    licence: str
    citation: str
    backgrounds: Mapping[str, int] = field(default_factory=dict)
    layout: str | None = None
    rename: Mapping[str, str] = field(default_factory=dict)
    archives: tuple[str, ...] = ()
    drive_folder: str | None = None
    note: str = ""
    manual: str = ""

    @property
    def automatic(self) -> bool:
        """Whether `get` can download it without the user's hands."""
        return bool(self.archives)


def data_folder(root: str | os.PathLike[str] | None = None) -> Path:
    """Where sets are kept: `root`, or $MANAS_LITE_SETS, or .cache/manas_lite/sets in the home folder."""
    return Path(root or os.environ.get("MANAS_LITE_SETS") or Path.home() / ".cache" / "manas_lite" / "sets")


def data_sets() -> dict[str, DataSet]:
    """Every registered set, by name, in the order of the table."""
    return {name: _parse(DataSet, name, row) for name, row in _table("sets.toml").items()}


def data_set(name: str) -> DataSet:
    """One set; ValueError names the nearest for an unknown name."""
    sets = data_sets()
    if name not in sets:
        close = [s for s in sets if s.startswith(name.lower())] or difflib.get_close_matches(name.lower(), sets)
        hint = f"; did you mean {' or '.join(map(repr, close))}?" if name and close else "."
        raise ValueError(f"no set is called {name!r}{hint} Known: {', '.join(sets)}")
    return sets[name]


def archive(name: str) -> Archive:
    """One archive of `archives.toml`."""
    return _parse(Archive, name, _table("archives.toml")[name])


def manual_steps(chosen: DataSet, root: Path) -> str:
    """What to do by hand for a set, or for an archive whose every source failed: exact, in order."""
    where = root / chosen.folder
    steps = []
    for item in map(archive, chosen.archives):
        size = f"{item.size:,} bytes" if item.size else "size not published"
        digest = f"sha256 {item.sha256}" if item.sha256 else "no published checksum"
        if item.drive:
            steps.append(f"Open https://drive.google.com/uc?id={item.drive} in a browser and download it.")
        steps.append(f"Put the file at {root / 'archives' / item.name} ({size}, {digest}).")
        steps.append(f"Run: python -m manas_lite.data get {chosen.name} --root {root}")
    if not chosen.archives:
        if chosen.drive_folder:
            link = f"https://drive.google.com/drive/folders/{chosen.drive_folder}"
            steps.append(f"Open {link} in a browser, choose Download all, and unpack what arrives.")
        steps.append(f"{chosen.manual} (All below {root}.)")
        steps.append(f"Run: python -m manas_lite.data check {where}")
    counts = ", ".join(f"{count:,} {part}" for part, count in chosen.pairs.items())
    lines = [f"{chosen.title}: {counts} pairs. Licence: {chosen.licence}.", f"Cite: {chosen.citation}."]
    return "\n".join(lines + [f"  {i}. {step}" for i, step in enumerate(steps, start=1)])


T = TypeVar("T", DataSet, Archive)


def _parse(kind: type[T], name: str, row: Mapping[str, Any]) -> T:
    allowed = {f.name for f in fields(kind)} - {"name"}
    unknown = set(row) - allowed
    if unknown:
        raise ValueError(f"{name}: unknown key(s) {', '.join(sorted(unknown))}; keys are {', '.join(sorted(allowed))}")
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
    try:
        return kind(name=name, **values)
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from None


@cache
def _table(file: str) -> dict[str, dict[str, Any]]:
    return tomllib.loads((_tables() / file).read_text(encoding="utf-8"))


def _tables() -> Path:
    """The package's own copy where there is one (a wheel), else the clone's."""
    here = Path(__file__).resolve()
    for folder in (here.parent / "sets", here.parents[2] / "data_scripts" / "sets"):
        if (folder / "sets.toml").is_file():
            return folder
    raise FileNotFoundError("the tables of data sets are missing from this installation: install manas_lite anew")
