# %% tags=["parameters"]
data = "photos"  # "photos" (bundled), a set's name, a folder, or the web address of an archive
download = ""  # a real set to fetch: "rain100l", another set's name, or a web address; empty: fetch nothing
scene = 4  # which training scene to look at, from 0
level = "heavy"  # rain of the blending comparison: light, medium, heavy, or a number as text
seed = 0  # of rain, splits and batches
pictures_scored = 8  # training scenes over which the convention table is averaged

# %% tags=["imports"]
import hashlib

import numpy as np
import torch
from PIL import Image

from manas_lite import draw, metrics, open_split
from manas_course import widgets
from manas_course import checks, illustrations as pictures
from manas_lite.data import LeakError, scene_loader, sealed
from manas_lite.data.registry import data_folder, data_set, data_sets, manual_steps
from manas_lite.data.similarity import SAME, signature, similar_pairs
from manas_lite.photos.images import to_tensor
from manas_lite.rain import add_rain, rain_scene, rain_streaks

# %% [markdown]
# ## A scene: one background, several rains
#
# slides: One clean picture, several rains: a **scene**
# slides: All of its rains have *one* right answer
#
# Pairs of a rainy and a clean photograph of the *same* moment hardly exist: nobody can photograph the same moment with
# and without rain. Nearly all training pictures are therefore clean photographs over which a program has drawn rain.
# This has a good side. One background can be given many rains, and a network that separates rain from background should
# return the same clean picture for all of them. Training on all of them together is called **multi-to-one** training.
# One clean picture with its rainy versions is a **scene**.

# %%
source = course.fetched(download) if download else course.local(data)
split = open_split(source, seed=seed)
scenes = split.train or split.test  # some sets hold test pictures alone
shown = scenes[min(scene, len(scenes) - 1)]
rainy_versions, clean = shown.read()
print(f"scene {shown.name}: rainy {rainy_versions.shape}, clean {clean.shape}, {shown.labels}")
assert rainy_versions.dtype == clean.dtype == np.uint8
assert rainy_versions.shape[1:] == clean.shape

# %%
three = rain_scene(clean, ("light", "medium", "heavy"), seed=seed)
draw.scene(three)

# %% [markdown]
# **What you should see.** The upper row shows the clean picture and its three rains, the lower row the wind and the
# streaks alone. All three rains follow one wind, and each differs a little from its angle. From light to heavy the
# streaks become longer and more numerous, and they lie in more layers: in a far layer they are thin and many, in a near
# one long, wide and few. Over many photographs, light, medium and heavy rain have a mean PSNR of about 26, 21 and 14 dB
# (RGB); a single photograph, such as this one, may lie a few dB from that. So light rain is close to the public set
# Rain100L and medium rain to Rain800; heavy rain is some 2 dB milder than Rain100H.
#
# > **Predict.** A streak crosses a white sky and a dark wall. Where does it change the picture more?
#
# <details><summary>Answer: write yours down first, then click</summary>
#
# On the dark wall. White cannot become brighter, so a streak changes hardly anything before a white sky. The formula
# below says the same: there the streak is multiplied by the darkness of the background.
#
# </details>

# %% [markdown]
# ## Laying rain over a picture
#
# slides: Light adds up, but nothing is brighter than white
# slides: Screen blending: $1 - O = (1 - B)(1 - S)$
# slides: Against a bright sky a streak vanishes
#
# Light that comes through a streak *adds*, but a pixel cannot be brighter than white. Let B be the background, S the
# streaks and O the rainy picture, all in [0, 1]. **Screen blending** multiplies the *darkness* of the two, where
# darkness is 1 − value:
#
# $$1 - O = (1 - B)(1 - S) \qquad\text{or}\qquad O = B + S\,(1 - B)$$
#
# Before a bright sky a streak almost vanishes, as it does in nature. Simple addition, $\min(1, B + S)$, looks similar
# on dark backgrounds and wrong on bright ones. The next two cells measure by how much a streak changes the picture, for
# backgrounds of different brightness.

