# %% tags=["parameters"]
data = "photos"  # "photos" (bundled), a set's name, a folder, or the web address of an archive
scene = 0  # which test scene to derain, from 0
level = "heavy"  # its rain, where the set names levels: light, medium or heavy
steps = 20  # training steps that the machine check times

# %% tags=["imports"]
import time

import numpy as np

from manas_lite import Genotype, RetrainSettings, SearchSpace, derain, draw, load, metrics
from manas_lite import open_split
from manas_course import widgets
from manas_course import checks, diagrams
from tools.course import estimates
from manas_lite.photos.images import to_tensor

# %% [markdown]
# ## What this is about
#
# slides: A network learns to take rain off: **rainy** in, **derained** out, compared with **clean**
# slides: Which network? The search lets gradients choose
#
# Rain leaves bright streaks on a photograph. A network can learn to take them off: it sees a **rainy** picture and
# gives a **derained** one. Training compares the derained picture with the **clean** picture of the same background.
#
# Which network should it be? Many choices are open. A network may look at the picture in several resolutions at once,
# with one branch for each of them: where do the branches exchange what they have found? It may also use attention,
# which multiplies its maps by numbers between 0 and 1: which kind of attention, and at which places?
#
# **Neural architecture search** makes these choices a part of training. MANAS (Cai et al., TCSVT 2023) does so with
# *gradients*. At first every choice is a weighted mixture of all its candidates. The weights of the mixtures are
# learned together with the network's own weights. In the end each choice keeps only the candidate with the largest
# weight.
#
# There are three steps, shown below, and the whole course is about them. (A *supernet* is the network in which every
# choice is still a mixture. A *genotype* names the candidate that each choice has kept.)
#
# ```
#  scenes ──> SEARCH a supernet ──> DERIVE a genotype ──> RETRAIN it     ──> evaluate
#             every choice mixed    one choice per place  from scratch
# ```
#
# > **Predict.** Before you run the next cells: **PSNR** says how close a picture is to the clean one, in decibels (dB);
# > higher is better, and exercise 1 below defines it. Under heavy rain these photographs have a PSNR of about 14 dB.
# > The next cell derains one of them with a network of 0.41 million parameters, which was searched and trained in a few
# > hours of one CPU core. What PSNR will the derained picture have? Write a number down.
#
# <details><summary>Answer: write yours down first, then click</summary>
#
# Run the next two cells: the title of the middle picture gives the number. With the values of the parameters cell it is
# about 24 dB, more than 9 dB above the rainy picture. Many people guess higher. The derained picture looks nearly
# clean, but faint streaks that the eye hardly notices still lower the PSNR.
#
# </details>

# %% [markdown]
# ## A first derained photograph
#
# slides: Small networks come with the kit, searched and trained
# slides: They have never seen these photographs
#
# The package brings three small networks: `rain-lite` for thin streaks, `rain-nano` for the same in a quarter of the
# time, and `rain-any` for rain of any strength. All were searched, derived and retrained as notebooks 03 and 04 do it,
# but for longer and on other pictures. None of them has seen the photographs of this notebook.

# %%
split = open_split(course.local(data))
network = load("rain-any")
shown = split.test[min(scene, len(split.test) - 1)]
rainy_versions, clean = shown.read()
rainy = rainy_versions[shown.labels.index(level) if level in shown.labels else 0]
began = time.perf_counter()
derained = derain(rainy, network)
print(f"{clean.shape[1]} x {clean.shape[0]} pixels in {time.perf_counter() - began:.1f} s")

# %%
assert rainy.shape == derained.shape == clean.shape and derained.dtype == np.uint8
draw.comparison(rainy, derained, clean)

# %% [markdown]
# **What you should see.** The upper row shows the rainy, the derained and the clean picture; the rain is clearly
# thinner in the middle one. The second row enlarges a part of each. The third row shows three maps of differences. The
# map *What is left* is not empty: some streaks are still there, and some edges that look like streaks have become
# softer. The title of each picture gives its PSNR in dB, computed on the RGB values. Was your guess close?
#
# Drag the line (in a live notebook) to compare by eye. What the numbers say and what the eye sees do not always agree.

# %%
widgets.before_after(rainy, derained)

