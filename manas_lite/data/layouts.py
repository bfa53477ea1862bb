"""Layouts: how a folder says which picture is rainy, which is clean, and which share a background.

`list_folder` recognises, in this order and at every depth of the tree:

* `pairs.csv` with columns rainy, clean and optionally scene (or background), part, label; `file.jpg#left` is
  one half of a file;
* index files (.txt) with lines "rainy clean", all those of a folder;
* two folders by name: `input/target`, `rain/norain`, `rainy_image/ground_truth`, `in/gt`, ..., or rainy
  pictures in such a folder and the clean ones beside it; names are matched by `manas_lite.data.matching`;
* one folder: `rain-1.png` + `norain-1.png`, or `7.jpg` + `7_1.jpg` .. `7_14.jpg`;
* side by side: both pictures in one file, recognised because the two halves look alike;
* photographs, which have no rain of their own.

Each layout is a function of a folder that yields what it found (`Found`); `list_folder` alone puts it together.
"""

import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from manas_lite.data.listing import DataWarning, Found, Listing, Pair, Photo, read_csv, read_index
from manas_lite.data.matching import level_of, match_names, natural, part_of, role_of, stem_role
from manas_lite.data.pictures import Picture
from manas_lite.data.similarity import SAME, signature
from manas_lite.photos.images import SUFFIXES, ImageError

LAYOUTS = ("csv", "index", "folders", "flat", "clean-left", "rain-left", "photos")
_NO_PHOTOS = re.compile(r"mask|annot|label|seg", re.IGNORECASE)
_SAMPLE = 9


def list_folder(folder: str | os.PathLike[str], layout: str | None = None) -> Listing:
    """Return the pairs and photographs below a folder (or of a CSV file); no more than a few samples are decoded.

    What is not used, or looks wrong, is in `notes` and told in a DataWarning; files without a place are in `problems`.

    Args:
        folder: the folder, or a CSV file of pairs.
        layout: one of LAYOUTS where detection should not decide. "clean-left" and "rain-left" state the order of
            pictures that stand side by side; a warning tells when the pictures look the other way round.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: no picture is found.
    """
    root = Path(folder)
    if layout is not None and layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
    table = root / "pairs.csv"
    if root.is_file() and root.suffix.lower() == ".csv":
        root, table = root.parent, root
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder of pictures")
    listing = Listing(root)
    tabled = layout in (None, "csv") and table.is_file()
    for found in [read_csv(table)] if tabled else _walk(root, root, layout, set(root.resolve().parents)):
        for name in ("pairs", "photos", "problems", "notes"):
            getattr(listing, name).extend(getattr(found, name))
        if found.layout and found.layout not in listing.layouts:
            listing.layouts.append(found.layout)
        listing.named &= found.named
    if not listing.pairs and not listing.photos:
        raise ValueError(
            f"{root}: no pictures found (layout: {layout or 'detected'}); expected "
            "rainy and clean folders (input/target, rain/norain), pictures side by side, a pairs.csv, or photographs"
        )
    if listing.pairs and listing.photos:
        first = listing.photos[0].picture
        listing.notes.append(f"{root}: {len(listing.photos)} picture(s) beside the pairs are not used, such as {first}")
        listing.photos.clear()
    listing.notes += _swapped(listing)
    for note in listing.notes:
        warnings.warn(note, DataWarning, stacklevel=2)
    return listing


def rainy_half(left: np.ndarray, right: np.ndarray) -> str:
    """Return "left" or "right": rain adds light, so the rainy picture has the brighter differences."""
    difference = right.astype(np.float32).mean(-1) - left.astype(np.float32).mean(-1)
    gain, loss = float((difference.clip(0) ** 2).sum()), float((difference.clip(max=0) ** 2).sum())
    return "right" if gain >= loss else "left"


class Folder(NamedTuple):
    """One folder of the tree, with what no layout has taken yet, in natural order."""

    root: Path
    path: Path
    texts: list[Path]
    folders: list[Path]
    images: list[Path]

    @property
    def above(self) -> tuple[str, ...]:
        """Names of the folders from the root to this one."""
        return self.path.relative_to(self.root).parts

    def without(self, used: frozenset[Path]) -> "Folder":
        """Return the folder without what a layout has taken."""
        folders, images = ([p for p in paths if p not in used] for paths in (self.folders, self.images))
        return self._replace(folders=folders, images=images)


class Side(NamedTuple):
    """The rainy or the clean pictures of a layout: files below a folder."""

    home: Path
    files: Sequence[Path]

    def by_name(self) -> dict[str, Path]:
        """Return the files by their paths from `home`."""
        return {path.relative_to(self.home).as_posix(): path for path in self.files}


