"""`open_split`: whatever the user names becomes training, validation and test scenes."""

import csv
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

from manas_lite.data.checking import audit_listing
from manas_lite.data.grouping import Parts, backgrounds_of, group_scenes, without_leaks
from manas_lite.data.layouts import list_folder
from manas_lite.data.listing import NO_TEXT, DataWarning, Listing
from manas_lite.data.pictures import Picture, RainyPicture
from manas_lite.data.registry import count_differences, data_folder, list_set, locate
from manas_lite.data.scenes import Scene, rain_seed
from manas_lite.data.splits import PARTS, Split, split_scenes
from manas_lite.rain import LEVELS
from manas_lite.runs.documents import first_few


def open_split(
    data: "Split | str | os.PathLike[str]",
    *,
    seed: int = 0,
    levels: Sequence[str | float] = tuple(LEVELS),
    layout: str | None = None,
    strict: bool = True,
    root: str | os.PathLike[str] | None = None,
) -> Split:
    """Return training, validation and test scenes of `data`.

    A folder's own parts (train*, val*, test*) are kept, and what states no part beside them is training; validation is
    carved from training where it is missing, and so is test. Training scenes whose background is also in another part
    are left out, and validation scenes that are also tested, with a DataWarning; photographs and scenes that look
    alike stay on one side. Only a registered set that names its backgrounds is believed without looking.
    A registered set that is a test set alone gives no training scenes.

    Args:
        data: "photos" (the bundled photographs under synthetic rain, one version per level), a folder of pairs or of
            photographs, a CSV file of pairs, the name of a registered set that has been downloaded, or a Split, which
            is returned as it is. "FOLDER#LAYOUT" states the layout of a folder where only one text can be given.
        seed: draws the split where the set defines none, and the training rain. The rain of validation and test
            pictures is the same for every seed, so that runs with different seeds are judged on the same pictures.
        levels: rain levels laid over photographs that have no rain of their own.
        layout: how a folder is laid out where detection should not decide (`manas_lite.data.layouts.list_folder`).
        strict: True refuses a folder with pictures that have no twin, naming them, and lets a broken file stop
            whoever reads it. False decodes everything once, leaves bad files out and says which in a DataWarning.
        root: the folder of registered sets (`manas_lite.data.registry.data_folder`).
    """
    if isinstance(data, Split):
        return data
    if not layout and not Path(data).exists() and "#" in str(data):
        data, _, layout = str(data).rpartition("#")
    if NO_TEXT.search(str(data)):
        raise ValueError(f"{data}: the folder has a name that is no UTF-8 text: rename it")
    if layout and not Path(data).exists():
        raise ValueError(f"layout={layout!r} says how a folder is laid out, and {data!r} is none")
    if data == "photos":
        if Path(data).is_dir():
            message = "'photos' are the bundled photographs; for the folder of this name, say './photos'"
            warnings.warn(message, DataWarning, stacklevel=2)
        return bundled_photos(seed, levels)
    name, group, registered = str(data), "auto", False
    if Path(data).exists():
        listing = list_folder(data, layout)
    elif isinstance(data, str) and not (data.startswith((".", "~")) or {"/", os.sep} & {*data}):  # no path
        chosen, _ = locate(data, root)
        listing, group, registered = list_set(chosen, data_folder(root)), chosen.group, True
        for difference in count_differences(chosen, listing):
            warnings.warn(difference, DataWarning, stacklevel=2)
    else:
        raise FileNotFoundError(f"{data}: no such folder; give a folder of pictures, a set's name, or 'photos'")
    for remark in listing.remarks:
        warnings.warn(remark, DataWarning, stacklevel=2)
    listing = _without_bad(listing, strict)
    if not listing.photos:
        parts = group_scenes(listing, group)
        return _split_parts(parts, seed, look=group != "name", name=name, registered=registered)
    split = _split_parts(_photo_parts(listing, levels), seed, look=True, name=name)
    own_rain = tuple(photo_scene(scene.clean, scene.name, levels, seed) for scene in split.train)
    return Split(train=own_rain, val=split.val, test=split.test)