# %%
height, width = clean.shape[:2]
amount = float(level) if level[0].isdigit() else level
streaks, parameters = rain_streaks(height, width, amount, seed)
by_screen = add_rain(clean, amount, seed)
by_adding = add_rain(clean, amount, seed, blend="add")
brightness = clean.mean(2) / 255

# %%
change = {}
for name, picture in (("screen", by_screen), ("add", by_adding)):
    difference = np.abs(picture - clean / 255).mean(2)[streaks > 0.1]
    bins = np.digitize(brightness[streaks > 0.1], np.linspace(0, 1, 9)) - 1
    centres = [k for k in range(8) if (bins == k).sum() > 50]
    change[name] = (
        [(k + 0.5) / 8 for k in centres],
        [difference[bins == k].mean() for k in centres],
    )
pictures.profile(
    change,
    x="brightness of the background",
    y="mean change under a streak",
    title="what a streak changes",
)

# %% [markdown]
# **What you should see.** With screen blending the change falls steadily with the brightness of the background. With
# addition it stays nearly the same on dark and middling backgrounds. On bright ones it falls too, because the sum is cut off at white.
#
# Try the rain yourself:

# %%
widgets.rainfall(clean)

# %% [markdown]
# ## Measuring: always name the convention
#
# slides: 30 dB of *what*? RGB or brightness
# slides: The same pictures, two different numbers
#
# "30 dB" means little as long as you do not know *what* was compared. Two conventions are common. `rgb` compares the
# three colour channels. `y` compares the brightness alone, as MATLAB computes it: black is 16 and white is 235, on a
# scale that ends at 255. The same pictures get different numbers, and papers mix them.

# %%
rows = {}
for each in scenes[:pictures_scored]:
    versions, target = each.read()
    for label, version in zip(each.labels, versions, strict=True):
        pair = to_tensor(version)[None], to_tensor(target)[None]
        rows.setdefault(label if len(scenes[0].labels) < 6 else "all", []).append(
            [metrics.psnr(*pair, c).item() for c in ("rgb", "y")]
        )
for label, values in rows.items():
    rgb, y = np.mean(values, axis=0)
    print(f"{label:<8} {rgb:6.2f} dB (RGB)  {y:6.2f} dB (Y)   {y - rgb:+.2f}")

# %% [markdown]
# **What you should see.** Y is more than 1 dB higher on every row, on the very same pictures. For grey rain most of the
# difference is one constant. From black to white Y takes only 219 steps, but PSNR is still computed as if there were
# 255, which adds 20 log₁₀(255/219) = 1.32 dB. Whoever compares a Y figure with an RGB figure finds a "gain" that no
# network made. The next cell shows the constant alone, on two plain grey pictures.

# %%
# NBVAL_CHECK_OUTPUT
grey = torch.full((1, 3, 32, 32), 0.5)
brighter = grey + 0.1
print(" ".join(f"{metrics.psnr(brighter, grey, c).item():.2f} dB ({c})" for c in ("rgb", "y")))
print(f"difference {20 * np.log10(255 / 219):.2f} dB")

# %% [markdown]
# ## Splits: by scene, or they leak
#
# slides: Rains of one scene share the answer
# slides: Split by **scene**, never by picture
#
# Three rains of a scene share one background. If one of them goes to training and another to the test, the network has
# already seen the answer. Such **leaks** are common in public sets: 546 of the old training pictures of Rain100H share
# their background with a test picture. What happens if we split *pictures* at random?

# %%
everything = [(f"{s.name}_{label}", s.name) for s in scenes for label in s.labels]
rng = np.random.default_rng(seed)
order = rng.permutation(len(everything))
cut = len(everything) // 5
held_out = {everything[k][1] for k in order[:cut]}
trained_on = {everything[k][1] for k in order[cut:]}
leaked = len(held_out & trained_on) / len(held_out)
print(f"{leaked:.0%} of the held-out backgrounds are also trained on")

# %% [markdown]
# **What you should see.** When scenes have several rains, nearly all backgrounds that were held out are also trained
# on. For this reason the kit splits by scene, and refuses a split whose parts share a background. It also *seals* the
# test set during a search: whoever reads one of its files then gets an error. The next cell tries it.