def _walk(root: Path, path: Path, layout: str | None, seen: set[Path]) -> Iterator[Found]:
    """Yield what a folder and those below it hold; `seen` is where a link must not lead again, parents included."""
    if path.resolve() in seen:
        yield Found(notes=[f"{path} leads to a folder that is read already, or that holds it, and is not followed"])
        return
    seen.add(path.resolve())
    children = sorted((p for p in path.iterdir() if not p.name.startswith(".")), key=lambda p: natural(p.name))
    folders = [p for p in children if p.is_dir()]
    odd = [p for p in folders if p.suffix.lower() in SUFFIXES]
    yield Found(problems=[(str(child), "is a folder named like an image") for child in odd])
    texts = [p for p in children if p.suffix.lower() == ".txt" and p.is_file()]
    images = [p for p in children if _is_image(p)]
    folder = Folder(root, path, texts, folders, images).without(frozenset(odd))
    for names, match in _ORDER.items():
        if layout is None or layout in names:
            for found in match(folder, layout):
                yield found
                folder = folder.without(found.used)
    for child in folder.folders:
        yield from _walk(root, child, layout, seen)


# --- the layouts: each yields what it finds in a folder; `stated` is the layout that the user named, or None ---


def _index_files(folder: Folder, stated: str | None) -> Iterator[Found]:
    """Yield the pairs of all index files, test.txt and train.txt; then nothing else of the folder is used."""
    pairs = [pair for text in folder.texts for pair in read_index(text, folder.above)]
    if pairs:  # train_small.txt may repeat lines of train.txt
        used = frozenset(folder.folders + folder.images)
        yield Found("index", list(dict.fromkeys(pairs)), named=False, used=used)


def _sibling_folders(folder: Folder, stated: str | None) -> Iterator[Found]:
    """Yield the pairs of sibling folders by their names, or of one such folder and the pictures beside it."""
    roles: dict[str, dict[str, Path]] = {}
    second: dict[Path, Path] = {}  # a folder whose role another one has already
    for child in sorted(folder.folders, key=lambda p: bool(_NO_PHOTOS.search(p.name))):  # `labels`: if none is clean
        if role := role_of(child.name):
            kind, part = role
            taken = roles.setdefault(part, {}).setdefault(kind, child)
            if taken != child:
                second[child] = taken
    images, used = folder.images, set()
    for part, homes in roles.items():
        sides = {
            kind: Side(homes[kind], _images_below(homes[kind])) if kind in homes else Side(folder.path, images)
            for kind in ("rainy", "clean")
        }
        if not sides["rainy"].files or not sides["clean"].files:
            continue
        claimed = [*homes.values()]
        if len(homes) == 1:  # the pictures beside the folder: as clean ones norain-* if any is called so
            dry = [p for p in images if stem_role(p.stem) == "clean"]
            if "rainy" in homes and dry:
                sides["clean"] = Side(folder.path, dry)
            claimed += images
            images = []
        used |= set(claimed)
        yield _matched("folders", folder, sides["rainy"], sides["clean"], part, claimed)
    for child, taken in second.items():
        if taken in used and _images_below(child) and not _NO_PHOTOS.search(child.name):
            problem = (str(child), f"holds pictures of the same kind as {taken}, which is used")
            yield Found(problems=[problem], used=frozenset([child]))


def _one_folder(folder: Folder, stated: str | None) -> Iterator[Found]:
    """Yield the pairs among the files of one folder, by their names; then all of its files are used."""
    roles = {p: stem_role(p.stem) for p in folder.images}
    rainy, clean = ([p for p, role in roles.items() if role == kind] for kind in ("rainy", "clean"))
    if not (rainy and clean):
        clean = [p for p in folder.images if re.fullmatch(r"\d+", p.stem)]
        rainy = [p for p in folder.images if re.fullmatch(r"\d+_\d+", p.stem)]
    if rainy and clean:
        yield _matched("flat", folder, Side(folder.path, rainy), Side(folder.path, clean), "", folder.images)
        reason = "is called neither rainy nor clean, as the pictures beside it are"
        yield Found(problems=[(str(path), reason) for path in sorted(set(folder.images) - {*rainy, *clean})])


def _side_by_side(folder: Folder, stated: str | None) -> Iterator[Found]:
    """Yield the pairs whose two pictures stand in one file."""
    order = stated or _order_of_halves(folder.images)
    if not folder.images or order is None:
        return
    pairs, named = [], True
    clean, rainy = ("left", "right") if order == "clean-left" else ("right", "left")
    for image in folder.images:
        inside = image.relative_to(folder.root)
        background, level = _background(inside.with_suffix("").parts)
        named &= level is not None
        halves = Picture(image, clean), Picture(image, rainy)  # type: ignore[arg-type]
        pairs.append(Pair(*halves, background, level or image.stem, part_of(inside.parent.parts)))
    yield Found(order, pairs, named=named, used=frozenset(folder.images))


