"""Layouts: how a folder says which picture is rainy, which is clean, and which share a background.

`list_folder` recognises, in this order and at every depth of the tree:

* `pairs.csv` with columns rainy, clean and optionally scene (or background), part, label; `file.jpg#left` is
  one half of a file;
* index files (.txt) with lines "rainy clean", all those of a folder;
* two folders by name: `input/target`, `rain/norain`, `rainy_image/ground_truth`, `in/gt`, ..., or rainy
  pictures in such a folder and the clean ones beside it; names are matched by `manas_lite.data.matching`;
* one folder: `rain-1.png` + `norain-1.png`, or `7.jpg` + `7_1.jpg` .. `7_14.jpg`;
* side by side: both pictures in one file, recognised because the two halves look alike;
* photographs, which have no rain of their own;
* photographs that show the same scenes as others, in folders or under names that say nothing.

Names only propose. The pictures confirm, one pair at a time (`manas_lite.data.pairing`). Each layout is a function of a
folder that yields what it found; `list_folder` alone puts it together.
"""

import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from manas_lite.data import pairing
from manas_lite.data.listing import NO_TEXT, DataWarning, Listing, Pair, Photo, encoding_of, read_csv, read_index
from manas_lite.data.matching import level_of, match_names, natural, part_of, role_of, stem_role
from manas_lite.data.pictures import Picture
from manas_lite.data.unpack import DEPTH
from manas_lite.photos.images import is_hidden
from manas_lite.photos.photographs import PHOTOGRAPHS
from manas_lite.runs.documents import first_few

LAYOUTS = ("csv", "index", "folders", "flat", "clean-left", "rain-left", "photos")
_NO_PHOTOS = re.compile(r"mask|annot|label|seg", re.IGNORECASE)


def list_folder(folder: str | os.PathLike[str], layout: str | None = None) -> Listing:
    """Return the pairs and photographs below a folder (or of a CSV file).

    What looks wrong is in `notes` and told in a DataWarning, what was guessed or is not used is in `remarks`, and
    files without a place, or beside the wrong twin, are in `problems`. Every picture of a pair is decoded the first
    time; what was seen is kept (`manas_lite.data.similarity.cache_file`).

    Args:
        folder: the folder, or a CSV file of pairs.
        layout: one of LAYOUTS where detection should not decide. "clean-left" and "rain-left" state the order of
            pictures that stand side by side; a warning tells when the pictures look the other way round. "RAINY:CLEAN"
            states the names of the rainy and of the clean folders, or words in the names of rainy and clean files.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: no picture is found, or pictures look like pairs and nothing says which are the rainy ones.
    """
    root = Path(folder)
    if layout is not None and layout not in LAYOUTS and not re.fullmatch(r"[^:]+:[^:]+", layout):
        raise ValueError(
            f"layout must be one of {', '.join(LAYOUTS)}, or RAINY:CLEAN, the names of two folders; got {layout!r}"
        )
    table = root / "pairs.csv"
    if root.is_file() and root.suffix.lower() == ".csv":
        root, table = root.parent, root
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder of pictures")
    listing = Listing(root)
    tabled = layout in (None, "csv") and table.is_file()
    for found in [read_csv(table)] if tabled else _walk(root, root, layout, set(root.resolve().parents)):
        listing.add(found)
    if layout is None:
        _pair_photos(listing)
    listing.photos = [
        photo
        for photo in listing.photos
        if (home := photo.picture.path.parent) == root or not _NO_PHOTOS.search(home.name)
    ]
    if layout is None and not listing.pairs:
        _doubt(listing)
    _check_names(listing)
    listing.layouts = [name for name in listing.layouts if name != "photos" or listing.photos]
    used = {picture.path for pair in listing.pairs for picture in (pair.clean, pair.rainy)}
    beside = listing.photos if used else []
    used |= {photo.picture.path for photo in listing.photos} | {Path(path) for path, _ in listing.problems}
    others = _left_out(listing, used) if root == Path(folder) else ""
    if not used:
        hidden = f", but {len(listing.hidden)} hidden, such as {listing.hidden[0]}: rename it" if listing.hidden else ""
        raise ValueError(
            f"{root}: no pictures found (layout: {layout or 'detected'}){others}{hidden}; expected "
            "rainy and clean folders (input/target, rain/norain), pictures side by side, a pairs.csv, or photographs"
        )
    if beside:
        first = beside[0].picture
        listing.notes.append(f"{root}: {len(beside)} picture(s) beside the pairs are not used, such as {first}")
        listing.photos = []
    pairing.confirm(listing)
    pairing.leave_copies(listing)
    pairing.tell_swapped(listing)
    for note in listing.notes:
        warnings.warn(note, DataWarning, stacklevel=2)
    return listing


