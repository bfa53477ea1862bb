"""Layouts: how a folder says which picture is rainy, which is clean, and which share a background.

`list_folder` recognises, in this order and at every depth of the tree:

* `pairs.csv` with columns rainy, clean and optionally scene (or background), part, label; `file.jpg#left` is
  a half;
* index files (.txt) with lines "rainy clean", all those of a folder;
* two folders by name: `input/target`, `rain/norain`, `rainy_image/ground_truth`, `in/gt`, ..., or rainy
  pictures in such a folder and the clean ones beside it; names are matched by `manas_lite.data.matching`;
* one folder: `rain-1.png` + `norain-1.png`, or `7.jpg` + `7_1.jpg` .. `7_14.jpg`;
* side by side: both pictures in one file, recognised because the two halves look alike;
* photographs, which have no rain of their own.
"""

import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from manas_lite.data.listing import DataWarning, Listing, Pair, Photo, read_csv, read_index
from manas_lite.data.matching import level_of, match_names, natural, part_of, role_of, stem_role
from manas_lite.data.pictures import Picture
from manas_lite.data.similarity import SAME, signature
from manas_lite.photos.images import SUFFIXES, ImageError

__all__ = ["LAYOUTS", "DataWarning", "Listing", "Pair", "Photo", "list_folder", "rainy_half"]

LAYOUTS = ("csv", "index", "folders", "flat", "clean-left", "rain-left", "photos")
_NO_PHOTOS = re.compile(r"mask|annot|label|seg", re.IGNORECASE)
_SAMPLE = 9


def list_folder(folder: str | os.PathLike[str], layout: str | None = None) -> Listing:
    """Pairs and photographs below a folder (or of a CSV file), without decoding more than a few samples.

    layout: one of LAYOUTS where detection should not decide. "clean-left" and "rain-left" state the order of
      pictures that stand side by side; a warning tells when the pictures look the other way round.

    What is not used, or looks wrong, is in `notes` and told in a DataWarning; files without a place are in `problems`.
    Raises FileNotFoundError for a missing folder and ValueError where no picture is found.
    """
    root = Path(folder)
    if layout is not None and layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
    if root.is_file() and root.suffix.lower() == ".csv":
        root, table = root.parent, root
    else:
        table = root / "pairs.csv"
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder of pictures")
    listing = Listing(root)
    if layout in (None, "csv") and table.is_file():
        read_csv(listing, table)
    else:
        _walk(listing, root, layout, set(root.resolve().parents))
    if not listing.pairs and not listing.photos:
        raise ValueError(
            f"{root}: no pictures found (layout: {layout or 'detected'}); expected "
            "rainy and clean folders (input/target, rain/norain), pictures side by side, a pairs.csv, or photographs"
        )
    if listing.pairs and listing.photos:
        first = listing.photos[0].picture
        listing.notes.append(f"{root}: {len(listing.photos)} picture(s) beside the pairs are not used, such as {first}")
        listing.photos.clear()
    _note_if_swapped(listing)
    for note in listing.notes:
        warnings.warn(note, DataWarning, stacklevel=2)
    return listing


def rainy_half(left: np.ndarray, right: np.ndarray) -> str:
    """ "left" or "right": rain adds light, so the rainy one has the brighter differences."""
    difference = right.astype(np.float32).mean(-1) - left.astype(np.float32).mean(-1)
    gain, loss = float((difference.clip(0) ** 2).sum()), float((difference.clip(max=0) ** 2).sum())
    return "right" if gain >= loss else "left"


