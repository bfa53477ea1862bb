# %% tags=["parameters"]
data = "photos"  # "photos" (bundled), a set's name, a folder, or the web address of an archive
runs_dir = "runs"  # runs: in the clone, else in ~/manas_lite; on Colab take your Drive
name = "search"  # the run's name; other settings need another one
size = "teach"  # space and settings to start from: smoke, teach, lite or paper
seed = 0  # weights, logits, batches and the division of scenes follow from it
order = "first"  # hypergradient: first, finite-difference or exact
epochs = 8  # of the search
steps = 30  # steps an epoch
complexity_weight = 0.01  # lambda, what cost is worth
replayed = False  # True: no search here, show the one that the package brings

# %% tags=["imports"]
import json
from dataclasses import replace

import numpy as np
import torch

from manas_lite import SearchSettings, SearchSpace, draw, losses, open_split
from manas_course import widgets
from manas_course import checks, illustrations as pictures, toy
from manas_lite.networks.genotype import Genotype
from manas_lite.runs.record import read_log

# %% [markdown]
# ## Start it first, read meanwhile
#
# A search of this size takes minutes. It runs in a process of its own, continues if it was cut, and waits for you at
# the end of this notebook. On Colab, mount your Drive and set `runs_dir = "/content/drive/MyDrive/manas"`: then it
# continues even on another machine, tomorrow.

