"""`open_split`: whatever the user names becomes training, validation and test scenes."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

from manas_lite.data.pictures import Picture, RainyPicture
from manas_lite.data.scenes import Scene, rain_seed
from manas_lite.data.splits import Split

LEVELS = ("light", "medium", "heavy")


def open_split(
    data: "Split | str | os.PathLike[str]", *, seed: int = 0, levels: Sequence[str | float] = LEVELS
) -> Split:
    """Training, validation and test scenes of `data`.

    data: "photos" (the bundled photographs under synthetic rain, one version a level), a folder, the name of
      a registered set that has been downloaded, or a Split, which is returned as it is.
    seed: draws the split where the set defines none, and the training rain. The rain of validation and test
      pictures is the same for every seed, so that runs with different seeds are judged on the same pictures.
    levels: rain levels laid over photographs that have no rain of their own.
    """
    if isinstance(data, Split):
        return data
    if data == "photos":
        return bundled_photos(seed, levels)
    raise NotImplementedError(data)


def bundled_photos(seed: int, levels: Sequence[str | float] = LEVELS) -> Split:
    """The photographs shipped with the package, in the parts that their index states."""
    folder = Path(__file__).resolve().parents[1] / "assets" / "photos"
    parts: dict[str, list[Scene]] = {"train": [], "val": [], "test": []}
    with open(folder / "index.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            picture = Picture(folder / row["file"])
            parts[row["part"]].append(
                photo_scene(picture, picture.path.stem, levels, seed if row["part"] == "train" else 0)
            )
    return Split(**{part: tuple(scenes) for part, scenes in parts.items()})


def photo_scene(picture: Picture, name: str, levels: Sequence[str | float], seed: int) -> Scene:
    """A clean photograph under one synthetic rain a level."""
    if not levels:
        raise ValueError("photographs need at least one rain level, such as levels=('light', 'heavy')")
    rainy = tuple(RainyPicture(picture, level, rain_seed(seed, name, level)) for level in levels)
    return Scene(name, picture, rainy, tuple(map(str, levels)))