def _walk(listing: Listing, folder: Path, layout: str | None, seen: set[Path]) -> None:
    """Lists a folder and those below it; `seen`: where a link must not lead again, the folders above included."""
    if folder.resolve() in seen:
        listing.notes.append(f"{folder} leads to a folder that is read already, or that holds it, and is not followed")
        return
    seen.add(folder.resolve())
    children = sorted((p for p in folder.iterdir() if not p.name.startswith(".")), key=lambda p: natural(p.name))
    folders = [p for p in children if p.is_dir()]
    images = [p for p in children if _is_image(p)]
    for child in folders:
        if child.suffix.lower() in SUFFIXES:
            listing.problems.append((str(child), "is a folder named like an image"))
    folders = [p for p in folders if p.suffix.lower() not in SUFFIXES]
    if layout in (None, "index"):
        texts = [p for p in children if p.is_file() and p.suffix.lower() == ".txt"]
        found = [read_index(listing, text) for text in texts]  # all of them: test.txt and train.txt
        if any(found):
            listing.pairs = list(dict.fromkeys(listing.pairs))  # train_small.txt may repeat lines of train.txt
            return
    if layout in (None, "folders"):
        folders, images = _pair_folders(listing, folder, folders, images)
    if layout in (None, "flat") and images:
        images = _pair_flat(listing, images)
    if images and layout in (None, "clean-left", "rain-left"):
        order = layout or _side_by_side(images)
        if order:
            _pair_halves(listing, images, order)
            images = []
    no_photos = folder != listing.root and _NO_PHOTOS.search(folder.name)
    if images and layout in (None, "photos") and not no_photos:
        listing.layouts += [] if "photos" in listing.layouts else ["photos"]
        for image in images:
            inside = image.relative_to(listing.root)
            part = part_of(inside.parent.parts)
            listing.photos.append(Photo(Picture(image), str(PurePosixPath(inside.with_suffix(""))), part))
    for child in folders:
        _walk(listing, child, layout, seen)


def _pair_folders(
    listing: Listing, folder: Path, folders: list[Path], images: list[Path]
) -> tuple[list[Path], list[Path]]:
    """Pairs sibling folders by their names; returns the folders and images that took no part."""
    roles: dict[str, dict[str, Path]] = {}
    second: dict[Path, Path] = {}  # a folder whose role another one has already
    for child in sorted(folders, key=lambda p: bool(_NO_PHOTOS.search(p.name))):  # `labels` if nothing else is clean
        role = role_of(child.name)
        if role:
            taken = roles.setdefault(role[1], {}).setdefault(role[0], child)
            if taken != child:
                second[child] = taken
    used: set[Path] = set()
    for part, found in roles.items():
        rainy, clean = found.get("rainy"), found.get("clean")
        rainy_files = _images_below(rainy) if rainy else images
        clean_files = _images_below(clean) if clean else images
        if not rainy_files or not clean_files or rainy_files is clean_files:
            continue
        if not clean and rainy:  # clean pictures beside the rainy folder: norain-* if any is called so
            clean_files = [p for p in images if stem_role(p.stem) == "clean"] or images
        _add_matches(
            listing,
            "folders",
            rainy_files,
            rainy or folder,
            clean_files,
            clean or folder,
            folder,
            part or None,
        )
        used |= {p for p in (rainy, clean) if p}
        if not (rainy and clean):
            images = []
    for child, taken in second.items():
        if taken in used and _images_below(child) and not _NO_PHOTOS.search(child.name):
            listing.problems.append((str(child), f"holds pictures of the same kind as {taken}, which is used"))
            used.add(child)
    return [p for p in folders if p not in used], images


def _pair_flat(listing: Listing, images: list[Path]) -> list[Path]:
    """Pairs files of one folder by their names; returns the images unless they were pairs."""
    roles = {p: stem_role(p.stem) for p in images}
    rainy = [p for p in images if roles[p] == "rainy"]
    clean = [p for p in images if roles[p] == "clean"]
    if not (rainy and clean):
        clean = [p for p in images if re.fullmatch(r"\d+", p.stem)]
        rainy = [p for p in images if re.fullmatch(r"\d+_\d+", p.stem)]
    if not (rainy and clean):
        return images
    home = images[0].parent
    _add_matches(listing, "flat", rainy, home, clean, home, home, None)
    for path in sorted(set(images) - {*rainy, *clean}):
        listing.problems.append((str(path), "is called neither rainy nor clean, as the pictures beside it are"))
    return []


