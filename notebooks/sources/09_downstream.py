# %% tags=["parameters"]
network = "rain-any"  # a model of the package (or rain-lite), or the name of your run of 04
runs_dir = "runs"  # runs: in the clone, else in ~/manas_lite; on Colab take your Drive
level = "heavy"  # light, medium or heavy synthetic rain
photos_used = 6  # of the six test photographs with boxes and masks
draws = 200  # resamples of an interval
detector_file = ""  # COCO-SSD as ONNX; empty: where its script leaves it
real = ""  # folder of photographs of real rain; empty: none
real_used = 6  # of them

# %% tags=["imports"]
from pathlib import Path

import numpy as np
from PIL import Image

from manas_lite import load
from manas_course import checks, illustrations as pictures
from manas_lite.data import Picture
from manas_course.downstream import (
    boxes,
    detection,
    masks,
    protocol,
    quality,
    segmentation,
    sightings,
)
from manas_course.downstream.overlays import draw_boxes, draw_classes
from manas_course.downstream.scoring import Consistency, consistency, interval, resamples
from manas_lite.draw.sheets import contact_sheet
from manas_lite.photos.images import SUFFIXES

# %% [markdown]
# ## Who looks at the picture next?
#
# slides: Nobody wants decibels: a car wants to see pedestrians
# slides: A **fixed** model looks at rainy, derained, clean
#
# Decibels say how near a picture is to the clean one. But nobody needs decibels for their own sake: a car, for
# example, needs to see pedestrians. So this notebook asks models that look at the picture next. They are **fixed**:
# they were trained elsewhere, and nothing here changes them. They look at the rainy, the derained and the clean
# picture. There are three kinds of judges: a detector, a segmenter, and two scores that need no clean picture.
#
# > **Predict.** Of the objects that a detector finds on clean photographs, which share does it still find under heavy
# > rain? And after deraining: half of what was lost, nearly all, or hardly anything?
#
# <details><summary>Answer: write yours down first, then click</summary>
#
# In the stored detections, under heavy rain: 38 % are still found in the rain, and 76 % after deraining. That is more
# than half of what was lost. The first bars below show it. Read the intervals beside them, too: six photographs
# hold few objects, so that a difference that seems large may still be undecided.
#
# </details>
#
# Only the six **test** photographs are used. The network of the package has seen none of the bundled photographs. A
# network of your own from notebook 04 was trained on the twenty others.

# %%
own = course.runs_folder(runs_dir) / network
net = load(own if own.is_dir() else network)
versions = sightings.Versions(net)
photos = [photo for photo in boxes.bundled_boxes() if photo.part == "test"][:photos_used]
detector = detection.find_detector(Path(detector_file) if detector_file else None)
if detector is None:
    print("no detector here: the detections that the package brings are shown. To have it:")
    print("from a clone: pip install -e '.[downstream]'; python data_scripts/coco_ssd/make.py")
    print("(once; TensorFlow takes 1.6 GB on the way; a bare Colab has no clone)")

# %%
# NBVAL_CHECK_OUTPUT
for photo in photos[:2]:
    truth = photo.truth()
    names = [boxes.CATEGORIES[label] for label in truth.labels]
    print(photo.name, {name: names.count(name) for name in dict.fromkeys(names)})
    assert photo.picture.read().dtype == np.uint8
a, b = np.array([[0, 0, 10, 10]]), np.array([[5, 0, 15, 10]])
print("half a box apart: IoU", boxes.iou(a, b).round(3))

# %% [markdown]
# **What you should see.** The objects that people marked by hand on the first two photographs. The last line is an
# example of **IoU**, the intersection over union of two boxes. The two boxes are equally large, and one is shifted by
# half its width. Their intersection is half a box, and their union is one and a half boxes. So their IoU is only one
# third.
#
# ## Detection
#
# slides: Of what it finds on the clean picture, how much is left?
#
# The detector gives boxes, each with a category and a score from 0 to 1. If the detector is not installed, stored
# detections that come with the package are used. They were made with `rain-any`, whatever `network` names.

# %%
if detector:
    seen = sightings.look(versions, photos, detector, levels=(level,), progress=False)
else:
    seen = sightings.load_sightings()


