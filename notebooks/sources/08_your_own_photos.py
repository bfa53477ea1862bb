# %% tags=["parameters"]
photo = ""  # path of your photograph; empty: a bundled one under synthetic rain
network = "rain-any"  # a model of the package (or rain-lite), or the name of your run of 04
runs_dir = "runs"  # runs: in the clone; on Colab on your Drive; else in ~/manas_lite
strength = 1.0  # 0: leave the picture alone, 1: derain it, between: a blend; at most 2
longest = 1600  # larger pictures are shrunk to this many pixels; 0: never
export = ""  # file to write the result to, such as "derained.jpg"; relative: beside runs_dir; empty: none

# %% tags=["imports"]
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from manas_lite import derain, draw, load, metrics, open_split
from manas_course import widgets
from manas_course import checks, illustrations as pictures
from manas_lite.photos.images import read_image, to_tensor, write_image
from manas_lite.rain import add_fog, add_rain

# %% [markdown]
# ## What to expect
#
# slides: It has learned synthetic streaks
# slides: Not drops on the lens, fog, splashes or snow
#
# The network has learned from **synthetic streaks**. It may take streaks off your photograph. It was never shown
# drops on a lens, fog, splashes or snow, and it will do little about them. On some pictures it does nothing that you
# can see. On others it softens things that look like rain and are not: fences, hair, grass. This notebook shows such
# failures too.
#
# > **Predict.** On which kind of damage does it help most: streaks, fog, drops on the lens, camera noise?
#
# <details><summary>Answer: write yours down first, then click</summary>
#
# Streaks, by several dB: it was trained on them. On the three others it gains next to nothing or loses. The figure
# under *Where it fails* shows it.
#
# </details>
#
# ## Your picture
#
# slides: Any size, grey, 16 bits, turned: it becomes upright RGB
#
# Give the path of a picture in the parameters cell. In a live notebook you can also upload one: run the next cell,
# choose a file, wait until its name appears, and *then* run the cells below. (If you have run all cells already, run
# those below once more.) The picture may have any size. It may be grey, transparent, 16-bit or rotated by its camera:
# it becomes an upright RGB picture.

# %%
own = course.runs_folder(runs_dir) / network
net = load(own if own.is_dir() else network)
upload = course.upload_button()
upload

# %%
clean = None
if course.uploaded(upload) is not None:
    rainy, origin = course.uploaded(upload), "your upload"
elif photo:
    rainy, origin = read_image(photo), Path(photo).name
else:
    clean = open_split("photos").test[2].clean.read()
    rainy = np.rint(255 * add_rain(clean, "medium", seed=3)).astype(np.uint8)
    origin = "a bundled photograph under synthetic rain"
if longest and max(rainy.shape[:2]) > longest:
    small = Image.fromarray(rainy)
    small.thumbnail((longest, longest))
    rainy = np.asarray(small).copy()
print(f"{origin}: {rainy.shape[1]} x {rainy.shape[0]} pixels")
assert rainy.dtype == np.uint8
assert rainy.ndim == 3

# %% [markdown]
# ## Derain
#
# slides: Before and after
#
# The next cell derains the picture, and prints how long that took:

# %%
began = time.perf_counter()
result = derain(rainy, net, strength=strength)
seconds = time.perf_counter() - began
print(
    f"{seconds:.1f} s, {rainy.shape[0] * rainy.shape[1] / seconds / 1e6:.2f} megapixels a second"
)
widgets.before_after(rainy, result)

# %% [markdown]
# **What you should see.** Left of the line is the photograph, and right of it the result. In a live notebook you can
# drag the line. If both halves look alike, the network did little: that happens. The next cell shows what the network
# took away: the brighter a pixel, the more it changed. The whole picture is brightened, up to ten times, so that
# small changes can be seen.

# %%
taken = np.abs(rainy.astype(float) - result).mean(2)
share = float((taken > 5).mean())
print(f"{share:.0%} of the pixels changed by more than 5 of 255")
Image.fromarray(np.clip(taken * min(10.0, 255 / max(taken.max(), 1)), 0, 255).astype(np.uint8))

