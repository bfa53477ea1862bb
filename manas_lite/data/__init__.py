"""Data: pictures, scenes, splits without leaks, and batches that are a pure function of (seed, step).

>>> from manas_lite.data import open_split, scene_loader
>>> split = open_split("photos", seed=0)                                    # doctest: +SKIP
>>> for batch in scene_loader(split.train, batch=4, patch=64, seed=0, steps=100):   # doctest: +SKIP
...     batch = batch.to("cpu")                              # rainy (4, R, 3, 64, 64), clean (4, 3, 64, 64)
"""

from manas_lite.data.loading import SceneBatch, scene_loader
from manas_lite.data.opening import open_split
from manas_lite.data.pictures import LeakError, Picture, RainyPicture
from manas_lite.data.scenes import Scene, one_to_one, sealed, with_extra_rain
from manas_lite.data.splits import Split, split_scenes

__all__ = [
    "LeakError",
    "Picture",
    "RainyPicture",
    "Scene",
    "SceneBatch",
    "Split",
    "one_to_one",
    "open_split",
    "scene_loader",
    "sealed",
    "split_scenes",
    "with_extra_rain",
]