# %% [markdown]
# ## The map
#
# slides: Twelve notebooks: make a network, doubt it, use it
#
# | notebook | question |
# |---|---|
# | 01 rain and data | What is a scene? How is rain made, measured, and how do data leak? |
# | 02 the search space | Which networks can the search find, how many, and at what cost? |
# | 03 bilevel search | How do gradients choose an architecture, and where do they go wrong? |
# | 04 derive and retrain | What is lost when the mixture becomes one network, and what does training this network anew bring? |
# | 05 does the search help? | What would random choices have found in the same computing time? |
# | 06 ablations | Which part of the method matters, and how sure can you be? |
# | 07 pitfalls | Eight bugs of real research code: see each, and the test that catches it |
# | 08 your own photos | Does it work on *your* picture? |
# | 09 after deraining | Does it help a detector or a segmenter that gets the picture next? |
# | 10 figures | Every figure of a report, from result files alone |
# | 11 search under a budget | Which network fits into 10 milliseconds, and is there one at all? (After 05.) |
#
# **Stop here if short of time**: you have seen the whole job once. The rest of this notebook is there to look things
# up.
#
# ## The words
#
# slides: Eight words that the whole course uses
#
# | word | meaning |
# |---|---|
# | scene | one clean picture and R ≥ 1 rainy versions of it |
# | multi-to-one | training on all R versions of a scene together; they should give one and the same clean picture |
# | search space | all architectures the search may find |
# | supernet | the network in which every choice is a mixture of all its candidates |
# | genotype | one architecture, written as one name for every choice; it is stored as a small JSON file |
# | derive, discretise | turn the supernet's mixtures into a genotype |
# | retrain | train the derived network from scratch |
# | ablation | leave one part out, to see how much it contributes |
#
# ## The notation card
#
# slides: From the formula to the line of code
#
# Each row of this table is a symbol of the method, its name in the code and the file that holds it. You need not know
# the symbols yet: notebooks 02 to 04 introduce them one by one.
#
# | symbol | in the code | where |
# |---|---|---|
# | T₁ … T_R, Y | `outputs` (B, R, 3, h, w), `clean` (B, 3, h, w) | `losses.py` |
# | P(x), F(x) | `ParallelModule`, `FusionModule` | `modules.py` |
# | α, one row per module | `supernet.alpha` (modules, 2) | `backbone.py` |
# | β, one row per attention edge | `supernet.beta` (edges, operations) | `backbone.py` |
# | softmax(α), softmax(β) | `Relaxation.weights` | `relaxation.py` |
# | L_ext, L_int | `losses.external`, `losses.internal` | `losses.py` |
# | L_arch, H(p) | `losses.architecture_regularisation`, `losses.binary_entropy` | `losses.py` |
# | λ, expected cost | `LossSettings.complexity_weight`, `losses.complexity` | `losses.py` |
# | w*(a), ξ | `bilevel.hypergradient`, `bilevel.virtual_step` | `bilevel.py` |
# | K, o_kj | `SearchSpace.groups`, `EdgeSlot` | `attention.py` |

# %%
diagrams.multi_to_one()  # T₁ … T_R and Y of the card: three rains of one background, and what is compared with what

# %% [markdown]
# ## Your machine
#
# slides: How long will the next notebooks take *here*?
#
# How long will the next notebooks take *here*? The next cell measures how long one training step takes, for a network
# of the size that notebooks 03 and 04 train.

# %%
settings = RetrainSettings.preset("teach")
by_hand = Genotype.hand_made(SearchSpace.preset("teach"))
step_seconds = estimates.time_step(by_hand, settings, steps=steps).seconds
print(
    f"{1000 * step_seconds:.0f} ms per training step: {settings.batch} scenes x 3 rains, {settings.patch} x {settings.patch}"
)

# %% [markdown]
# **What you should see.** Between some tens and a few hundreds of milliseconds, and more if the machine has other
# things to do. At `teach` size notebook 04 trains two networks, with 800 such steps each: multiply, and you know how
# long that takes here. Every notebook states at its top how many minutes were measured.
#
# ## Exercises
#
# Fill the blanks: write your lines in place of `raise NotImplementedError`. The cell after each exercise checks your
# function on random inputs and says what it finds. Nothing later in the notebook depends on the exercises.
#
# **1. PSNR.** The peak signal-to-noise ratio of pictures in [0, 1] is $10 \log_{10}(1 / \mathrm{MSE})$, where MSE is the
# mean of the squared differences over all pixels and channels.
#
# *Why it matters.* Every table of this course, and of the literature, is in this unit. Once you have written it
# yourself, you know what a dB is: 10 dB more mean a tenth of the squared error.


