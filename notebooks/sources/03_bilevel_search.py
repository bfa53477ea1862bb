# %% tags=["parameters"]
data = "photos"  # "photos" (bundled), a set's name, a folder, or the web address of an archive
runs_dir = "runs"  # runs: in the clone; on Colab on your Drive; else in ~/manas_lite
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
from manas_course import checks, diagrams, illustrations as pictures, toy
from manas_lite.networks.genotype import Genotype
from manas_lite.runs.record import read_log

# %% [markdown]
# ## Start it first, read meanwhile
#
# slides: The search runs in a process of its own
# slides: Cut it: it continues
#
# A search of this size takes minutes. It runs in a process of its own, continues if it was cut, and waits for you at
# the end of this notebook. With your Drive mounted (the folded cell above) a Colab continues it even on another machine,
# tomorrow.

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
# ## How others searched: half a page of history
#
# slides: Reinforcement learning: every trial trains from nothing
# slides: Evolution: simpler, about as good, as expensive
# slides: One-shot: borrowed weights make a trial cost seconds
# slides: Gradients: all candidates at once
#
# * **Reinforcement learning** (Zoph and Le, 2017): a controller writes down an architecture, the network is trained to
#   its end, and its accuracy is the reward. It worked, with hundreds of GPUs for weeks: every trial starts from nothing.
# * **Evolution** (Real et al., 2019): keep a population, change one choice of a good member, drop the oldest. Simpler,
#   about as good, and as dear.
# * **One-shot** (Pham et al., 2018; Bender et al., 2018): one *supernet* holds all candidates, and an architecture
#   borrows its weights from it. A trial now costs seconds. The price: the borrowed weights may rank architectures
#   wrongly (notebook 05).
# * **Differentiable** (DARTS, Liu et al., 2019): mix all candidates with learned weights and descend along the gradient
#   of the mixture. That is what you see here.
# * **Under constraints** (MnasNet, ProxylessNAS, 2019; Once-for-All, 2020): time on the phone is part of the goal, as
#   the price λ and the budget are in this kit.
# * **Zero-cost** (Mellor et al., 2021; Abdelfattah et al., 2021): score an untrained network in one pass. Fast, and often
#   little better than counting parameters.
# * **The doubt** (Li and Talwalkar, 2019; Yu et al., 2020): random search with the same effort is hard to beat. Every
#   claim since then has to show it; so does this course, in 05 and 06.
#
# ## Two losses, two kinds of numbers
#
# slides: Weights fit the training scenes: $w^*(a) = \arg\min_w L_{\mathrm{train}}(w, a)$
# slides: The architecture is judged after them: $\min_a L_{\mathrm{val}}(w^*(a), a)$
# slides: DARTS follows the weights for *one* step
#
# The network's weights $w$ should fit the training scenes. The architecture $a = (\alpha, \beta)$ should be good **once
# the weights have followed it**, on scenes that the weights have not seen:
#
# $$\min_a\ L_{\mathrm{val}}\bigl(w^*(a),\, a\bigr) \qquad\text{where}\qquad
# w^*(a) = \arg\min_w\ L_{\mathrm{train}}(w, a)$$
#
# This is a *bilevel* problem: one minimisation stands inside another. Why not minimise both with one loss on all scenes?
# Because then the architecture would be chosen that fits the training scenes best, and a larger network always fits
# them better. Choosing on other scenes is what validation is for.
#
# So the scenes are halved, and two kinds of step take turns:

# %%
diagrams.bilevel_loop()

# %% [markdown]
# Training the weights to the end for every small change of $a$ would take years. **DARTS** takes one step in their
# place:
#
# $$w' = w - \xi\, \nabla_w L_{\mathrm{train}}(w, a)$$
#
# ### The gradient through that step
#
# slides: The validation loss depends on $a$ twice: directly, and through $w'$
# slides: $\frac{d}{da} L_{\mathrm{val}} = \nabla_a L_{\mathrm{val}} - \xi\, \frac{\partial^2 L_{\mathrm{train}}}{\partial a\, \partial w}\, v$
# slides: Only a product with *one* vector $v$ is needed: two points ahead and behind give it
#
# Put $w'$ in place of $w^*(a)$. The validation loss then depends on $a$ twice: directly, and through $w'$. The chain rule
# gives one term for each way:
#
# $$\frac{d}{da} L_{\mathrm{val}}(w', a) = \nabla_a L_{\mathrm{val}}(w', a) +
# \Bigl(\frac{\partial w'}{\partial a}\Bigr)^{\!\top} \nabla_{w'} L_{\mathrm{val}}(w', a)$$
#
# The old weights $w$ do not depend on $a$; only the step does. So differentiate the step:
#
# $$\frac{\partial w'}{\partial a} = -\,\xi\, \frac{\partial^2 L_{\mathrm{train}}(w, a)}{\partial w\, \partial a}$$
#
# With $v = \nabla_{w'} L_{\mathrm{val}}(w', a)$ this is
#
# $$\frac{d}{da} L_{\mathrm{val}} = \nabla_a L_{\mathrm{val}}(w', a) - \xi\,
# \frac{\partial^2 L_{\mathrm{train}}(w, a)}{\partial a\, \partial w}\, v$$
#
# The matrix of second derivatives has as many rows as $a$ has numbers and as many columns as $w$: far too large to
# write down. But only its product with **one vector** $v$ is needed. Such a product is the derivative of
# $\nabla_a L_{\mathrm{train}}$ when $w$ moves along $v$, and that can be had in two ways. Differentiate twice (`exact`:
# the gradient of the number $v^\top \nabla_w L_{\mathrm{train}}$ with respect to $a$). Or compare two points a little
# ahead of $w$ and behind it (`finite-difference`):
#
# $$\frac{\partial^2 L_{\mathrm{train}}}{\partial a\, \partial w}\, v \approx
# \frac{\nabla_a L_{\mathrm{train}}(w + \varepsilon v, a) - \nabla_a L_{\mathrm{train}}(w - \varepsilon v, a)}
# {2\varepsilon}, \qquad \varepsilon = \frac{r}{\lVert v \rVert}$$
#
# Dividing the radius $r$ by the length of $v$ makes the two points equally far apart whatever the size of the gradient.
# **First order** takes $\xi = 0$: the weights stand still, $w' = w$, and the second term is gone.
#
# | order | gradient | passes |
# |---|---|---|
# | `first` | $\nabla_a L_{\mathrm{val}}(w, a)$: as if $w$ did not follow | 1 |
# | `finite-difference` | the formula above, at $w'$ | 4 |
# | `exact` | the same, its second term by differentiating twice | 2, one of them differentiated twice |