def list_patterns(folder: Path, rainy: str, clean: str) -> Listing:
    """Return the pairs below a folder whose names fit two regular expressions; other pictures are not used.

    Args:
        folder: where the paths begin.
        rainy: finds, in the path of a rainy picture below the folder, groups by name. Those that `clean` has too must
            be the same in the clean picture's path. The group `part` names a part, and what is left is the label.
        clean: the same of clean pictures. The group `frame` need not agree where a scene has one clean picture alone.
    """
    groups = [name for name in re.compile(clean).groupindex if name != "frame"]
    named = [(path, path.relative_to(folder).as_posix()) for path in _images_below(folder)]
    twins: dict[tuple[str, ...], dict[str | None, Path]] = {}
    for path, name in named:
        if found := re.search(clean, name):
            twins.setdefault(found.group(*groups, 0)[:-1], {})[found.groupdict().get("frame")] = path
    listing = Listing(folder, layouts=["patterns"])
    for path, name in named:
        if found := re.search(rainy, name):
            frames = twins.get(key := found.group(*groups, 0)[:-1], {})
            twin = frames.get(found.groupdict().get("frame"), next(iter(frames.values())) if len(frames) == 1 else None)
            if twin is None:
                listing.problems.append((str(path), "has no clean twin"))
                continue
            label = "/".join(t for group, t in found.groupdict().items() if t and group not in (*groups, "part"))
            background, part = "/".join(filter(None, key)), part_of([found.groupdict().get("part") or ""])
            listing.pairs.append(Pair(Picture(twin), Picture(path), background, label or path.stem, part))
    if not (listing.pairs or listing.problems):
        raise ValueError(f"{folder}: no picture is named as those of this set are (rainy: {rainy}; clean: {clean})")
    pairing.confirm(listing)
    return listing


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

    def without(self, used: set[Path]) -> "Folder":
        """Return the folder without what a layout has taken."""
        folders, images = ([p for p in paths if p not in used] for paths in (self.folders, self.images))
        return self._replace(folders=folders, images=images)


Side = tuple[Path, Sequence[Path]]
"""The rainy or the clean pictures of a layout: a folder, and files below it."""


def _walk(root: Path, path: Path, layout: str | None, seen: set[Path]) -> Iterator[Listing]:
    """Yield what a folder and those below it hold; `seen` is where a link must not lead again, parents included."""
    if path.resolve() in seen:
        yield Listing(notes=[f"{path} leads to a folder that is read already, or that holds it, and is not followed"])
        return
    if len(path.relative_to(root).parts) > DEPTH:
        yield Listing(notes=[f"{path} lies more than {DEPTH} folders deep, and is not read"])
        return
    seen.add(path.resolve())
    children = sorted((p for p in path.iterdir() if not is_hidden(p.name)), key=lambda p: natural(p.name))
    folders = [p for p in children if p.is_dir()]
    odd = [p for p in folders if p.suffix.lower() in PHOTOGRAPHS]
    yield Listing(problems=[(str(child), "is a folder named like an image") for child in odd])
    texts = [p for p in children if p.suffix.lower() == ".txt" and p.is_file()]
    images = [p for p in children if _is_image(p)]
    folder = Folder(root, path, texts, folders, images).without(set(odd))
    for names, match in _ORDER.items():
        if layout is None or layout in names or (":" in layout and names[0] in ("folders", "flat")):
            for found in match(folder, layout):
                yield found
                folder = folder.without(found.used)
    for child in folder.folders:
        yield from _walk(root, child, layout, seen)


