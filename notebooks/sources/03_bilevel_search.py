# %% tags=["parameters"]
data = "photos"  # "photos" (bundled), a set's name, a folder, or the web address of an archive
runs_dir = "runs"  # runs: in the clone; on Colab on your Drive; else in ~/manas_lite
name = "search"  # the run's name; other settings need another one
size = "teach"  # space and settings to start from: smoke, teach, lite or paper
seed = 0  # weights, logits, batches and the division of scenes follow from it
order = "first"  # hypergradient: first, finite-difference or exact
epochs = 8  # of the search
steps = 30  # steps per epoch
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
# A search of this size takes minutes. The next cell starts it in a process of its own, and the end of this notebook
# waits for it. If the search is interrupted, it continues when you run the cell again. On Colab with your Drive mounted
# (by the folded cell above) this works even on another machine the next day.

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
# **What you should see.** The number of training scenes (20 if you took the photographs of the package), and the number
# of test scenes, which stay closed. The search uses the training scenes only.
#
# ## How others searched: half a page of history
#
# slides: Reinforcement learning: every trial trains from nothing
# slides: Evolution: simpler, about as good, as expensive
# slides: One-shot: borrowed weights make a trial cost seconds
# slides: Gradients: all candidates at once
#
# * **Reinforcement learning** (Zoph and Le, 2017): a controller writes down an architecture, the network is trained to
#   its end, and its accuracy is the reward. It worked, but it took hundreds of GPUs for weeks, because every trial
#   starts from nothing.
# * **Evolution** (Real et al., 2019): the search keeps a population of architectures, changes one choice of a good
#   member, and drops the oldest one. It is simpler, about as good, and as expensive.
# * **One-shot** (Pham et al., 2018; Bender et al., 2018): one *supernet* holds all candidates, and an architecture
#   borrows its weights from it. A trial now costs seconds. But the borrowed weights may rank architectures wrongly
#   (notebook 05).
# * **Differentiable** (DARTS, Liu et al., 2019): mix all candidates with learned weights and descend along the gradient
#   of the mixture. That is what you see here.
# * **Under constraints** (MnasNet, ProxylessNAS, 2019; Once-for-All, 2020): the time that the network takes on a phone
#   is a part of the goal. In this kit the weight λ of the cost (below) and the budget (notebook 11) do this.
# * **Zero-cost** (Mellor et al., 2021; Abdelfattah et al., 2021): an untrained network gets a score in one pass. This
#   is fast, and often little better than counting parameters.
# * **The doubt** (Li and Talwalkar, 2019; Yu et al., 2020): random search with the same effort is hard to beat. Since
#   then, whoever claims that a search is good has to compare it with random search. This course does so, in 05 and 06.
#
# ## Two losses, two kinds of numbers
#
# slides: Weights fit the training scenes: $w^*(a) = \arg\min_w L_{\mathrm{train}}(w, a)$
# slides: The architecture is judged after them: $\min_a L_{\mathrm{val}}(w^*(a), a)$
# slides: DARTS follows the weights for *one* step
#
# The network's weights $w$ should fit the training scenes: their loss is $L_{\mathrm{train}}$. The architecture
# $a = (\alpha, \beta)$ should be good **after the weights have been trained for it**, on scenes that the weights have
# not seen. The loss on those scenes is $L_{\mathrm{val}}$:
#
# $$\min_a\ L_{\mathrm{val}}\bigl(w^*(a),\, a\bigr) \qquad\text{where}\qquad
# w^*(a) = \arg\min_w\ L_{\mathrm{train}}(w, a)$$
#
# This is a *bilevel* problem: one minimisation stands inside another. Why not minimise over both with one loss on all
# scenes? Then the search would choose the architecture that fits the training scenes best, and a larger network always
# fits them better. To avoid this, the architecture is chosen on other scenes, as in any validation.
#
# So the training scenes are divided into two halves, and two kinds of step take turns:

# %%
diagrams.bilevel_loop()

