"""A set so small that a search takes a second: smooth coloured pictures under synthetic rain.

Also a program, for the tests that kill a run: python tiny.py {search,retrain} DATA RUNS NAME
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from manas_lite.compute.runtime import ComputeSettings
from manas_lite.data import Picture, RainyPicture, Scene, Split
from manas_lite.losses import LossSettings
from manas_lite.networks.genotype import Genotype
from manas_lite.networks.space import SearchSpace
from manas_lite.photos.images import write_image
from manas_lite.training.retraining import retrain
from manas_lite.training.schedules import RetrainSettings, SearchSettings
from manas_lite.training.searching import search

COMPUTE = ComputeSettings(device="cpu", threads=1)
SPACE = SearchSpace((4, 8), modules_per_cell=1, stem="unshuffle", norm="batch", residual=True)
SEARCH = SearchSettings(
    epochs=3,
    steps=4,
    batch=2,
    patch=16,
    warmup=1,
    optimizer="adam",
    weight_rate=1e-3,
    arch_rate=0.05,
    loss=LossSettings(internal_from=1),
    eigenvalue_every=1,
    compute=COMPUTE,
)
KILLED = replace(SEARCH, epochs=5, relaxation="gumbel", order="finite-difference")
RETRAIN = RetrainSettings(
    epochs=3,
    steps=4,
    batch=2,
    patch=16,
    ema=0.9,
    val_scenes=1,
    loss=LossSettings(internal_from=1),
    compute=COMPUTE,
)
GENOTYPE = Genotype.hand_made(SPACE)


def picture(seed: int, side: int = 24) -> np.ndarray:
    """A smooth coloured picture, uint8 (side, side, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side] / side
    waves = [np.sin(2 * np.pi * (rng.normal() * x + rng.normal() * y + rng.random())) for _ in range(3)]
    return np.uint8(127 + 60 * np.stack(waves, -1) + rng.integers(-20, 20))


def tiny_split(folder: Path, levels: tuple[str, ...] = ("light", "heavy")) -> Split:
    """Six training scenes, one validation and two test scenes, written below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    scenes = []
    for i in range(9):
        path = folder / f"picture-{i}.png"
        if not path.exists():
            write_image(path, picture(i))
        clean = Picture(path)
        rainy = tuple(RainyPicture(clean, level, 10 * i + k) for k, level in enumerate(levels))
        scenes.append(Scene(path.stem, clean, rainy, levels))
    return Split(tuple(scenes[:6]), tuple(scenes[6:7]), tuple(scenes[7:]))


def leaking_split(split: Split, folder: Path) -> Split:
    """A training scene whose file is a test picture's under another name: a leak that no name betrays."""
    link = folder / "innocent.png"
    link.symlink_to(split.test[0].clean.path)
    scene = Scene("innocent", Picture(link), (RainyPicture(Picture(link), "light", 0),) * 2, ("light", "heavy"))
    return Split((*split.train[:1], scene), split.val, split.test)


if __name__ == "__main__":
    torch.set_num_threads(1)
    what, data, runs, name = sys.argv[1:]
    split = tiny_split(Path(data))
    if what == "search":
        search(SPACE, split, KILLED, runs_dir=runs, name=name, progress=False)
    else:
        retrain(GENOTYPE, split, replace(RETRAIN, epochs=15), runs_dir=runs, name=name, progress=False)