# --- the layouts: each yields what it finds in a folder; `stated` is the layout that the user named, or None ---


def _index_files(folder: Folder, stated: str | None) -> Iterator[Listing]:
    """Yield the pairs of all index files, test.txt and train.txt; then nothing else of the folder is used."""
    found = Listing()
    for text in folder.texts:
        found.add(read_index(text, folder.above))
    found.pairs = list(dict.fromkeys(found.pairs))  # train_small.txt may repeat lines of train.txt
    if found.pairs:
        found.used = {*folder.folders, *folder.images}
    yield found


def _sibling_folders(folder: Folder, stated: str | None) -> Iterator[Listing]:
    """Yield the pairs of sibling folders by their names, or of one such folder and the pictures beside it."""
    roles: dict[str, dict[str, Path]] = {}
    second: dict[Path, Path] = {}  # a folder whose role another one has already
    for child in sorted(folder.folders, key=lambda p: bool(_NO_PHOTOS.search(p.name))):  # `labels`: if none is clean
        if role := role_of(child.name, stated):
            kind, part = role
            taken = roles.setdefault(part, {}).setdefault(kind, child)
            if taken != child:
                second[child] = taken
    images, used = folder.images, set[Path]()
    for part, homes in roles.items():
        sides: dict[str, Side] = {"rainy": (folder.path, images), "clean": (folder.path, images)}
        sides |= {kind: (home, _images_below(home)) for kind, home in homes.items()}
        if not all(files for _, files in sides.values()):
            continue
        claimed = [*homes.values()]
        if len(homes) == 1:  # the pictures beside the folder: as clean ones norain-* if any is called so
            dry = [p for p in images if stem_role(p.stem, stated) == "clean"]
            if "rainy" in homes and dry:
                sides["clean"] = folder.path, dry
            claimed += images
            images = []
        used |= set(claimed)
        yield _matched("folders", folder, sides["rainy"], sides["clean"], part, claimed)
    for child, taken in second.items():
        if taken in used and _images_below(child) and not _NO_PHOTOS.search(child.name):
            problem = (str(child), f"holds pictures of the same kind as {taken}, which is used")
            yield Listing(problems=[problem], used={child})


def _one_folder(folder: Folder, stated: str | None) -> Iterator[Listing]:
    """Yield the pairs among the files of one folder, by their names; then all of its files are used."""
    roles = {p: stem_role(p.stem, stated) for p in folder.images}
    rainy, clean = ([p for p, role in roles.items() if role == kind] for kind in ("rainy", "clean"))
    numbers = stated in (None, "flat") and not (rainy and clean)
    if numbers:
        clean = [p for p in folder.images if re.fullmatch(r"\d+", p.stem)]
        rainy = [p for p in folder.images if re.fullmatch(r"\d+_\d+", p.stem)]
    if rainy and clean:
        found = _matched("flat", folder, (folder.path, rainy), (folder.path, clean), "", folder.images)
        if numbers and stated is None and not pairing.alike([(pair.clean, pair.rainy) for pair in found.pairs]):
            return  # photographs with numbers for names
        yield found
        reason = "is called neither rainy nor clean, as the pictures beside it are"
        yield Listing(problems=[(str(path), reason) for path in sorted(set(folder.images) - {*rainy, *clean})])