# %% [markdown]
# **What you should see.** Two steps that take turns. The step on the left changes the weights, sees one half of the
# scenes, and holds the architecture. The step on the right changes the architecture, sees the other half, and holds the
# weights.
#
# Training the weights to the end for every small change of $a$ would take years. **DARTS** replaces this training by a
# single step of gradient descent, with step size $\xi$:
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
# $\nabla_a L_{\mathrm{train}}$ when $w$ moves along $v$. There are two ways to compute it. The first is to
# differentiate twice (`exact`): take the gradient of the number $v^\top \nabla_w L_{\mathrm{train}}$ with respect to
# $a$. The second is to compare two points, one a little ahead of $w$ and one a little behind it (`finite-difference`):
#
# $$\frac{\partial^2 L_{\mathrm{train}}}{\partial a\, \partial w}\, v \approx
# \frac{\nabla_a L_{\mathrm{train}}(w + \varepsilon v, a) - \nabla_a L_{\mathrm{train}}(w - \varepsilon v, a)}
# {2\varepsilon}, \qquad \varepsilon = \frac{r}{\lVert v \rVert}$$
#
# Here $r$ is a small number, the radius. It is divided by the length of $v$, so the two points are always equally far
# apart, however large the gradient is. **First order** takes $\xi = 0$: the weights stand still, $w' = w$, and the
# second term is gone.
#
# | order | gradient | passes through the network |
# |---|---|---|
# | `first` | $\nabla_a L_{\mathrm{val}}(w, a)$: as if $w$ did not follow | 1 |
# | `finite-difference` | both terms, the second by the formula above | 4 |
# | `exact` | both terms, the second by differentiating twice | 2, one of them differentiated twice |

# %%
diagrams.hypergradients()

# %% [markdown]
# **What you should see.** First order stays at $w$. The two others take the gradient at $w'$, one step ahead. They
# differ in how they find the second term: from two points beside $w$, or by differentiating the step.
#
# For networks with ReLU, `exact` is the better one of these two. Such a network consists of pieces with kinks between
# them, and the two points of the finite difference may lie on different pieces. In the real search the one step is a
# step of the optimiser that trains the weights. It need not be plain gradient descent as here.
#
# ## A toy with a known answer
#
# slides: One weight, one architecture number, best $a = 1$
# slides: First order takes $w$ as if it stood still
#
# The example of the DARTS paper has one weight $w$ and one architecture number $a$. They start at $w = -2$, $a = 2$:
#
# $$L_{\mathrm{train}} = w^2 - 2aw + a^2 \qquad\qquad L_{\mathrm{val}} = aw - 2a + 1$$
#
# $L_{\mathrm{train}} = (w - a)^2$, so the best weight is $w^*(a) = a$. Put into the other loss, this gives
# $L_{\mathrm{val}} = a^2 - 2a + 1 = (a - 1)^2$, which is smallest at **a = 1**.
#
# Do the derivation above once by hand for this toy: $\nabla_w L_{\mathrm{train}} = 2w - 2a$, so $w' = w - \xi(2w - 2a)$
# and $\partial w'/\partial a = 2\xi$. With $\nabla_{w'} L_{\mathrm{val}} = a$ the whole gradient is
# $(w' - 2) + 2\xi a$. First order leaves out the second term, $2\xi a$.
#
# > **Predict.** First order assumes that w stands still, so that its gradient is ∂L_val/∂a = w − 2. At which values of
# > w and a does it stop moving?
#
# <details><summary>Answer: write yours down first, then click</summary>
#
# It stops where its own gradient is zero: at w = 2. The weight follows a, so a = 2 as well. At this point (2, 2) the
# loss L_val is 1, while at (1, 1) it is 0.
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
# only 0 at the star. The two others end at (1, 1), and their paths lie on top of each other. So a cheap gradient can
# stop at a wrong place. A smaller learning rate or more steps would not help.
#
# Move ξ with the slider. At ξ = 0 you see first order again. Is there a value that is best?

# %%
widgets.toy_step()

# %% [markdown]
# **What you should see.** The path stops where a = 2 / (1 + 2ξ): at 2 for ξ = 0, at 1 for ξ = 0.5, at 2/3 for ξ = 1. So
# ξ = 0.5 is best here, but this is special to the toy: one step of that size leads exactly to w*(a). For a real network
# no ξ does that. One step is a better guess than none, but it is not the answer, and with too large a ξ the search goes
# too far. The next cell prints where the three paths end.