# %% tags=["exercise", "exercise:psnr_rgb"]
def my_psnr(x, clean):
    """PSNR in dB; x and clean are float arrays (H, W, 3) in [0, 1]."""
    # BEGIN SOLUTION
    return 10 * np.log10(1 / np.mean((x - clean) ** 2))
    # END SOLUTION


# %% tags=["check", "check:psnr_rgb"]
checks.psnr_rgb(my_psnr)

# %% [markdown]
# **2. Padding.** The first layers of a network (its *stem*) halve the height and the width of the picture once. If the
# network then works in three resolutions, they are halved twice more. So height and width must be multiples of 8 = 2³,
# but pictures have any size. How many pixels must be added to a side? (One line is enough.)
#
# *Why it matters.* Without padding, a network that halves its input fails on most photographs. A padding that adds one
# multiple too many wastes time on every picture.


# %% tags=["exercise", "exercise:padding"]
def my_padding(side, multiple):
    """The fewest pixels to add to `side` so that `multiple` divides it."""
    # BEGIN SOLUTION
    return -side % multiple
    # END SOLUTION


# %% tags=["check", "check:padding"]
checks.padding(my_padding)

# %% [markdown]
# **3. The gain.** How many dB did deraining bring? It is the PSNR of the derained picture minus that of the rainy one,
# both against the clean picture. You may use `my_psnr`, or write one line with two mean squared errors.
#
# *Why it matters.* A PSNR alone says as much about the rain as about the network: 30 dB are poor under light rain and
# very good under heavy rain. The gain is what the network itself has added.


# %% tags=["exercise", "exercise:gain"]
def my_gain(rainy, derained, clean):
    """What deraining gained, in dB; float arrays (H, W, 3) in [0, 1]."""
    # BEGIN SOLUTION
    before = np.mean((rainy - clean) ** 2)
    after = np.mean((derained - clean) ** 2)
    return 10 * np.log10(before / after)
    # END SOLUTION


# %% tags=["check", "check:gain"]
checks.gain(my_gain)

# %% [markdown]
# ## What this shows, and what it does not
#
# slides: It works on pictures that it has never seen
# slides: One picture, one network, one seed: this says nothing about *architectures*
#
# A small network takes a good part of heavy synthetic rain off pictures that it has never seen. (A part of the rain in
# its training was of the same kind.) One picture, one network and one seed say nothing about which *architecture* is
# good. Whether the search helped at all is another question; notebooks 05 and 06 show what an honest answer needs.
#
# The next cell checks that your installation computes as it should. Rain is drawn from a seed, so the line that it
# prints is the same on every machine.

# %%
# NBVAL_CHECK_OUTPUT
photos = open_split("photos")
versions, target = photos.test[0].read()
scores = [metrics.psnr(to_tensor(v)[None], to_tensor(target)[None]).item() for v in versions]
print(
    [
        f"{label} {score:.1f} dB"
        for label, score in zip(photos.test[0].labels, scores, strict=True)
    ]
)

# %% [markdown]
# ## Summary
#
# * The course searches, derives and retrains. Its data are scenes: one clean picture with several rains. Results are
#   PSNR values in dB, on pictures that were never trained on.
# * **Next**: 01 rain and data. **Or try**: another `scene` or `level` in the parameters cell; your own picture in 08.
#
# **References.** L. Cai et al., *Multi-scale Attentive Image De-raining Networks via Neural Architecture Search*, TCSVT
# 2023, arXiv 2207.00728 · H. Liu et al., *DARTS*, ICLR 2019, arXiv 1806.09055 · B. Ma et al., *AutoLA*, NeurIPS 2020. Text and figures of this notebook: CC BY 4.0.

# %% tags=["record"]
scores = {"rainy": rainy, "derained": derained}
psnr = {
    k: metrics.psnr(to_tensor(v)[None], to_tensor(clean)[None]).item()
    for k, v in scores.items()
}
course.record_results(
    psnr_rgb=psnr, step_ms=1000 * step_seconds, genotype=network.genotype.id, steps=steps
)