def _side_by_side(folder: Folder, stated: str | None) -> Iterator[Listing]:
    """Yield the pairs whose two pictures stand in one file."""
    order, remarks = (stated, []) if stated else _order_of_halves(folder)
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
    yield Listing(layouts=[order], pairs=pairs, remarks=remarks, named=named, used=set(folder.images))


def _photographs(folder: Folder, stated: str | None) -> Iterator[Listing]:
    """Yield the pictures that stand alone. Those in folders of masks or labels are dropped unless they are paired."""
    if folder.images:
        part, above = part_of(folder.above), PurePosixPath(*folder.above)
        photos = [Photo(Picture(p), str(above / p.stem), part) for p in folder.images]
        yield Listing(layouts=["photos"], photos=photos)


_ORDER: dict[tuple[str, ...], Callable[[Folder, str | None], Iterator[Listing]]] = {
    ("index",): _index_files,
    ("folders",): _sibling_folders,
    ("flat",): _one_folder,
    ("clean-left", "rain-left"): _side_by_side,
    ("photos",): _photographs,
}


def _matched(layout: str, folder: Folder, rainy: Side, clean: Side, part: str, used: Sequence[Path]) -> Listing:
    """Return the pairs of two sides whose names match, and as problems the files without a twin.

    `part` is what the names of the sides' folders say: rain_train/1 and rain_test/1 are two backgrounds.
    """
    rainy_files, clean_files = (
        {path.relative_to(home).as_posix(): path for path in files} for home, files in (rainy, clean)
    )
    matches = match_names(list(rainy_files), list(clean_files))
    if layout == "flat" and len(clean_files) == 1:  # a folder for each scene
        matches = dict.fromkeys(rainy_files, *clean_files)
    above = (*folder.above, part) if part else folder.above
    pairs = []
    for name, twin in matches.items():
        background, level = _background((*above, *PurePosixPath(twin).with_suffix("").parts))
        inside = PurePosixPath(name)
        own_part = part_of((*above, *inside.parent.parts))
        pictures = Picture(clean_files[twin]), Picture(rainy_files[name])
        pairs.append(Pair(*pictures, background, level or inside.stem, own_part))
    problems = [(str(p), f"has no clean twin in {clean[0]}") for n, p in rainy_files.items() if n not in matches]
    lonely = sorted(set(clean_files) - set(matches.values()))
    problems += [(str(clean_files[name]), f"has no rainy version in {rainy[0]}") for name in lonely]
    rains = Counter(matches.values()).values()
    several = 2 * sum(count > 1 for count in rains) > len(rains)  # most backgrounds: one odd name decides nothing
    return Listing(layouts=[layout], pairs=pairs, problems=problems, named=several, used=set(used))


def _order_of_halves(folder: Folder) -> tuple[str | None, list[str]]:
    """Return "clean-left" or "rain-left" where the halves of most sampled pictures look alike, and how sure that is."""
    halves = [(Picture(image, "left"), Picture(image, "right")) for image in pairing.sampled(folder.images)]
    if not pairing.alike(halves):
        return None, []
    left, right, count = pairing.rain_votes(halves)
    side = pairing.clear_side(left, right, count)
    if side is None:
        raise ValueError(
            f"{folder.path}: two pictures stand side by side in each file, and their streaks do not say for sure which "
            f"is the rainy one (left {left}, right {right} of {count} sampled files): say it with layout='clean-left' "
            "or 'rain-left' (--layout), or with 'photos' where they are photographs"
        )
    order, where = (("rain-left", "left"), ("clean-left", "right"))[side]
    sure = f"{max(left, right)} of {count} sampled files show streaks there; layout={order!r} states it"
    return order, [f"{folder.path}: two pictures side by side, the rainy one on the {where}: {sure}"]