def surely(photo, v):
    return len(seen[photo.name, level if v != "clean" else "none", v].boxes.above(0.5).labels)


one = max(photos, key=lambda photo: surely(photo, "derained") - surely(photo, "rainy"))
three = versions.of(one.picture, one.name, level) | {"clean": one.picture.read()}
drawn = [
    draw_boxes(picture, seen[one.name, level if v != "clean" else "none", v].boxes, shown=300)
    for v, picture in three.items()
]
Image.fromarray(contact_sheet([(one.name, drawn)], list(three), width=300))

# %% [markdown]
# **What you should see.** The photograph on which deraining brings back most, with all boxes whose score is at
# least 0.5: from left to right the rainy, the derained and the clean picture. Look for objects that are lost on the left. Which of them does deraining bring back, and
# which not?
#
# **Consistency** takes the detections on the clean picture as if they were true. *Recall* is the share of them that
# is found again. *Precision* is the share of the new detections that the clean picture has too. *Confidence lost*
# says by how much the score of a clean detection falls on average; one that is not found again loses its whole score.
# None of the three says that the detector is right.

# %%
kept = {v: [] for v in ("rainy", "derained")}
for photo in photos:
    for v in kept:
        clean = seen[photo.name, "none", "clean"].boxes
        kept[v].append(consistency(clean, seen[photo.name, level, v].boxes))
recall = {}
for v, each in kept.items():
    sample = [Consistency.recall([each[i] for i in row]) for row in resamples(len(each), draws)]
    low, high = interval(sample)
    recall[v] = Consistency.recall(each)
    print(f"{v:<9} recall {recall[v]:.2f} [{low:.2f}, {high:.2f}]", end="   ")
    print(f"precision {Consistency.precision(each):.2f}", end="   ")
    print(f"confidence lost {Consistency.confidence_drop(each):.2f}")
pictures.bars({**recall, "clean": 1.0}, title=f"found again under {level} rain", unit="recall")

# %% [markdown]
# **What you should see.** Heavy rain costs a large part of the recall, and deraining gives much of it back. The
# brackets say how far recall would move with other photographs like these six. They are wide. Under heavy rain the
# two intervals lie apart, and under lighter rain they overlap (try `level`). Six photographs prove little. The table
# below holds 26.
#
# ## Accuracy is another question
#
# slides: Against the true boxes: average precision
#
# The detector may be wrong on the clean picture, too. **Accuracy** compares its detections with the **true boxes**,
# those that people marked. The usual measure is *average precision* (AP): for each category the mean of the precision
# over all levels of recall, and then the mean over the categories. AP@50 counts a detection as right if its IoU with
# a true box is at least 0.5. The table was made with `rain-any`.

# %%
table = protocol.read_table()
rows = [r for r in table if r.task == "detection" and r.measure == "ap50" and "all" in r.data]
print("AP@50 on the", rows[0].pictures, "bundled photographs, one run:")
for row in rows:
    print(f"  {row.level:<7}{row.version:<18}{row.value:6.3f}  [{row.low:.3f}, {row.high:.3f}]")

# %% [markdown]
# **What you should see.** Even on clean photographs AP is far from 1, because this detector is small. The heavier the
# rain, the more AP it costs. The rows `derained - rainy` say what deraining is worth: they are differences on the
# same photographs (paired).
#
# **Stop here if short of time.**
#
# ## Segmentation
#
# slides: The class of each pixel; mIoU is a mean over classes
#
# A segmenter names the class of each pixel. This one is small, and this kit trained it on clean pictures. The IoU of
# a class divides the number of pixels that have this class both in truth and in the prediction by the number of
# pixels that have it in at least one of the two. **mIoU** is the mean of the IoU over the classes.

# %%
data = masks.bundled_masks()
segmenter = segmentation.load_segmenter(data=data)
total = {"rainy": 0, "derained": 0, "clean": 0}
for photo in data.test[:photos_used]:
    three = versions.of(photo.picture, photo.name, level) | {"clean": photo.picture.read()}
    for v, picture in three.items():
        found = segmentation.segment(segmenter, picture)
        total[v] = total[v] + segmentation.confusion(found, photo.truth(), len(data.classes))