# %%
with sealed(split.test):
    try:
        split.test[0].read()
    except LeakError as error:
        print("LeakError:", str(error).rpartition("/")[2])
    else:
        raise AssertionError("the seal does not hold")

# %% [markdown]
# ## Get a real set
#
# slides: A **mirror** is a copy that somebody else keeps
# slides: Size finds a web page, only the hash finds a wrong bit
# slides: Then the leak report, then the split
#
# The bundled photographs are few enough for a lecture. Research is compared on published sets. Rain100L and Rain100H
# (Yang et al., 2017), Rain800, DID-MDN and similar sets are photographs under computed rain, between some hundred and
# some ten thousand pairs. Five steps lie between the name of such a set and a number that you may report. This section
# goes through all five.
#
# **1. Where is it?** The pages of the authors disappear. What is left are **mirrors**: copies that somebody else keeps,
# often on a Google Drive. Some of them are packed in another way, renamed, or hold the test half only. So you cannot
# know that a mirror holds the set until you have checked what arrived. The kit knows the published sets by name. The
# next cell lists them, and then prints what the kit knows of one of them, Rain100L.

# %%
for each in data_sets().values():
    counts = ", ".join(f"{count:,} {part}" for part, count in each.pairs.items())
    print(f"{each.name:<16}{counts:<38}{'one command' if each.automatic else 'by hand'}")
print()
print(manual_steps(data_set("rain100l"), data_folder()))

# %% [markdown]
# **What you should see.** First a table of sets. Then, for Rain100L, its licence, its citation and three steps:
# download from an address on Google Drive, put the file into a folder, run a command. The words *no published checksum*
# stand there, as for nearly all rain sets: nobody has ever published which bytes are the right ones.
#
# **2. Fetch it.** Nothing was downloaded so far, and nothing will be unless you ask. Set `download = "rain100l"` in the
# parameters and run the notebook again. It then fetches that set (with `gdown`, because the set lies on a Google
# Drive), and everything below uses it. The web address of an archive of pairs works as well, for example one that your
# lecturer gives you. As long as a download is not complete, its file is called `.part`. If the connection breaks, the
# next run continues where it broke; once all has arrived, another run fetches nothing. On Colab a set is fetched anew
# each day, unless you first set `os.environ["MANAS_LITE_SETS"]` to a folder of your Drive. Sometimes Google Drive
# answers that a quota is used up. No program can help then: download the file in a browser, put it where the second of
# the three printed steps says, and run again.

# %%
print(f"this notebook looks at: {source}")
print("\n".join(course.receipts()) or "nothing was downloaded so far")

# %% [markdown]
# **3. Is it whole?** Three faults are common. The connection broke, and the file is too short. A *web page* came in
# place of the file (it says that a quota is used up, or asks for a login) and was saved under its name. Or a byte is
# wrong. The size of the file shows the first two faults. Only a **hash** shows the third: a number that is computed
# from all bytes and changes as soon as a single bit is different.

# %%
# NBVAL_CHECK_OUTPUT
archive = bytes(range(256)) * 4000  # stands for a set of a megabyte
damaged = bytearray(archive)
damaged[500_000] ^= 1  # one bit of eight million
page = b"<!doctype html><title>Google Drive - Quota exceeded</title>"
bodies = {"right": archive, "cut": archive[:900_000], "page": page, "damaged": damaged}
for name, body in bodies.items():
    mark = hashlib.sha256(body).hexdigest()[:12]
    print(f"{name:<8}{len(body):>10,} bytes   sha256 {mark}...")

# %% [markdown]
# **What you should see.** Two files have the right size, and only one of them has the right hash. No publisher states
# the hash of a rain set. So the kit writes down the hash of the first archive that unpacks to the right pictures, and
# compares every later one with it (*trust on first use*). It notices when a mirror changes. Name the hash in what you
# report, because "Rain100L" alone has at least two meanings.
#
# **4. Does it leak?** Compare every test picture with every training picture, by what they *show*. Names do not help:
# the same background may be `norain-7.png` in one set, and `201.jpg` in the next, where it is smaller, cropped and
# compressed again. The kit reduces a picture to 576 numbers (its edges on a grid of 24 × 24, whatever the light). From
# these numbers it computes the similarity of two pictures, at most 1. It is 0.65 or more if they show one background.
# The next cell compares the parts of the split. It also makes a leak on purpose: it shrinks, crops and darkens a
# training picture, and looks for it.