# %%
if export:
    print("written:", write_image(course.runs_folder(runs_dir).parent / export, result))
else:
    print("not written: name a file in `export`")

# %% [markdown]
# ## Any size
#
# slides: Padded by reflection, cropped back
#
# The network halves the height and the width of its input several times. Where a side cannot be halved that often,
# the picture is first made larger: its pixels are mirrored at the edge (padded by reflection). The result is cropped
# back to the old size. Even a picture of one pixel works, and a grey one stays grey:

# %%
# NBVAL_CHECK_OUTPUT
rng = np.random.default_rng(0)
for size in ((1, 1), (7, 200), (37, 51), (64, 64)):
    picture = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
    print(size, "->", derain(picture, net).shape)
grey = rng.integers(0, 256, (20, 30)).astype(np.uint8)
print("grey", grey.shape, "->", derain(grey, net).shape)

# %% [markdown]
# **Stop here if short of time.**
#
# ## Where it fails
#
# slides: Four kinds of damage, equally strong
# slides: What does the network gain on each?
#
# The next cells put four kinds of damage on the same two clean photographs. Each kind is about equally strong: the
# damaged pictures have a PSNR of 19 to 25 dB. How many dB does the network gain on each kind?


# %%
def lens_drops(picture, rng):
    """Round blurred patches, as drops on a lens make them."""
    image = Image.fromarray(picture)
    blurred = image.filter(ImageFilter.GaussianBlur(14))
    y, x = np.mgrid[: image.height, : image.width]
    holes = np.zeros((image.height, image.width), bool)
    for _ in range(45):
        cx, cy, r = rng.integers(image.width), rng.integers(image.height), rng.integers(10, 34)
        holes |= (x - cx) ** 2 + (y - cy) ** 2 < r * r
    mask = Image.fromarray(np.uint8(255 * holes)).filter(ImageFilter.GaussianBlur(2))
    return np.asarray(Image.composite(blurred, image, mask))


# %%


def damaged(picture, rng):
    as_bytes = lambda x: np.rint(255 * np.clip(x, 0, 1)).astype(np.uint8)  # noqa: E731
    return {
        "streaks": as_bytes(add_rain(picture, "medium", seed=int(rng.integers(1000)))),
        "fog": as_bytes(add_fog(picture, np.ones(picture.shape[:2]), 0.25)),
        "lens drops": lens_drops(picture, rng),
        "camera noise": as_bytes(picture / 255 + rng.normal(0, 0.08, picture.shape)),
    }


# %%
gains, before = {}, {}
for scene in open_split("photos").test[:2]:
    target = scene.clean.read()
    for kind, picture in damaged(target, np.random.default_rng(1)).items():
        pair = [
            metrics.psnr(to_tensor(p)[None], to_tensor(target)[None]).item()
            for p in (picture, derain(picture, net))
        ]
        before.setdefault(kind, []).append(pair[0])
        gains.setdefault(kind, []).append(pair[1] - pair[0])
lost = {kind: int(np.argmin(values)) for kind, values in gains.items()}
gains = {kind: float(np.mean(values)) for kind, values in gains.items()}
print({kind: f"{np.mean(values):.1f} dB before" for kind, values in before.items()})
pictures.bars(
    gains, title="gain of the network by kind of damage (2 photographs)", unit="dB PSNR (RGB)"
)

# %% [markdown]
# **What you should see.** A clear gain on streaks. On the three others the gain is next to nothing, or it is a loss:
# there the network changes what it should have left alone. It helps against the damage that it was trained on, and
# not against others. The next cell shows the kind on which it does worst, on the photograph that lost more.

# %%
kind = min(gains, key=gains.get)
target = open_split("photos").test[lost[kind]].clean.read()
worst = damaged(target, np.random.default_rng(1))[kind]
print("the worst of the four:", kind)
draw.comparison(worst, derain(worst, net), target)