def _photographs(folder: Folder, stated: str | None) -> Iterator[Found]:
    """Yield the pictures that stand alone, except in a folder of masks or labels."""
    if folder.images and not (folder.above and _NO_PHOTOS.search(folder.path.name)):
        part, above = part_of(folder.above), PurePosixPath(*folder.above)
        yield Found("photos", photos=[Photo(Picture(p), str(above / p.stem), part) for p in folder.images])


_ORDER: dict[tuple[str, ...], Callable[[Folder, str | None], Iterator[Found]]] = {
    ("index",): _index_files,
    ("folders",): _sibling_folders,
    ("flat",): _one_folder,
    ("clean-left", "rain-left"): _side_by_side,
    ("photos",): _photographs,
}


def _matched(layout: str, folder: Folder, rainy: Side, clean: Side, part: str, used: Sequence[Path]) -> Found:
    """Return the pairs of two sides whose names match, and as problems the files without a twin.

    `part` is what the names of the sides' folders say: rain_train/1 and rain_test/1 are two backgrounds.
    """
    rainy_files, clean_files = rainy.by_name(), clean.by_name()
    matches = match_names(list(rainy_files), list(clean_files))
    above = (*folder.above, part) if part else folder.above
    pairs = []
    for name, twin in matches.items():
        background, level = _background((*above, *PurePosixPath(twin).with_suffix("").parts))
        inside = PurePosixPath(name)
        own_part = part_of((*above, *inside.parent.parts))
        pictures = Picture(clean_files[twin]), Picture(rainy_files[name])
        pairs.append(Pair(*pictures, background, level or inside.stem, own_part))
    problems = [(str(p), f"has no clean twin in {clean.home}") for n, p in rainy_files.items() if n not in matches]
    lonely = sorted(set(clean_files) - set(matches.values()))
    problems += [(str(clean_files[name]), f"has no rainy version in {rainy.home}") for name in lonely]
    rains = Counter(matches.values()).values()
    several = 2 * sum(count > 1 for count in rains) > len(rains)  # most backgrounds: one odd name decides nothing
    return Found(layout, pairs, problems=problems, named=several, used=frozenset(used))


def _order_of_halves(images: Sequence[Path]) -> str | None:
    """Return "clean-left" or "rain-left" where the halves of most sampled pictures look alike, else None."""
    halves = list(_readable((Picture(image, "left"), Picture(image, "right")) for image in _sampled(images)))
    if not halves or float(np.median([signature(left) @ signature(right) for left, right in halves])) < SAME:
        return None
    right = sum(rainy_half(*both) == "right" for both in halves)
    return "clean-left" if right * 2 >= len(halves) else "rain-left"


def _swapped(listing: Listing) -> list[str]:
    """Return a note where most sampled pairs are brighter where they should be clean: rain adds light."""
    pairs = _readable((pair.clean, pair.rainy) for pair in _sampled(listing.pairs))
    votes = [rainy_half(*both) for both in pairs if both[0].shape == both[1].shape and not np.array_equal(*both)]
    if votes.count("left") * 2 <= len(votes):
        return []
    return [
        f"{listing.root}: {votes.count('left')} of {len(votes)} sampled pairs are brighter where they "
        "should be clean, so rain and clean are probably swapped; look at a pair, and state the layout"
    ]


def _readable(pairs: Iterator[tuple[Picture, Picture]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for first, second in pairs:
        try:
            yield first.read(), second.read()
        except (ImageError, OSError):
            continue


def _background(parts: Sequence[str]) -> tuple[str, str | None]:
    """Return background and level of a path: Rain_Heavy/x/7 and Rain_Light/x/7 are one background under two rains."""
    level = next((found for found in map(level_of, parts[:-1]) if found), None)
    return str(PurePosixPath(*(p for p in parts[:-1] if not level_of(p)), parts[-1])), level


def _is_image(path: Path) -> bool:
    """Tell by the name; "._x.jpg" and its like are what some systems leave in archives."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _images_below(folder: Path) -> list[Path]:
    return sorted(filter(_is_image, folder.rglob("*")), key=lambda p: natural(p.as_posix()))


def _sampled(items: Sequence[Any]) -> Sequence[Any]:
    return items[:: max(1, len(items) // _SAMPLE)][:_SAMPLE]