# %%
def marks_of(scenes):
    return np.array([signature(scene.clean.read()) for scene in scenes[:40]]).reshape(-1, 576)


own = marks_of(split.train)
for part in ("val", "test"):
    shared = similar_pairs(marks_of(getattr(split, part)), own, SAME)
    print(f"{part}: {len(shared)} backgrounds in training, too")
edges = (width // 90, height // 90, width - width // 120, height - height // 80)
cropped = Image.fromarray(clean).crop(edges)
smaller = cropped.resize((240, 160))
planted = signature(np.uint8(0.8 * np.asarray(smaller)))
own = marks_of(scenes)
likeness = sorted((float(planted @ mark) for mark in own), reverse=True)
print(f"the planted one: {likeness[0]:.2f} alike, the next one {likeness[1]:.2f}; same: {SAME}")
assert likeness[0] > SAME > likeness[1]

# %% [markdown]
# **What you should see.** The bundled photographs have no leak. The picture that was changed on purpose is found: it is
# very similar to its original and to no other picture. For whole folders one command does this:
# `python -m manas_lite.data leaks TRAIN TEST`. Published sets need it. Nine pictures of Rain100L occur twice in it, and
# whoever trains on BSD300 or BSDS500 has seen its backgrounds.
#
# **5. Split it.** If a set comes with training and test pictures, its test half stays the test set. What is missing
# (most often a validation part) is taken from the training half, *by background*. `open_split` has done this at the top
# of the notebook. It also counts the pictures, and warns when the set should have another number of them. The next cell
# prints the number of scenes.

# %%
print({part: len(getattr(split, part)) for part in ("train", "val", "test")}, "scenes")

# %% [markdown]
# ## Batches
#
# slides: A batch holds whole scenes
# slides: It depends on (seed, step) alone: a cut run continues exactly
#
# A batch holds whole *scenes*. All rains of a scene are cropped and flipped in the same way as their one clean patch.
# What a batch holds depends on the seed and on the number of the step, and on nothing else. So a run that was
# interrupted continues exactly as if nothing had happened. The next cell makes the same batch twice.

# %%
loader = scene_loader(scenes, batch=4, patch=64, seed=seed, steps=3)
first = next(iter(loader))
again = next(iter(scene_loader(scenes, batch=4, patch=64, seed=seed, steps=3)))
print("rainy", tuple(first.rainy.shape), first.rainy.dtype, " clean", tuple(first.clean.shape))
assert torch.equal(first.rainy, again.rainy)
batch = first.to("cpu")  # float32 in [0, 1] from here on
assert 0 <= batch.rainy.min() <= batch.rainy.max() <= 1

# %% [markdown]
# **Stop here if short of time.**
#
# ## Exercises
#
# **1. Screen blending.** Write the formula above as a function: it takes B and S, and returns O. (One line.)
#
# *Why it matters.* Whoever adds the streaks instead makes rain that does not exist in nature, and a network learns to
# remove exactly that rain.


# %% tags=["exercise", "exercise:screen_blend"]
def my_screen(background, streaks):
    """background B (H, W, 3) and streaks S (H, W), floats in [0, 1] -> rainy O (H, W, 3)."""
    # BEGIN SOLUTION
    return 1 - (1 - background) * (1 - streaks[..., None])
    # END SOLUTION


# %% tags=["check", "check:screen_blend"]
checks.screen_blend(my_screen)

# %% [markdown]
# **2. PSNR on Y.** For R, G and B in [0, 1], MATLAB's luminance, and the PSNR of two pictures of $n$ pixels with peak
# 1, are
#
# $$Y = \frac{65.481\,R + 128.553\,G + 24.966\,B + 16}{255}, \qquad
# \mathrm{PSNR} = -10 \log_{10} \frac1n \sum_{\text{pixels}} (Y_1 - Y_2)^2 .$$
#
# Before that, clamp `x` to [0, 1], since the output of a network may leave this range.
#
# *Why it matters.* For the same pictures the two conventions differ by more than a dB, and many tables mix them.


# %% tags=["exercise", "exercise:psnr_y"]
def my_psnr_y(x, clean):
    """x, clean: float arrays (H, W, 3), RGB. A number in dB."""
    # BEGIN SOLUTION
    weights = np.array([65.481, 128.553, 24.966]) / 255
    difference = (np.clip(x, 0, 1) - clean) @ weights  # the offset of 16 cancels
    return -10 * np.log10(np.mean(difference**2))
    # END SOLUTION


# %% tags=["check", "check:psnr_y"]
checks.psnr_y(my_psnr_y)

# %% [markdown]
# **3. A split that does not leak.** Split a list of pairs into training and validation pairs, so that all pairs of a
# scene go to the same side. `share` is the share of *scenes* that go to validation. The same seed must give the same
# split, in another process, too. (This is a small project.)
#
# *Why it matters.* A picture whose background the network has seen does not test it, and the score comes out too good.


# %% tags=["exercise", "exercise:split_by_scene"]
def my_split(pairs, share, seed):
    """pairs: list of (rainy file, scene name) -> (training pairs, validation pairs)."""
    # BEGIN SOLUTION
    scenes = sorted({scene for _, scene in pairs})
    order = np.random.default_rng(seed).permutation(len(scenes))
    held_out = {scenes[k] for k in order[: round(share * len(scenes))]}
    train = [pair for pair in pairs if pair[1] not in held_out]
    return train, [pair for pair in pairs if pair[1] in held_out]
    # END SOLUTION


# %% tags=["check", "check:split_by_scene"]
checks.split_by_scene(my_split)

# %% [markdown]
# ## A picture worth keeping
#
# slides: Within one level, pictures differ by several dB
# slides: So compare on the *same* pictures
#
# How much harder is each level, and how much do scenes differ? Every point is one rainy picture of the training scenes;
# each level is sorted by PSNR.

# %%
spread = {label: [value[0] for value in values] for label, values in rows.items()}
curves = {label: (list(range(len(v))), sorted(v)) for label, v in spread.items()}
pictures.profile(
    curves,
    x="rainy pictures, sorted",
    y="PSNR (RGB), dB",
    title="the input alone, by rain level",
)

# %% [markdown]
# ## What this shows, and what it does not
#
# slides: Which pictures are averaged decides a mean: compare in pairs
# slides: All of this rain is synthetic
#
# The levels lie apart. But within one level pictures differ by several dB, because rain changes bright pictures less.
# So a mean over few pictures depends on *which* pictures they are, and networks must be compared on the same pictures,
# pair by pair. And all of this rain is synthetic: there are no drops on the lens, no fog and no splashes. A network
# that is good here may do little on a real storm (notebook 08).
#
# ## Summary
#
# * A scene is one clean picture with R rains. Rain is laid over it by screen blending, at levels close to public sets.
# * Name the convention of a PSNR, split by scene, and seal the test set.
# * A real set takes five steps, in this order: find a mirror, fetch it, check size and hash, look for leaks, split.
#
# **Next**: 02 the search space. **Or try** `data = "path/to/your/folder"` of pairs or of clean photographs.
#
# **References.** W. Yang et al., *Joint rain detection and removal* (Rain100), CVPR 2017, arXiv 1609.07769 · H. Zhang,
# V. Patel, *DID-MDN*, CVPR 2018, arXiv 1802.07412 · K. Garg, S. Nayar, *Photorealistic rendering of rain streaks*, 2006
# · Z. Wang et al., *SSIM*, 2004.

# %% tags=["record"]
course.record_results(
    psnr_rgb={label: float(np.mean(values, axis=0)[0]) for label, values in rows.items()},
    psnr_y={label: float(np.mean(values, axis=0)[1]) for label, values in rows.items()},
    leaked_backgrounds=leaked,
    training_scenes=len(split.train),
    closest_to_planted=likeness[0],
)