# %% [markdown]
# **What you should see.** (The titles say *rainy* and *rain*. Here these are the damaged picture and its damage.) *What
# is left* looks like the damage itself: nearly all of it is still there. *What was taken* is no damage but picture:
# edges and thin lines that look like streaks.
#
# ## Exercises
#
# **1. Strength.** Blend the rainy and the derained picture. At s = 0 the result is the rainy picture, at s = 1 the
# derained one, and between them it changes evenly. s may also be larger than 1: then go on in the same direction.
# Round to whole numbers, and let nothing leave the range from 0 to 255.
#
# *Why it matters.* A byte counts from 0 to 255 and then begins again at 0. White sky with black specks is the usual
# sign of this mistake.


# %% tags=["exercise", "exercise:strength"]
def my_strength(rainy, derained, s):
    """uint8 arrays of one shape -> uint8; s = 0 gives rainy, s = 1 derained."""
    # BEGIN SOLUTION
    blend = rainy + s * (derained.astype(float) - rainy)
    return np.clip(np.rint(blend), 0, 255).astype(np.uint8)
    # END SOLUTION


# %% tags=["check", "check:strength"]
checks.strength(my_strength)

# %% [markdown]
# **2. Tiles.** A picture that is too large for memory is cut into tiles that overlap. Look at one side of it,
# `length` pixels long. Return where the tiles of `tile` pixels start. The first tile starts at 0, and the last one
# ends exactly at the edge. Neighbours share at least `overlap` pixels. There are as few tiles as possible. If the
# picture is smaller than a tile, one tile that starts at 0 is enough.
#
# *Why it matters.* Code for tiles often forgets the last pixels of a row, and nobody looks there.


# %% tags=["exercise", "exercise:tile_starts"]
def my_starts(length, tile, overlap):
    """A list of whole numbers, rising."""
    # BEGIN SOLUTION
    if length <= tile:
        return [0]
    step = tile - overlap
    count = 1 + -(-(length - tile) // step)
    return [min(k * step, length - tile) for k in range(count)]
    # END SOLUTION


# %% tags=["check", "check:tile_starts"]
checks.tile_starts(my_starts)

# %% [markdown]
# **3. Put the tiles together.** This is the other half of exercise 2, along one line of pixels. `tiles[k]` holds the
# results for the pixels from `starts[k]` on. Where several tiles hold the same pixel, take the mean of all of them.
# (A small project: three or more tiles may hold the same pixel.)
#
# *Why it matters.* At the edge of a tile a network sees less of the surroundings than in the middle. So the results
# of two tiles differ where the tiles meet. Without a mean, the picture shows a seam.


# %% tags=["exercise", "exercise:stitch"]
def my_line(tiles, starts, length):
    """tiles: list of arrays; starts: list of whole numbers; length: of the line -> array (length,)."""
    # BEGIN SOLUTION
    line, count = np.zeros(length), np.zeros(length)
    for tile, start in zip(tiles, starts, strict=True):
        line[start : start + len(tile)] += tile
        count[start : start + len(tile)] += 1
    return line / count
    # END SOLUTION


# %% tags=["check", "check:stitch"]
checks.stitch(my_line)

# %% [markdown]
# ## What this shows, and what it does not
#
# slides: A gain on synthetic streaks promises nothing for yours
# slides: Judge by several pairs of eyes, or by a task
#
# This was one network on a few pictures. A gain on synthetic streaks is no promise for your photograph. There is no
# clean version of it to measure against. So only people can judge it (several of them, who are not told which picture
# is which), or a task. Notebook 09 asks a detector and a segmenter.
#
# ## Summary
#
# * The kit derains pictures of any size and kind, at a strength that you choose, and writes the result to a file. It
#   helps against streaks, and not against drops, fog or noise.
#
# **Next**: 09 after deraining. **Or try** your own rainy photographs, and keep the ones on which it fails.
#
# **References.** R. Qian et al., *Attentive GAN for raindrop removal* (drops on a lens), CVPR 2018, arXiv 1711.10098 ·
# S. Li et al., *Single image deraining: a comprehensive benchmark* (real photographs), CVPR 2019, arXiv 1903.08558 · X.
# Chu et al., *Test-time local conversion*, ECCV 2022, arXiv 2112.04491.

# %% tags=["record"]
course.record_results(
    gain_db=gains, seconds_a_picture=seconds, changed_share=share, genotype=net.genotype.id
)