miou = {v: segmentation.scores(matrix, data.classes)["miou"] for v, matrix in total.items()}
print(data.note)
pictures.bars(miou, title=f"segmenter under {level} rain", unit="mIoU")

# %%
tinted = [
    draw_classes(p, segmentation.segment(segmenter, p), data.classes, shown=240)
    for p in three.values()
]
truth = draw_classes(three["clean"], photo.truth(), data.classes, shown=240)
Image.fromarray(contact_sheet([(photo.name, [*tinted, truth])], [*three, "true"], width=240))

# %% [markdown]
# **What you should see.** The segmenter is poor, because twenty training photographs are few. What counts is the
# *difference* between the three bars, not their height. With `rain-any`, the derained bar is about as high as the
# clean one. But do not trust this much: under light rain the *rainy* pictures get a higher mIoU than the clean ones
# (try `level`), and rain cannot really help. Differences of this size on six photographs may be luck. If you have the
# CamVid set, `python -m manas_course.downstream --street FOLDER` trains a segmenter on streets.
#
# ## Scores without truth
#
# slides: NIQE and PIQE judge a picture alone
# slides: Do they agree with the truth, where it is known?
#
# For real rain no clean picture exists. **NIQE** and **PIQE** judge a picture alone, and for both of them lower is
# better. NIQE measures how far the statistics of a picture are from those of good photographs. PIQE counts blocks of
# the picture that look noisy or distorted. Do these scores agree with the truth where it is known?
#
# > **Predict.** Order clean, rainy and derained, first by NIQE and then by PIQE.
#
# <details><summary>Answer: write yours down first, then click</summary>
#
# With `rain-any` under heavy rain, NIQE says: derained and clean are close together, and rainy is far behind. PIQE
# says: derained is best by far, then rainy, and the clean pictures are *last*. A score that prefers a rainy picture
# to the clean one does not measure what we want to know.
#
# </details>

# %%
scored = {}
for photo in photos:
    for v, picture in {
        **versions.of(photo.picture, photo.name, level),
        "clean": photo.picture.read(),
    }.items():
        scored.setdefault(v, []).append((quality.niqe(picture), quality.piqe(picture)))
means = {v: tuple(np.mean(values, axis=0)) for v, values in scored.items()}
pictures.scatter(
    means, x="NIQE (lower is better)", y="PIQE (lower is better)", title="two judges"
)

# %% [markdown]
# **What you should see.** The two judges disagree. NIQE puts the derained pictures close to the clean ones. PIQE
# likes the derained pictures much better than the clean ones, which are the truth that they should come near to, and
# it even puts the rainy pictures before the clean ones. Deraining smooths a picture, and PIQE rewards smoothness.
# Remember this where an article reports such a score alone.
#
# ## Real rain
#
# slides: Trained on synthetic rain: often little, on real rain
#
# Models that were trained on synthetic rain often do little on real rain, or they smooth what was no rain. Name a
# folder of your own photographs in `real`, and look at the results. Otherwise the next cell prints what `rain-any`
# did on 44 real photographs, which may not be shown here.

# %%
if real:
    files = sorted(p for p in Path(real).iterdir() if p.suffix.lower() in SUFFIXES)[:real_used]
    pairs = [(p.name, [b := Picture(p).read(), versions.derain(b)]) for p in files]
    shown = Image.fromarray(contact_sheet(pairs, width=300))
else:
    rows = [r for r in table if r.level == "real"]
    for r in rows:
        print(
            f"{r.pictures} photographs  {r.version:<18}{r.measure:<8}{r.value:7.2f}  [{r.low:.2f}, {r.high:.2f}]"
        )
    shown = None
shown

# %% [markdown]
# **What you should see.** (If `real` is empty.) The row *change* says by how much the network changed a pixel, on
# average: about 2 of 255 levels. That is little: the same network changed 35 levels under heavy synthetic rain (a row
# of the table that is not printed here). Both judges see a small improvement. You have just seen how much either of
# them can be trusted. So look at
# pictures, many of them, before and after. More cannot honestly be said here about a model that was trained on
# synthetic rain.
#
# ## Exercises
#
# **1. Overlap.** Write the intersection over union (IoU) of two boxes. A box is (left, top, right, bottom). The two
# boxes may also lie apart: then the IoU is 0.
#
# *Why it matters.* Every score of a detector rests on the IoU. If two boxes lie apart in both directions, both sides
# of their "intersection" are negative numbers, and the product of these is *positive*.


