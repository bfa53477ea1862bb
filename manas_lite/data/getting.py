"""`get`: a registered set from its archives to a folder of pictures that holds what it should."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from manas_lite.data.download import DownloadError, fetch, remember, verify
from manas_lite.data.layouts import list_folder
from manas_lite.data.listing import Listing
from manas_lite.data.registry import DataSet, archive, data_folder, data_set, manual_steps
from manas_lite.data.unpack import unpack_archive
from manas_lite.photos.images import SUFFIXES

__all__ = ["count_differences", "get", "list_set", "locate"]


def get(
    name: str,
    root: str | os.PathLike[str] | None = None,
    *,
    given: str | os.PathLike[str] | None = None,
    mirrors: Sequence[str] = (),
    progress: bool = True,
    wait: Callable[[float], None] = time.sleep,
) -> Path:
    """The folder of a registered set below `root` (see `data_folder`), downloaded and unpacked where it is not there.

    Sources, in order: the archive at `given`, the verified one kept below `root`, `mirrors` and those of the
    registry, Google Drive. Raises DownloadError with the steps to take by hand where none delivers, ArchiveError for
    an archive that must not be unpacked, ValueError for an unknown name.
    """
    chosen, base = data_set(name), data_folder(root)
    where = base / chosen.folder
    if _holds_pictures(where) and not count_differences(chosen, list_set(chosen, base)):
        return where
    if not chosen.archives:
        raise DownloadError(f"{chosen.name} cannot be downloaded automatically.\n{manual_steps(chosen, base)}")
    if given is not None and len(chosen.archives) != 1:
        raise ValueError(f"{chosen.name} comes in {len(chosen.archives)} archives: put them in {base / 'archives'}")
    fetched = []
    for item in map(archive, chosen.archives):
        item = replace(item, mirrors=(*mirrors, *item.mirrors))
        if given is not None:
            (base / "archives").mkdir(parents=True, exist_ok=True)
            verify(Path(given), item, base / "archives")
            path = Path(given)
        else:
            try:
                path = fetch(item, base / "archives", progress=progress, wait=wait, trust=False)
            except DownloadError as error:
                raise DownloadError(f"{error}\nBy hand:\n{manual_steps(chosen, base)}") from error
        unpack_archive(path, base / item.into, item.unpacked_limit, progress=progress)
        fetched.append((path, item))
    if not _holds_pictures(where):
        raise DownloadError(
            f"{path} was unpacked, but holds no folder {chosen.folder} of pictures; it is another archive than "
            f"expected. Take it away to try again, or look below {base / item.into}, and name the right folder to "
            "open_split"
        )
    if not count_differences(chosen, list_set(chosen, base)):  # what is not the set must not become the measure
        for path, item in fetched:
            remember(path, item, base / "archives", source=str(given or "download"))
    return where


def locate(name: str, root: str | os.PathLike[str] | None = None) -> tuple[DataSet, Path]:
    """A registered set and its folder; FileNotFoundError says how to get it where it is not there."""
    chosen = data_set(name)
    where = data_folder(root) / chosen.folder
    if not _holds_pictures(where):
        raise FileNotFoundError(
            f"the set {name!r} is not at {where}; get it with: python -m manas_lite.data get {name}"
            + (f" --root {root}" if root else "")
        )
    return chosen, where


def _holds_pictures(folder: Path) -> bool:
    return any(file.suffix.lower() in SUFFIXES for file in folder.rglob("*"))


def list_set(chosen: DataSet, base: Path) -> Listing:
    """The pairs of a set on disk, in the layout and the parts that the registry states.

    Where the registry knows one part and the files state none, all pairs are of that part.
    """
    listing = list_folder(base / chosen.folder, chosen.layout)
    stated = any(pair.part for pair in listing.pairs)
    only = next(iter(chosen.pairs)) if len(chosen.pairs) == 1 and not stated else None
    listing.pairs = [
        replace(pair, part=only if pair.part is None else chosen.rename.get(pair.part, pair.part))
        for pair in listing.pairs
    ]
    return listing


def count_differences(chosen: DataSet, listing: Listing) -> list[str]:
    """One sentence for each part whose number of pairs (or backgrounds, where named) is not the registry's."""
    told = []
    for part, expected in chosen.pairs.items():
        found = sum(pair.part == part for pair in listing.pairs)
        if found != expected:
            told.append(f"{chosen.name}: {found:,} {part} pairs, the registry states {expected:,}")
    if chosen.group == "name":
        for part, expected in chosen.backgrounds.items():
            found = len({pair.background for pair in listing.pairs if pair.part == part})
            if found != expected:
                told.append(f"{chosen.name}: {found:,} {part} backgrounds, the registry states {expected:,}")
    return told