# %%
diagrams.hypergradients()

# %% [markdown]
# On ReLU networks prefer `exact` of the two: two points a finite ε apart may lie on different pieces of the network. The
# real search unrolls the step of its own optimiser, which need not be plain gradient descent as here.
#
# ## A toy with a known answer
#
# slides: One weight, one architecture number, best $a = 1$
# slides: First order takes $w$ as if it stood still
#
# One weight, one architecture number (the example of the DARTS paper), from $w = -2$, $a = 2$:
#
# $$L_{\mathrm{train}} = w^2 - 2aw + a^2 \qquad\qquad L_{\mathrm{val}} = aw - 2a + 1$$
#
# $L_{\mathrm{train}} = (w - a)^2$, so the best weight is $w^*(a) = a$. Put in, $L_{\mathrm{val}} = a^2 - 2a + 1 = (a - 1)^2$,
# which is smallest at **a = 1**.
#
# Do the derivation above once by hand for this toy: $\nabla_w L_{\mathrm{train}} = 2w - 2a$, so
# $w' = w - \xi(2w - 2a)$ and $\partial w'/\partial a = 2\xi$. With $\nabla_{w'} L_{\mathrm{val}} = a$ the whole gradient
# is $(w' - 2) + 2\xi a$. The second summand is what first order leaves out.
#
# > **Predict.** First order believes that w stands still, so that ∂L_val/∂a = w − 2. Where does it come to rest?
#
# <details><summary>Answer: write yours down first, then click</summary>
#
# It rests where its own gradient is zero: at w = 2. The weight follows a, so a = 2 as well. There L_val is 1, while at
# (1, 1) it would be 0.
#
# </details>

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
# slides: `(p - n) / 2 * eps` *multiplies* by ε
# slides: The second-order term is gone, and nothing complains
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
# slides: **Entropy**: decide, so that deriving loses little
# slides: **Complexity**: the expected cost, λ times
#
# Besides the images' losses, the architecture step has two terms of its own. **Entropy** pushes each weight $p$ to 0 or
# 1, so that deriving loses little; it is a mean over all $n$ weights of a table of logits:
#
# $$R(\alpha) = \frac1n \sum_p H(p), \qquad H(p) = -\,p \log_{10} p - (1 - p) \log_{10}(1 - p)$$
#
# **Complexity** is what the network would cost on average if each place drew its candidate with its weights as
# probabilities, as a share of the most expensive network, λ times:
#
# $$C(\alpha, \beta) = \frac{c_0 + \sum_{\text{places}} \sum_k w_k\, c_k}{c_{\max}}$$
#
# Entropy written by hand breaks:


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
# slides: First the weights alone, then both in turn
# slides: Watch entropy, skip share, expected cost
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
# slides: Largest weight against the second
# slides: Where they are close, another seed chooses otherwise
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
# **1. Entropy that survives.** $H(p) = -p \log_{10} p - (1 - p) \log_{10}(1 - p)$ for each number $p$ of a softmax along
# the last axis. Its value *and its gradient* must be finite at logits of ±200. `torch.log_softmax` gives log p. What gives
# log(1 − p)?
#
# *Why it matters.* The first NaN ends a search, and this one appears only after hours, when the search has decided.


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
#
# *Why it matters.* Several public implementations have this very line wrong, and train on. You will recognise it at
# once.


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
# **3. The skip share.** The mean weight that `skip_connect` has over all edges: one column of the softmax of β, averaged.
# (Two lines.)
#
# *Why it matters.* It is the alarm of a differentiable search. A skip has no weights to train and so is the best
# candidate of an untrained network; when its share climbs towards 1, the search has collapsed, and its loss still
# falls.


# %% tags=["exercise", "exercise:skip_share"]
def my_skip_share(beta, operations):
    """beta: logits (edges, n); operations: the names of its n columns -> a number in [0, 1]."""
    # BEGIN SOLUTION
    weights = torch.softmax(beta, dim=1)
    return weights[:, operations.index("skip_connect")].mean()
    # END SOLUTION


# %% tags=["check", "check:skip_share"]
checks.skip_share(my_skip_share)

# %% [markdown]
# ## What this shows, and what it does not
#
# slides: Gradients do decide
# slides: That the decisions are *good*, no curve here shows
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