# %% tags=["exercise", "exercise:box_iou"]
def my_iou(a, b):
    """Two arrays of four numbers -> a number in [0, 1]."""
    # BEGIN SOLUTION
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0, width) * max(0, height)
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return shared / (sum(areas) - shared)
    # END SOLUTION


# %% tags=["check", "check:box_iou"]
checks.box_iou(my_iou)

# %% [markdown]
# **2. Consistency.** How many of the clean picture's detections were found again? A detection was found again if
# `found` holds one of the same label whose IoU with it is at least 0.5. You may use `boxes.iou`, which takes two
# boxes and returns a matrix with one number. (Real matching uses each detection only once. You need not: boxes of
# different objects never overlap here.)
#
# *Why it matters.* Consistency needs no labels made by hand, so it can be measured on any film. But it is not
# accuracy: a detector may make the same mistake on both pictures.


# %% tags=["exercise", "exercise:consistent"]
def my_count(clean, found):
    """Two lists of (box, label, score) -> a whole number."""
    # BEGIN SOLUTION
    again = 0
    for box, label, _ in clean:
        alike = [place for place, other, _ in found if other == label]
        again += any(boxes.iou(box, place)[0, 0] >= 0.5 for place in alike)
    return again
    # END SOLUTION


# %% tags=["check", "check:consistent"]
checks.consistent(my_count)

# %% [markdown]
# **3. mIoU.** The matrix counts pixels: the row is the true class, and the column is the predicted class. Return the
# mean of the IoU over the classes. Leave out a class that is neither true nor predicted anywhere.
#
# *Why it matters.* Some code counts a class that is absent as 0, some counts it as 1. With ten classes this alone
# moves the mean by ten points.


# %% tags=["exercise", "exercise:mean_iou"]
def my_miou(matrix):
    """Array (classes, classes) -> a number in [0, 1]."""
    # BEGIN SOLUTION
    hit = matrix.diagonal()
    union = matrix.sum(0) + matrix.sum(1) - hit
    return (hit[union > 0] / union[union > 0]).mean()
    # END SOLUTION


# %% tags=["check", "check:mean_iou"]
checks.mean_iou(my_miou)

# %% [markdown]
# ## What this shows, and what it does not
#
# slides: Heavy rain costs a detector most; deraining gives much back
# slides: Six photographs, one seed, one network
#
# Heavy rain costs a detector most of what it sees, and deraining gives much of it back. This was seen on **six**
# photographs, under **synthetic** rain of one seed, with **one** deraining network. That network was trained on rain
# that was made in the same way (on other pictures). The detector was trained on these very photographs (clean), so
# its results here are better than elsewhere. Recall against the clean picture is consistency, not truth. And a
# detector that is trained on rain might need no deraining at all: that comparison is missing here.
#
# ## Summary
#
# * Let a fixed judge look at the rainy, the derained and the clean pictures. Give intervals over pictures, and
#   compare the same pictures in pairs.
# * Consistency is not accuracy. Use scores without truth only where there is nothing better. Look at real rain
#   yourself.
#
# **Next**: 10 figures. **Or try** `python -m manas_course.downstream --help`: your own boxes, streets and rainy
# photographs.
#
# **References.** W. Liu et al., *SSD*, ECCV 2016, arXiv 1512.02325 · M. Sandler et al., *MobileNetV2*, CVPR 2018, arXiv
# 1801.04381 · T.-Y. Lin et al., *Microsoft COCO*, ECCV 2014, arXiv 1405.0312 · S. Li et al., *Single image deraining: a
# comprehensive benchmark*, CVPR 2019, arXiv 1903.08558 · A. Mittal et al., *Making a completely blind image quality
# analyzer*, IEEE SPL 2013.

# %% tags=["record"]
course.record_results(
    recall=recall, miou=miou, niqe={v: m[0] for v, m in means.items()}, genotype=net.genotype.id
)