def _pair_photos(listing: Listing) -> None:
    """Turn those photographs into pairs that show the same scenes as others, under names that say nothing."""
    root = listing.root
    homes, edges = pairing.look_alikes(root, listing.photos)
    if not edges:
        listing.remarks += pairing.unpaired(root, listing.photos) if listing.photos and not listing.pairs else []
        return
    files: dict[pairing.Home, list[Path]] = {}
    for home, photo in zip(homes, listing.photos, strict=True):
        files.setdefault(home, []).append(photo.picture.path)
    for clean in dict.fromkeys(edge[1] for edge in edges):
        rainy = [edge[0] for edge in edges if edge[1] == clean]
        away = [name for name in clean.folder.parts if name in rainy[0].folder.parts]  # a/gt/train beside a/data/train
        folder = Folder(root, root.joinpath(*away), [], [], [])
        rainy_side = root, [path for home in rainy for path in files[home]]
        listing.add(_matched("folders", folder, rainy_side, (root / clean.folder, files[clean]), "", []))
    twins: dict[Picture, Path] = {}
    for pair in listing.pairs:
        if (other := twins.setdefault(pair.rainy, pair.clean.path)) != pair.clean.path:
            layouts = " or ".join(repr(pairing.stated_roles(*edge[:2])) for edge in edges)
            raise ValueError(
                f"{root}: {other} and {pair.clean.path} both show the scene of {pair.rainy}, so one of their folders "
                f"may hold results and no photographs: say which are the clean ones with layout={layouts} (--layout), "
                "or take the others away"
            )
    for rain, clean, why in edges:
        listing.remarks.append(
            f"{root}: {rain} and {clean} show the same scenes, and are taken for rainy and clean: {why}; "
            f"layout='{pairing.stated_roles(rain, clean)}' states it"
        )
    paired = {home for edge in edges for home in edge[:2]}
    listing.photos = [photo for home, photo in zip(homes, listing.photos, strict=True) if home not in paired]


def _says_rain(folder: str) -> bool:
    role = role_of(folder)
    return role[0] == "rainy" if role else level_of(folder) is not None and "rain" in folder.lower()


def _doubt(listing: Listing) -> None:
    """Refuse photographs under the names of rainy pictures, and move those that hold two pictures to the problems."""
    root, suspects, homes = listing.root, set[Path](), dict[Path, list[Path]]()
    for photo in listing.photos:
        homes.setdefault(photo.picture.path.parent, []).append(photo.picture.path)
    for home, paths in homes.items():
        named = [path for path in paths if stem_role(path.stem) == "rainy"]
        if any(map(_says_rain, (root.absolute().name, *home.relative_to(root).parts))):
            suspects |= {*paths}
        elif 2 * len(named) > len(paths):  # a single one may be called "in the park"
            suspects |= {*named}
    if suspects:
        others = [photo.picture for photo in listing.photos if photo.picture.path not in suspects]
        beside = f"; the others, such as {others[0]}, do not show their scenes" if others else ""
        raise ValueError(
            f"{root}: {len(suspects)} picture(s) are named as rainy ones, such as {min(suspects)}, and have no clean "
            f"twins{beside}. Add the clean ones, in a folder called clean, or say layout='photos' (--layout photos) "
            "where they are photographs without rain"
        )
    doubled = pairing.shown_twice([photo.picture for photo in listing.photos])
    twice = [str(photo.picture) for photo, bad in zip(listing.photos, doubled, strict=True) if bad]
    listing.photos = [photo for photo, bad in zip(listing.photos, doubled, strict=True) if not bad]
    why = "one scene twice, in parts beside or above each other, as a pair in one file does"
    if 20 * len(twice) > len(doubled):
        reason = (
            f"holds {why}: cut it into two files, or give those that stand side by side a folder of their own; "
            "layout='photos' (--layout photos) says that it is one photograph"
        )
        listing.problems += [(path, reason) for path in twice]
    elif twice:  # a few may be a fence, or waves
        listing.remarks.append(
            f"{root}: {len(twice)} picture(s) seem to hold {why}, and are left out: {first_few(twice)}; "
            "layout='photos' (--layout photos) takes them too"
        )