# %%
# NBVAL_CHECK_OUTPUT
for path in paths:
    w, a = path.end
    print(f"{path.label:<28} w = {w:.2f}, a = {a:.2f}, L_val = {a * w - 2 * a + 1:.2f}")


# %% [markdown]
# **What you should see.** First order ends with a loss of 1. The two others end with a loss of 0.
#
# ## A bug to know by sight
#
# slides: `(p - n) / 2 * eps` *multiplies* by ε
# slides: The second-order term is gone, and nothing complains
#
# Let `p` and `n` be the gradients $\nabla_a L_{\mathrm{train}}$ at the point ahead and at the point behind. Several
# public implementations write the finite difference as `(p - n) / 2 * eps`. Python reads that from left to right, so it
# *multiplies* by ε. With a small ε the second-order term then nearly vanishes, and there is no error message.


# %%
def buggy(w, a, xi=0.5, radius=0.01):
    ahead = w - xi * (2 * w - 2 * a)
    eps = radius / abs(a)  # dL_val/dw' = a
    p, n = (2 * a - 2 * (w + sign * eps * a) for sign in (1, -1))
    return (ahead - 2) - xi * (p - n) / 2 * eps  # should be / (2 * eps)


wrong = toy.descend(gradient=buggy, label="finite difference, precedence bug")
pictures.phase_plane([paths[0], paths[1], wrong])

# %% [markdown]
# **What you should see.** The buggy path goes straight to where first order ends: it does several times the work of
# first order, and gives the same wrong answer. In exercise 2 you write the line correctly.
#
# **Stop here if short of time**: the search goes on without you.
#
# ## The loss of the architecture
#
# slides: **Entropy**: decide, so that deriving loses little
# slides: **Complexity**: the expected cost, λ times
#
# Besides the loss on the images, the architecture step has two terms of its own. **Entropy** pushes each weight $p$
# towards 0 or 1, so that deriving loses little. It is the mean over all $n$ weights of a table, such as that of α:
#
# $$R(\alpha) = \frac1n \sum_p H(p), \qquad H(p) = -\,p \log_{10} p - (1 - p) \log_{10}(1 - p)$$
#
# **Complexity** is the expected cost of notebook 02: what the network would cost on average, if each place drew its
# candidate with its weights as probabilities. It is a share of the cost of the most expensive network:
#
# $$C(\alpha, \beta) = \frac{c_0 + \sum_{\text{places}} \sum_k w_k\, c_k}{c_{\max}}$$
#
# Here $c_k$ is the cost of candidate $k$ at a place and $w_k$ its weight, $c_0$ is the cost of everything that is not
# searched, and $c_{\max}$ the cost of the most expensive network. $C$ enters the loss with the factor λ.
#
# If one writes the formula of the entropy into code as it stands, it breaks. The next cell shows where, for two logits
# with a growing gap between them:


# %%
def by_hand(logits):
    p = torch.softmax(logits, -1)
    return -(p * torch.log10(p) + (1 - p) * torch.log10(1 - p))


for gap in (1.0, 10.0, 20.0, 200.0):
    logits = torch.tensor([[gap, 0.0]])
    stable = losses.binary_entropy(logits).sum().item()
    print(f"gap {gap:5.0f}:  by hand {by_hand(logits).sum().item():10.3g}   kit {stable:10.3g}")