def _add_matches(
    listing: Listing,
    layout: str,
    rainy_files: Sequence[Path],
    rainy_home: Path,
    clean_files: Sequence[Path],
    clean_home: Path,
    folder: Path,
    part: str | None,
) -> None:
    rainy = {p.relative_to(rainy_home).as_posix(): p for p in rainy_files}
    clean = {p.relative_to(clean_home).as_posix(): p for p in clean_files}
    matches = match_names(list(rainy), list(clean))
    above = folder.relative_to(listing.root)
    rains = Counter(matches.values()).values()
    several = 2 * sum(count > 1 for count in rains) > len(rains)  # most backgrounds: one odd name decides nothing
    named = (part,) if part else ()  # rain_train/1 and rain_test/1 are two backgrounds
    for name, twin in matches.items():
        inner = PurePosixPath(twin).with_suffix("")
        where = (*above.parts, *PurePosixPath(name).parent.parts)
        background, label = _density((*above.parts, *named, *inner.parts))
        pair_part = part_of((*above.parts, *named, *where))
        label = label or PurePosixPath(name).stem
        listing.pairs.append(Pair(Picture(clean[twin]), Picture(rainy[name]), background, label, pair_part))
    for name, path in rainy.items():
        if name not in matches:
            listing.problems.append((str(path), f"has no clean twin in {clean_home}"))
    for name in sorted(set(clean) - set(matches.values())):
        listing.problems.append((str(clean[name]), f"has no rainy version in {rainy_home}"))
    listing.named &= several
    listing.layouts += [] if layout in listing.layouts else [layout]


def _pair_halves(listing: Listing, images: Iterable[Path], order: str) -> None:
    for image in images:
        inside = image.relative_to(listing.root)
        background, label = _density(inside.with_suffix("").parts)
        clean, rainy = ("left", "right") if order == "clean-left" else ("right", "left")
        listing.named &= label is not None
        listing.pairs.append(
            Pair(
                Picture(image, clean),  # type: ignore[arg-type]
                Picture(image, rainy),  # type: ignore[arg-type]
                background,
                label or image.stem,
                part_of(inside.parent.parts),
            )
        )
    listing.layouts += [] if order in listing.layouts else [order]


def _side_by_side(images: Sequence[Path]) -> str | None:
    """ "clean-left" or "rain-left" where the halves of most sampled pictures look alike, else None."""
    alike, votes = [], []
    for image in _sampled(images):
        try:
            left, right = Picture(image, "left").read(), Picture(image, "right").read()
        except (ImageError, OSError):
            continue
        alike.append(float(signature(left) @ signature(right)))
        votes.append(rainy_half(left, right))
    if not alike or float(np.median(alike)) < SAME:
        return None
    return "clean-left" if votes.count("right") * 2 >= len(votes) else "rain-left"


def _note_if_swapped(listing: Listing) -> None:
    """Rain adds light: where most sampled pairs say otherwise, rainy and clean are probably swapped."""
    votes = []
    for pair in _sampled(listing.pairs):
        try:
            clean, rainy = pair.clean.read(), pair.rainy.read()
        except (ImageError, OSError):
            continue
        if clean.shape == rainy.shape and not np.array_equal(clean, rainy):
            votes.append(rainy_half(clean, rainy))
    if len(votes) > 0 and votes.count("left") * 2 > len(votes):
        note = (
            f"{listing.root}: {votes.count('left')} of {len(votes)} sampled pairs are brighter where they "
            "should be clean, so rain and clean are probably swapped; look at a pair, and state the layout"
        )
        listing.notes.append(note)


def _density(parts: Sequence[str]) -> tuple[str, str | None]:
    """Background and level of a path: Rain_Heavy/x/7, Rain_Light/x/7 are one background under two rains."""
    level = next((found for found in map(level_of, parts[:-1]) if found), None)
    return str(PurePosixPath(*(p for p in parts[:-1] if not level_of(p)), parts[-1])), level


def _is_image(path: Path) -> bool:
    """By name; "._x.jpg" and its like are what some systems leave in archives."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _images_below(folder: Path) -> list[Path]:
    found = (p for p in folder.rglob("*") if _is_image(p))
    return sorted(found, key=lambda p: natural(p.as_posix()))


def _sampled(items: Sequence[Any], count: int = _SAMPLE) -> list[Any]:
    step = max(1, len(items) // count)
    return list(items[::step][:count])