# %%
warmup = min(max(1, epochs // 4), SearchSettings.preset(size).warmup)
schedule = {"epochs": epochs, "steps": steps, "warmup": warmup, "eigenvalue_every": 1}
settings = SearchSettings.preset(size, seed=seed, order=order, **schedule)
loss = replace(settings.loss, complexity_weight=complexity_weight)
settings = replace(settings, loss=loss)
space, source = SearchSpace.preset(size), course.local(data)
running = None
if not replayed:
    where = course.runs_folder(runs_dir)
    running = course.background(space, settings, runs_dir=where, name=name, data=source)

# %%
split = open_split(source)
shared = {s.name for s in split.train} & {s.name for s in (*split.val, *split.test)}
print(
    f"{len(split.train)} training scenes; search never opens the {len(split.test)} test scenes"
)
assert not shared

# %% [markdown]
# ## Two losses, two kinds of numbers
#
# The network's weights *w* should fit the training scenes. The architecture *a* = (α, β) should be good **once the
# weights have followed it**, on scenes that the weights have not seen:
#
# ```
# minimise over a:   L_val( w*(a), a )        where  w*(a) = the w that minimises L_train(w, a)
# ```
#
# Training the weights to the end for every small change of *a* would take years. **DARTS** takes one step in their
# place, w' = w − ξ ∇L_train(w, a), and then there are three ways to take the gradient:
#
# | order | gradient | cost |
# |---|---|---|
# | `first` | ∂L_val/∂a at the present w: as if w did not follow | 1 |
# | `finite-difference` | ∂L_val/∂a **at w'**, less ξ (p − n) / (2ε) | more than 2 |
# | `exact` | the same, its second term by differentiating twice | more than 2 |
#
# Here p is ∂L_train/∂a at (w + εv) and n is ∂L_train/∂a at (w − εv): two points a little ahead of w and behind it, along
# v = ∂L_val/∂w at w'.
#
# On ReLU networks prefer `exact` of the two: two points a finite ε apart may lie on different pieces of the network. The
# real search unrolls the step of its own optimiser, which need not be plain gradient descent as here.
#
# ## A toy with a known answer
#
# One weight, one architecture number (the example of the DARTS paper):
#
# ```
# L_train = w² − 2aw + a²        L_val = aw − 2a + 1        start: w = −2, a = 2
# ```
#
# The best weight is w*(a) = a. Put in: a² − 2a + 1, smallest at **a = 1**.
#
# > **Predict.** First order believes that w stands still, so that ∂L_val/∂a = w − 2. Where does it come to rest?

# %%
paths = [
    toy.descend("first", label="first order"),
    toy.descend("finite-difference", xi=0.5, label="finite difference, xi = 0.5"),
    toy.descend("exact", xi=0.5, label="exact, xi = 0.5"),
]
pictures.phase_plane(paths)

# %% [markdown]
# **What you should see.** First order ends at (2, 2), where ∂L_val/∂a = w − 2 vanishes although L_val is 1 there and
# only 0 at the star. The two others end at (1, 1), one upon the other. A cheap gradient can rest at a wrong place: not
# a matter of learning rate or patience.
#
# Move ξ: at 0 it is first order again; is there a value that is best?

# %%
widgets.toy_step()

# %% [markdown]
# **What you should see.** The path rests where a = 2 / (1 + 2ξ): at 2 for ξ = 0, at 1 for ξ = 0.5, at 2/3 for ξ = 1. The
# toy flatters ξ = 0.5: L_train is so curved that *one* step of that size lands on w*(a) exactly. On a network no ξ does;
# one unrolled step is a better guess than none, not the answer, and too large a ξ overshoots.

# %%
# NBVAL_CHECK_OUTPUT
for path in paths:
    w, a = path.end
    print(f"{path.label:<28} w = {w:.2f}, a = {a:.2f}, L_val = {a * w - 2 * a + 1:.2f}")


# %% [markdown]
# ## A bug to know by sight
#
# Several public implementations divide like this: `(p - n) / 2 * eps`. Python reads that from left to right, so that
# it *multiplies* by ε. With a small ε the second-order term is all but gone, and nothing complains.


# %%
def buggy(w, a, xi=0.5, radius=0.01):
    ahead = w - xi * (2 * w - 2 * a)
    eps = radius / abs(a)  # dL_val/dw' = a
    p, n = (2 * a - 2 * (w + sign * eps * a) for sign in (1, -1))
    return (ahead - 2) - xi * (p - n) / 2 * eps  # should be / (2 * eps)


wrong = toy.descend(gradient=buggy, label="finite difference, precedence bug")
pictures.phase_plane([paths[0], paths[1], wrong])

# %% [markdown]
# **What you should see.** The buggy path goes straight to where first order ends: more than twice the work, and the wrong
# answer. Exercise 2 has you write it right.
#
# **Stop here if short of time**: the search goes on alone.
#
# ## The loss of the architecture
#
# Besides the images' losses, the architecture step has two terms of its own. **Entropy** pushes each weight to 0 or 1,
# so that deriving loses little; **complexity** is the expected cost, λ times. Entropy written by hand breaks:


# %%
def by_hand(logits):
    p = torch.softmax(logits, -1)
    return -(p * torch.log10(p) + (1 - p) * torch.log10(1 - p))


for gap in (1.0, 10.0, 20.0, 200.0):
    logits = torch.tensor([[gap, 0.0]])
    stable = losses.binary_entropy(logits).sum().item()
    print(f"gap {gap:5.0f}:  by hand {by_hand(logits).sum().item():10.3g}   kit {stable:10.3g}")

# %% [markdown]
# **What you should see.** From a gap of about 17 on, float32 cannot tell 1 − p from 0: 0 · log 0 is NaN, and the first
# NaN ends a search. Learned logits do get there.
#
# ## The search
#
# Now wait for it. Each step first moves α and β on one half of the training scenes, then the weights on the other
# half; the first epochs, up to the dotted line below, move the weights alone.

# %%
if replayed:
    run = course.shipped("search")
    log, genotype = read_log(run), Genotype.load(run / "genotype.json")
else:
    result = running.wait(live=not course.headless())
    run, log, genotype = result.path, result.log, result.genotype
reports = [record for record in log if record["kind"] == "epoch"]
taken = sum(record["kind"] == "step" for record in log)
print(f"{taken} steps; the genotype is {genotype.id}")

# %%
draw.search_curves(log, genotype.space)

# %% [markdown]
# **What you should see**, from top to bottom, on one axis of steps. The loss falls. α and β lie still until the dotted
# line and then part. The entropy of the rows (the usual one, scaled to 1; the loss averages yes-or-no entropies instead)
# falls from 1, undecided, towards 0. Expected cost is pulled down by λ and up by the images' loss: with a small λ it may
# rise. **Skip share**: watch it. A search in which `skip_connect` takes over has collapsed; the kit stops such a search
# and keeps the last healthy epoch. The lowest panel, a dot an epoch after the dotted line: the curvature of L_val in the
# architecture, the one of the largest *size*, with its sign. In long searches a size that keeps growing foretells a
# collapse (Zela et al.); so short a search says little.
#
# Play it back: the same network, thickness is weight.

# %%
widgets.replay(log, genotype.space)

# %% [markdown]
# And what it derives, an operation an edge:

# %%
draw.architecture(genotype)

# %% [markdown]
# ## How decided was it?
#
# The largest weight of each row against the second: where they are close, another seed may choose otherwise.

# %%
last = reports[-1]
margins = {}
for key, label in (("alpha", "modules"), ("beta", "attention edges")):
    ordered = np.sort(np.array(last[key]), axis=1)
    if len(ordered):
        margins[label] = float((ordered[:, -1] - ordered[:, -2]).mean())
print(json.dumps({key: round(value, 3) for key, value in margins.items()}))
pictures.bars(margins, title="mean margin of the winner over the second", unit="weight, 0 .. 1")

# %% [markdown]
# ## Exercises
#
# **1. Entropy that survives.** H(p) = −p log₁₀ p − (1 − p) log₁₀(1 − p), elementwise, p a softmax along the last
# axis. Value *and gradient* finite at logits of ±200. `torch.log_softmax` gives log p; what gives log(1 − p)?


# %% tags=["exercise", "exercise:binary_entropy"]
def my_entropy(logits):
    """logits (n, k) -> entropies (n, k), in decimal digits."""
    # BEGIN SOLUTION
    k = logits.shape[-1]
    others = logits.unsqueeze(-2).masked_fill(torch.eye(k, dtype=torch.bool), -1e30)
    total = logits.logsumexp(-1, keepdim=True)
    log_p, log_q = logits - total, others.logsumexp(-1) - total
    return -(log_p.exp() * log_p + log_q.exp() * log_q) / np.log(10)
    # END SOLUTION


# %% tags=["check", "check:binary_entropy"]
checks.binary_entropy(my_entropy)

# %% [markdown]
# **2. The DARTS step.** By finite difference, for one weight and one architecture number. `d` holds four functions of
# (w, a): `d.train_w` is ∂L_train/∂w, and so on. With v = ∂L_val/∂w at w', ε = radius / |v|, p = ∂L_train/∂a at (w + εv)
# and n = ∂L_train/∂a at (w − εv):
#
# ```
# dL_val/da = [∂L_val/∂a at w'] − ξ (p − n) / (2ε)
# ```


# %% tags=["exercise", "exercise:darts_step"]
def my_darts_step(w, a, xi, d, radius):
    """dL_val/da through one step of size xi on L_train."""
    # BEGIN SOLUTION
    ahead = w - xi * d.train_w(w, a)
    v = d.val_w(ahead, a)
    eps = radius / abs(v)
    difference = d.train_a(w + eps * v, a) - d.train_a(w - eps * v, a)
    return d.val_a(ahead, a) - xi * difference / (2 * eps)
    # END SOLUTION


# %% tags=["check", "check:darts_step"]
checks.darts_step(my_darts_step)

# %% [markdown]
# ## What this shows, and what it does not
#
# Gradients do decide: entropy falls, and weights move away from their start. That the *decisions* are good is not
# shown by any curve here. One search, one seed, a few hundred steps on 20 photographs: another seed will choose other
# operations on many edges, and the networks may be equally good. Notebook 04 trains the result, 06 asks the question
# with seeds.
#
# ## Summary
#
# * Bilevel: the architecture is judged after the weights have followed; first order ignores that they do.
# * Entropy and cost terms need stable forms; a search is watched by entropy, skip share and cost.
#
# **Next**: 04 derive and retrain. **Or try** `order = "exact"` with another `name`, or `complexity_weight = 0.1` with a third.
#
# **References.** H. Liu et al., *DARTS*, ICLR 2019, arXiv 1806.09055 · A. Zela et al., *Understanding and Robustifying
# DARTS*, ICLR 2020, arXiv 1909.09656 · L. Cai et al., *MANAS*, arXiv 2207.00728.

# %% tags=["record"]
course.record_results(
    steps=taken,
    genotype=genotype.id,
    alpha_entropy=last["alpha_entropy"],
    beta_entropy=last["beta_entropy"],
    skip_share=last["skip_share"],
    expected_cost=last["expected_cost"],
    parameters=genotype.cost(),
)