# %% [markdown]
# **What you should see.** From a gap of about 17 on, float32 has no number for 1 − p but 0. Then 0 · log 0 is NaN, and
# the first NaN ends a search. Logits can reach such gaps while a search learns. The kit's own form stays finite.
#
# ## The search
#
# slides: First the weights alone, then both in turn
# slides: Watch entropy, skip share, expected cost
#
# Now wait for the search that you started. In each step α and β move first, on one half of the training scenes. Then
# the weights of the network move, on the other half. In the first epochs, up to the dotted line in the figure below,
# only the weights of the network move.

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
# **What you should see**, from top to bottom, over the same steps:
#
# * **Loss**: faint for each step, as a line for the running mean. It jumps from step to step, because each step sees
#   other pictures. Its mean falls slowly.
# * **α and β**, the next panels. They stand still until the dotted line, and then move apart.
# * **Shares**, one panel with three kinds of curve:
#   * *Entropy* of the rows: it falls from 1 (undecided) towards 0 (decided). This is the usual entropy, scaled to 1; the
#     loss above averages yes-or-no entropies instead.
#   * *Expected cost*: λ pulls it down, and the loss on the images pulls it up, so with a small λ it may rise. In the
#     search that comes with the package it rises from 0.75 to 0.94, because all modules become parallel, the more
#     expensive kind.
#   * *Skip share*: watch it. A search in which `skip_connect` takes over has collapsed. The kit stops such a search and
#     keeps the last healthy epoch.
# * **Curvature**, the lowest panel, with one dot per epoch after the dotted line. The second derivatives of L_val with
#   respect to the architecture are a matrix, the *Hessian*; the dot is its eigenvalue of the largest size, with its sign. If its size
#   keeps growing in a long search, a collapse is likely (Zela et al.). In a search as short as this one it says little.
#
# The next cell plays the search back, epoch by epoch. A thicker line has a larger weight.

# %%
widgets.replay(log, genotype.space)

# %% [markdown]
# **What you should see.** In the first epochs all lines of a box are equally thick. Later one line of each row grows, and
# the others nearly vanish. (Where the page has no slider, it shows the last epoch.)
#
# And this is the architecture that the search derives, with one operation on each edge:

# %%
draw.architecture(genotype)

# %% [markdown]
# **What you should see.** P or F for each module, and on each edge the operation with the largest weight, `none` left
# out. In the search that comes with the package all four modules are parallel.
#
# ## How decided was it?
#
# slides: Largest weight against the second
# slides: Where they are close, another seed chooses otherwise
#
# How far is the largest weight of a row ahead of the second largest? Where the two are close, another seed may choose
# otherwise. The next cell takes the mean of this difference, for all modules and for all edges: 1 is fully decided, 0
# is a tie.

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
# **What you should see.** Two bars. In the search that comes with the package both are above 0.9: that search ended
# decided. A search of few steps ends far less decided. The mean hides single rows, and it counts `none` as a winner,
# too. Notebook 04 looks at each row.
#
# ## Exercises
#
# **1. Entropy that survives.** Compute $H(p) = -p \log_{10} p - (1 - p) \log_{10}(1 - p)$ for each number $p$ of a
# softmax along the last axis. The values *and their gradients* must be finite at logits of ±200. `torch.log_softmax`
# gives log p safely. Find an expression for log(1 − p) that is as safe.
#
# *Why it matters.* The first NaN ends a search. This one appears only when the search has decided, which may be after
# hours.


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
# **2. The DARTS step.** Write the gradient by finite difference, for one weight and one architecture number. `d` holds
# four functions of (w, a): `d.train_w` is ∂L_train/∂w, `d.val_a` is ∂L_val/∂a, and so on. Let v = ∂L_val/∂w at w',
# ε = radius / |v|, p = ∂L_train/∂a at (w + εv) and n = ∂L_train/∂a at (w − εv). Then:
#
# ```
# dL_val/da = [∂L_val/∂a at w'] − ξ (p − n) / (2ε)
# ```
#
# *Why it matters.* Several public implementations have a mistake in this line, and their training runs on all the same.
# After this exercise you will recognise it at once.


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
# **3. The skip share.** Compute the mean weight of `skip_connect` over all edges: one column of the softmax of β,
# averaged. (Two lines.)
#
# *Why it matters.* It is the alarm of a differentiable search. A skip has no weights to train, and so is the best
# candidate as long as the other candidates are untrained. When its share climbs towards 1, the search has collapsed,
# while its loss still falls.


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
# Gradients do decide: the entropy falls, and the weights move away from their start. But no curve here shows that the
# *decisions* are good. This is one search with one seed and a few hundred steps on 20 photographs. Another seed will
# choose other operations on many edges, and the networks may be equally good. Notebook 04 trains the result; notebook
# 06 compares several seeds.
#
# ## Summary
#
# * The problem is bilevel: the architecture is judged after the weights have been trained for it. First order ignores
#   that the weights follow.
# * The entropy needs a stable form. Watch three numbers of a search: entropy, skip share and expected cost.
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
