"""Data: pictures, scenes, splits without leaks, and batches that are a pure function of (seed, step).

Each module imports only from those above it:

* `pictures`: image files, halves of them, rain over them, and the seal of the test set.
* `scenes`: one clean picture and its rainy versions.
* `splits`: three lists of scenes without a background in common.
* `matching`: roles, parts and twins, read off file names; imports none of these.
* `listing`: what a folder holds, and tables of pairs.
* `caching`: decoded scenes, kept in memory or on disk.
* `loading`: batches of patches.
* `similarity`: a perceptual hash of pictures.
* `grouping`: from pairs to scenes.
* `pairing`: which picture is whose twin, and which is the rainy one, asked of the pictures.
* `layouts`: how a folder is laid out.
* `leaks`: test backgrounds that are also among the training pictures.
* `registry`: the known sets, and what of them is on disk.
* `unpack`: archives of strangers; imports none of these.
* `download`: a known set from its archives.
* `checking`: bad files, and a report on a folder.
* `opening`: `open_split`, for whatever the user names.

May import `photos` and what lies below it.

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