def bundled_photos(seed: int, levels: Sequence[str | float] = tuple(LEVELS)) -> Split:
    """Return the photographs shipped with the package, in the parts that their index states."""
    folder = Path(__file__).resolve().parents[1] / "assets" / "photos"
    parts: dict[str, list[Scene]] = {part: [] for part in PARTS}
    with open(folder / "index.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            picture, part = Picture(folder / row["file"]), row["part"]
            scene = photo_scene(picture, picture.path.stem, levels, seed if part == "train" else 0)
            parts[part].append(scene)
    return Split(**{part: tuple(scenes) for part, scenes in parts.items()})


def photo_scene(picture: Picture, name: str, levels: Sequence[str | float], seed: int) -> Scene:
    """Return a clean photograph under synthetic rain, one version per level."""
    if not levels:
        raise ValueError("photographs need at least one rain level, such as levels=('light', 'heavy')")
    rainy = tuple(RainyPicture(picture, level, rain_seed(seed, name, level)) for level in levels)
    return Scene(name, picture, rainy, tuple(map(str, levels)))


def _without_bad(listing: Listing, strict: bool) -> Listing:
    if strict and not listing.problems:
        return listing
    if strict:
        problems = first_few([f"{path} {reason}" for path, reason in listing.problems])
        raise ValueError(f"{listing.root}: {problems}. Complete or remove them, or pass strict=False to leave them out")
    kept, report = audit_listing(listing, strict=False)
    if report.problems:
        reasons = first_few([reason for _, reason in report.problems])
        message = f"{listing.root}: {len(report.problems)} bad file(s) left out: {reasons}"
        if not kept.pairs and not kept.photos:
            raise ValueError(f"{message}; no usable picture remains")
        warnings.warn(message, DataWarning, stacklevel=3)
    return kept


def _photo_parts(listing: Listing, levels: Sequence[str | float]) -> Parts:
    parts: dict[str | None, list[Scene]] = {}
    for photo in listing.photos:
        scene = photo_scene(photo.picture, photo.background, levels, 0)
        parts.setdefault(photo.part, []).append(scene)
    return {part: tuple(scenes) for part, scenes in parts.items()}


def _split_parts(parts: Parts, seed: int, look: bool, name: str, registered: bool = False) -> Split:
    """Keep the parts that a set has and carve the missing ones from training, by background.

    Backgrounds are compared by name, and with `look` also by perceptual hash.
    """
    train = parts.get("train", ()) + parts.get(None, ())
    if not train and set(parts) == {"test"} and registered:
        return Split(train=(), val=(), test=parts["test"])
    if not train:  # nothing but test and validation: all scenes are divided at random
        if "test" in parts:
            message = f"{name} holds a test set and no training set; its scenes are divided at random for training too"
            warnings.warn(message, DataWarning, stacklevel=3)
        every = [scene for scenes in parts.values() for scene in scenes]
        return split_scenes(every, seed, backgrounds=backgrounds_of(every) if look else None)
    test = parts.get("test", ())
    val = _apart(parts.get("val", ()), test, look)
    own = _apart(train, val + test, look)
    for kind, before, after, where in (
        ("validation", len(parts.get("val", ())), len(val), "test"),
        ("training", len(train), len(own), "val or test"),
    ):
        if after < before:
            message = f"{name}: {before - after} {kind} scene(s) left out, their backgrounds are in {where}"
            warnings.warn(message, DataWarning, stacklevel=3)
    backgrounds = backgrounds_of(own) if look and not (val and test) else None
    carved = split_scenes(own, seed, val=0 if val else 0.1, test=0 if test else 0.1, backgrounds=backgrounds)
    return Split(train=carved.train, val=val or carved.val, test=test or carved.test)


def _apart(scenes: Sequence[Scene], held: Sequence[Scene], look: bool) -> tuple[Scene, ...]:
    """Return the scenes whose background is not among the held ones, by name and by look."""
    names = {scene.name for scene in held}
    others = tuple(scene for scene in scenes if scene.name not in names)
    return without_leaks(others, held)[0] if look else others