def _check_names(listing: Listing) -> None:
    """Move pictures whose names are no text to the problems, and remark on those that name no part beside others."""
    root = str(listing.root)
    files = [file for pair in listing.pairs for file in (pair.rainy.path, pair.clean.path)]
    files += [photo.picture.path for photo in listing.photos]
    odd = {file for file in files if NO_TEXT.search(str(file).removeprefix(root))}
    listing.problems += [(str(file), "has a name that is no UTF-8 text: rename it") for file in sorted(odd)]
    listing.pairs = [pair for pair in listing.pairs if odd.isdisjoint((pair.clean.path, pair.rainy.path))]
    listing.photos = [photo for photo in listing.photos if photo.picture.path not in odd]
    parts = [(pair.rainy.path, pair.part) for pair in listing.pairs]
    parts += [(photo.picture.path, photo.part) for photo in listing.photos if not parts]
    loose = [path for path, part in parts if part is None]
    if 0 < len(loose) < len(parts):
        listing.remarks.append(
            f"{root}: {len(loose)} of {len(parts)} name no known part (train, val, test and their like), such as "
            f"{loose[0]}: they are for training, and parts that are missing are divided off them"
        )


def _left_out(listing: Listing, used: set[Path]) -> str:
    """Count and name what lies below the root and is not used; return the numbers of files by ending."""
    unused, endings = list[Path](), dict[str, list[Path]]()
    for home, _, names in _below(listing.root):
        hidden = any(map(is_hidden, Path(home).relative_to(listing.root).parts))
        taken = not used.isdisjoint({Path(home), *Path(home).parents})
        for path in (Path(home, name) for name in sorted(names)):
            picture = path.suffix.lower() in PHOTOGRAPHS
            if hidden or is_hidden(path.name):
                listing.hidden += [path] * picture
            elif not picture:
                endings.setdefault(path.suffix.lower() or "without an ending", []).append(path)
            elif not taken and path not in used:
                unused.append(path)
    if unused:
        listing.remarks.append(f"{listing.root}: {len(unused)} picture(s) are not used, such as {unused[0]}")
    foreign = {ending: [*filter(_is_binary, paths)] for ending, paths in endings.items()}
    foreign = {ending: paths for ending, paths in foreign.items() if paths}
    if foreign:
        counts = ", ".join(f"{len(paths)} {ending}" for ending, paths in sorted(foreign.items()))
        first = next(iter(foreign.values()))[0]
        listing.remarks.append(f"{listing.root}: files of these endings are not read: {counts}, such as {first}")
    return "".join(f", but {len(paths)} {ending}" for ending, paths in sorted(endings.items()))


def _is_binary(path: Path) -> bool:
    """Tell whether a file is no text, by its first bytes."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        head = file.read(512)
    return b"\0" in head and encoding_of(head) == "utf-8-sig"


def _background(parts: Sequence[str]) -> tuple[str, str | None]:
    """Return background and level of a path: Rain_Heavy/x/7 and Rain_Light/x/7 are one background under two rains."""
    level = next((found for found in map(level_of, parts[:-1]) if found), None)
    return str(PurePosixPath(*(p for p in parts[:-1] if not level_of(p)), parts[-1])), level


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in PHOTOGRAPHS and not is_hidden(path.name) and path.is_file()


def _below(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Walk through a folder as `os.walk` does, but no deeper than `DEPTH`."""
    for home, folders, names in os.walk(folder):
        if len(Path(home).relative_to(folder).parts) >= DEPTH:
            folders.clear()
        yield home, folders, names


def _images_below(folder: Path) -> list[Path]:
    found: list[Path] = []
    for home, folders, names in _below(folder):
        folders[:] = [name for name in folders if not is_hidden(name)]
        found += filter(_is_image, (Path(home, name) for name in names))
    return sorted(found, key=lambda p: natural(p.as_posix()))
