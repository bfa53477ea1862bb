# %% tags=["parameters"]
size = "teach"  # sizes of the space: smoke, teach, lite or paper
seed = 0  # which random architectures are drawn, and the supernet's initial weights
samples = 300  # random architectures whose cost is drawn

# %% tags=["imports"]
import numpy as np
import torch

from manas_lite.networks.costs import measure_costs
from manas_lite import DerainNet, Genotype, SearchSpace, SuperNet, draw, losses, open_split
from manas_course import widgets
from manas_lite.networks.costs import count_flops
from manas_course import checks, diagrams, illustrations as pictures
from manas_lite.networks.modules import FusionModule, ParallelModule

# %% [markdown]
# ## Why such a space? MANAS in one page
#
# slides: Near and far rain: look at **several scales**
# slides: Rain covers some pixels: let **gates** choose
# slides: Several rains, one answer: the outputs must agree
#
# The article behind this kit (Cai et al., *MANAS*) searches networks that take rain out of a picture. Three
# observations shape its space.
#
# **Why several scales.** Rain is near and far at once. A far streak is a few pixels long and thin; a near one is long,
# wide and blurred. A convolution of 3 × 3 pixels sees a far streak whole, but only a small part of a near one. On a map
# of half the height and width, the same convolution sees four times the area. A network that works at several
# resolutions sees both, and it can exchange what each resolution has found. HRNet introduced this for the poses of
# people, CLEARER searched such networks for restoring pictures, and MANAS takes over their two modules.
#
# **Why attention.** Rain covers some pixels and leaves others alone, and it shows in some channels and not in others. A
# *gate* multiplies a map by numbers between 0 and 1. It can let through what belongs to the background, and hold back
# what belongs to the rain. Nobody knows beforehand which kind of gate serves best, or where. So the kind of each gate
# is searched too.
#
# **Why several rains of one background.** One clean photograph under three rains gives three inputs with *one* right
# answer. The three answers must then agree with each other. The loss can ask for this agreement (the *internal* loss),
# and needs no clean picture for it. Notebook 01 showed such scenes; 04 trains on them.
#
# **What the article claims, and what is unknown.** It reports better scores than those of networks that were designed
# by hand, and better detection and segmentation on derained pictures. We do not know its loss weights, nor what its
# search cost. The code that its authors released has faults that change the sizes (see docs/hyperparameters.md). This
# kit therefore repeats the *method*, and does not claim any number of the article. Notebooks 05 and 06 test whether the
# search is better than chance.
#
# ## A network in lanes
#
# slides: One lane for each resolution
# slides: Searched: each **module** and each **edge**
# slides: All else stays as it is
#
# The network looks at a picture at several resolutions at once. Each resolution has a lane of its own, called a
# **branch**: branch *i* has 1/2ⁱ of the height and of the width, so 1/4ⁱ of the pixels, and usually more channels. Two
# kinds of place are *not* fixed but **searched**:
#
# * a **module** is either *parallel* (every branch works for itself) or *fusion* (every branch receives something from
#   all others);
# * an **edge** is an arrow inside an attention block, drawn further below; on each edge stands one of nine operations.
#
# Everything else stays as it is: the *stem* (the first layers), the *transitions* (each opens one more branch) and the
# last fusion. Modules are grouped into **cells**. A cell is a transition, some modules one after another, and an
# attention block on each branch. Here is the network at the size that the article uses, with three cells on two, three
# and four branches:

# %%
diagrams.trunk()

# %% [markdown]
# **What you should see.** One lane for each branch. The first cell works on two branches, and each further cell opens
# one more. A blue box stands for four modules, one after another, each of them P (parallel) or F (fusion). An orange box
# (*att*) is an attention block. (At this size branch 0 keeps the full resolution. In the smaller spaces of the course
# the stem halves the picture once, so branch 0 has half the size.)
#
# And here is one network of the space that this notebook looks at. A person might draw it: parallel modules with a
# fusion module at the end of each cell, and on every edge the operation `SE` (squeeze and excitation, explained below).

# %%
space = SearchSpace.preset(size)
by_hand = Genotype.hand_made(space)
print(f"{len(by_hand.modules)} modules and {len(by_hand.edges)} attention edges are searched")
draw.architecture(by_hand)

# %% [markdown]
# **What you should see.** From left to right: the stem, then one cell for each number of branches, each with its
# modules (P parallel, F fusion) and an attention block on every branch; at the end the last fusion adds all branches to
# branch 0.
#
# > **Predict.** Which kind of module has more parameters, the parallel or the fusion one? And which one needs more
# > multiply-adds?
#
# <details><summary>Answer: write yours down first, then click</summary>
#
# The parallel one has several times as many parameters, and in multiply-adds the distance is larger still. The next
# code cell prints both, and the text below that cell says why.
#
# </details>
#
# ## Two modules
#
# slides: Parallel: every branch for itself, $P(x)_i = x_i + \mathrm{conv}_3(\mathrm{relu}(\mathrm{conv}_3(x_i)))$
# slides: Fusion: every branch hears all the others
# slides: Same shapes in, same shapes out
#
# Both kinds of module take a list with one tensor per branch, and return a new list of the same shapes. Nothing else is
# asked of them, so one can stand in the place of the other.
#
# $$P(x)_i = x_i + \mathrm{conv}_3\bigl(\mathrm{relu}(\mathrm{conv}_3(x_i))\bigr)$$
#
# $$F(x)_i = x_i + \sum_{j>i} \mathrm{up}_{j-i}\bigl(\mathrm{conv}_1(x_j)\bigr) + \sum_{j<i} \mathrm{down}_{i-j}(x_j)$$
#
# Here $x_i$ is the map of branch $i$. The parallel module $P$ is the residual block of ResNet, one for each branch: it
# adds a correction to its input. A module that has nothing to do only has to learn a correction of zero. The fusion
# module $F$ adds to each branch what all others have: $\mathrm{up}_k$ repeats each pixel $2^k$ times in both
# directions, and $\mathrm{down}_k$ is $k$ convolutions of 3 × 3 with stride 2, each of which halves height and width.
# (In a space with normalisation, BatchNorm follows each convolution, and a ReLU follows each sum.)
#
# In the supernet, the network that holds all candidates, the place of a module holds both. It mixes them with weights
# $p + f = 1$ that are learned: $M(x) = p\,P(x) + f\,F(x)$. Deriving keeps the module with the larger weight.

# %%
widths = space.channels[:2]
x = [torch.randn(1, width, 16 // 2**i, 16 // 2**i) for i, width in enumerate(widths)]
for kind in (ParallelModule, FusionModule):
    module = kind(widths, space.norm)
    parameters = sum(p.numel() for p in module.parameters())
    shapes = [tuple(branch.shape) for branch in module(x)]
    operations = count_flops(module, x) / 2  # a multiply-add is counted as two
    print(
        f"{kind.__name__:<15} {parameters:>7,} parameters, {operations:>11,.0f} multiply-adds, out {shapes}"
    )
    assert shapes == [tuple(branch.shape) for branch in x]

# %% [markdown]
# **What you should see.** Both modules return the same shapes, and the parallel one has several times as many
# parameters. It has two 3 × 3 convolutions per branch. The fusion module has one 1 × 1 convolution for each way up to a
# finer resolution, and one 3 × 3 convolution of stride 2 for each step down. In multiply-adds the two are further apart
# still, because the parallel module works on *every* pixel of the finest branch.
#
# ## An attention block
#
# slides: Two groups of channels, three searched edges
# slides: $U_0 = o_{00}(F_0), \quad U_1 = o_{10}(F_1) + o_{11}(U_0)$
# slides: The second group hears what the first has found
#
# On every branch of a cell stands an attention block. It cuts the channels into K = 2 groups F₀ and F₁. Its **edges**
# are the arrows of a small graph. On each edge stands one operation $o$, which is searched. With two groups a block has
# three edges:
#
# $$U_0 = o_{00}(F_0), \qquad U_1 = o_{10}(F_1) + o_{11}(U_0)$$
#
# $$\mathrm{out} = \mathrm{SE}\bigl(x + \mathrm{project}([\,U_0,\ U_1,\ \mathrm{SE}(F_0 + F_1)\,])\bigr)$$
#
# Read it from left to right. The operation $o_{00}$ is applied to the first group, which gives $U_0$. The operation
# $o_{10}$ is applied to the second group, and $o_{11}$ to the result $U_0$ of the first; their sum is $U_1$. With $K$
# groups, group $i$ has one edge for itself and one for each group before it, together $K(K+1)/2$ edges. The last line
# is fixed: `project` (two 1 × 1 convolutions) puts the groups together again, and the result is added to the input $x$
# of the block. SE is the operation of that name in the table below.

# %%
diagrams.attention_block()

# %% [markdown]
# **What you should see.** The three thick arrows are the three edges of the first formula. The thin arrows are fixed:
# the squeeze and excitation (SE) of $F_0 + F_1$, the projection, and the way of $x$ around the block.
#
# ## Nine operations, all of them gates
#
# slides: Each multiplies its input by numbers from 0 to 1
# slides: They differ in where they look, and in what they cost
#
# Each operation of an attention edge multiplies its input by something between 0 and 1, its **gate**:
#
# | operation | looks at | its gate has a value for |
# |---|---|---|
# | `none` | nothing; the gate is 0, a cut | – |
# | `skip_connect` | nothing; the gate is 1, the identity | – |
# | `sep_conv_3x3`, `dil_conv_3x3` | the map, 3 × 3 around each pixel (`dil`: every second pixel of 5 × 5) | every channel and pixel |
# | `sep_conv_3x3_spatial`, `dil_conv_3x3_spatial` | two maps, the maximum and the mean over the channels, with the same windows | every pixel |
# | `SE` (squeeze and excitation) | the mean of each channel over the map | every channel |
# | `SE_A_M` | the mean and the maximum of each channel | every channel |
# | `CBAM` | the same as `SE_A_M`; then a 7 × 7 convolution on the maximum and the mean over the channels of the gated map | every channel and pixel |
#
# The next cell shows how many parameters each of them has.

# %%
costs = measure_costs(space, "parameters")
width_row = len(space.edge_branch) - 1  # an edge of the widest branch
edge_costs = dict(zip(space.operations, costs.edges[width_row].tolist(), strict=True))
edge_channels = space.channels[space.edge_branch[width_row]] // space.groups
pictures.bars(edge_costs, title=f"one edge, {edge_channels} channels", unit="parameters")

# %% [markdown]
# **What you should see.** `none` (a cut) and `skip_connect` (the identity) have no parameters. The spatial gates have
# very few, because they look at only two maps, the maximum and the mean over the channels. The separable convolutions
# cost most.
#
# Every candidate multiplies its input by a gate (that of `none` is 0), $o_k(x) = x \cdot g_k(x)$. A mixture of them with weights
# $w_k = \mathrm{softmax}(\beta)_k$ is therefore one multiplication by a mixture of gates,
#
# $$\sum_k w_k\, o_k(x) = x \cdot \sum_k w_k\, g_k(x),$$
#
# so that the map with its many channels is multiplied once, and not nine times. Play with the weights of four
# candidates:

# %%
widgets.mixer(open_split("photos").test[0].clean.read())

# %% [markdown]
# **What you should see.** With four equal weights the picture is darker than before, because `none` lets nothing pass.
# Give all the weight to `skip_connect`, and the picture is unchanged. Give all of it to `none`, and the picture is black.
#
# ## How many networks?
#
# slides: Every choice goes with every other: numbers multiply
# slides: `none` may not win: it would cut the network
#
# Every choice can be combined with every other choice, so the numbers of candidates are multiplied. `none` may not win
# an edge, because it would cut the network there without a word. So eight operations are left.

# %%
# NBVAL_CHECK_OUTPUT
for name in ("smoke", "teach", "lite", "paper"):
    each = SearchSpace.preset(name)
    count = f"2^{len(each.module_branches)} x 8^{len(each.edge_branch)}"
    assert each.count() == 2 ** len(each.module_branches) * 8 ** len(each.edge_branch)
    print(f"{name:<6} channels {each.channels}: {count} = {each.count():.1e} networks")

# %% [markdown]
# **What you should see.** The spaces hold between a million networks (`smoke`) and 10²⁸ (`paper`, which has the sizes
# of the code that was released with the article). If one tried one network per minute, the `teach` space would take
# about a billion years. So nobody can try them all, and notebooks 05 and 06 ask what a search really finds.
#
# **Stop here if short of time**, and do exercise 1.
#
# ## Supernet: all of them at once
#
# slides: Every candidate, at every place, at once
# slides: Weights by softmax; at the start nearly equal
#
# The **supernet** holds every candidate at every place. Each place has a row of numbers, called α for a module and β
# for an edge. A softmax turns the row into weights, and the place returns the mixture of its candidates with these
# weights. A search changes the numbers, and deriving keeps the candidate with the largest weight at each place:

# %%
diagrams.supernet_to_network()

# %% [markdown]
# **What you should see.** Three times the same two places, each with three candidates. In the supernet all lines are
# equally thick. After the search one line of each place is thick. The derived network keeps only this line, and its
# weights are then trained from scratch.
#
# At the start all weights are nearly equal:

# %%
supernet = SuperNet(space, seed=seed)
alpha, beta = supernet.weights()
print("alpha", tuple(alpha.shape), "first row", [round(w, 3) for w in alpha[0].tolist()])
print("beta ", tuple(beta.shape), "rows sum to", round(beta.sum(1).mean().item(), 6))
draw.mixture(alpha, beta, space)

# %% [markdown]
# **What you should see.** The two weights of each module are about 0.5, and the nine weights of each edge are about 1/9.
# So all strokes of an edge are equally thin. The number above a box is the larger weight of its module.
#
# ## The one identity that must hold
#
# slides: All weights on one candidate: the supernet *is* the derived network
# slides: Much research code fails this test
#
# If every row has one weight of 1 and all others are 0, the supernet must *be* the derived network: it has the same
# weights and gives the same output. The next cell tests this. Much research code fails here (notebook 07 shows how): it
# searches one network and derives another.

# %%
chosen = Genotype.random(space, seed)
with torch.no_grad():
    supernet.alpha.fill_(-200.0)
    supernet.beta.fill_(-200.0)
    for row, name in enumerate(chosen.modules):
        supernet.alpha[row, ("parallel", "fusion").index(name)] = 200.0
    for row, name in enumerate(chosen.edges):
        supernet.beta[row, space.operations.index(name)] = 200.0
    for parameter in supernet.head.parameters():
        parameter.normal_(0, 0.1)  # the head starts at zero here; a test needs something to see
derived = DerainNet(chosen).inherit(supernet).eval()
image = torch.rand(1, 3, 40, 56)
with torch.no_grad():
    gap = (supernet.eval()(image) - derived(image)).abs().max().item()
print(f"largest difference {gap:.1e}")
assert gap < 1e-5

# %% [markdown]
# **What you should see.** A difference of zero, or one as small as rounding makes it. With decided rows the supernet
# gives the output of the derived network.
#
# ## What do architectures cost?
#
# slides: Price each choice once, then add
# slides: Cost is known before training; quality is not
#
# The next cell draws a few hundred random architectures. The cost of each is the sum of the costs of its choices, which
# were measured once. No network is built for it.

# %%
drawn = [Genotype.random(space, seed + k) for k in range(samples)]
cost = np.array([[g.cost(), g.cost("flops")] for g in drawn])
share = np.array([g.modules.count("parallel") / len(g.modules) for g in drawn])
print(f"{cost[:, 0].min():,.0f} to {cost[:, 0].max():,.0f} parameters")

# %%
named = {
    "hand-made": by_hand,
    "all parallel": Genotype.all_parallel(space),
    "all fusion": Genotype.all_fusion(space),
}
points = {name: (g.cost() / 1e3, g.cost("flops") / 1e9) for name, g in named.items()}
pictures.scatter(
    points,
    x="thousand parameters",
    y="GFLOPs on 256 x 256",
    title=f"{samples} random architectures (small, darker: more parallel modules), and three named ones",
    among=(cost[:, 0] / 1e3, cost[:, 1] / 1e9, share),
)

# %% [markdown]
# **What you should see.** The line above gives the smallest and the largest of the random architectures: at `teach` size
# the largest has nearly twice as many parameters as the smallest. At this size the points form groups, one for each
# number of parallel modules. Parameters and FLOPs agree only roughly: inside a group the parameters differ, and the
# FLOPs hardly do. A module of the last cell, for
# example, has many parameters but works on few pixels. So whoever calls a network small must say in which unit. The
# method adds an **expected cost** to its loss: the mean cost of the networks that one draws with the weights as
# probabilities. Its unit is a setting (`complexity_unit`).
#
# Build your own, and watch the price:

# %%
widgets.genotype_editor(by_hand)

# %% [markdown]
# **What you should see.** The drawing of the hand-made network, with its cost above it. Change one module: both
# numbers change much. Change one edge: they change little.
#
# ## Exercises
#
# **1. Count.** A space has `modules` places for a module, each of one of two kinds, and `edges` edges, each with one of
# the operations. How many architectures does it hold? If `allow_none` is false, `none` may not stand on an edge.
#
# *Why it matters.* Whoever knows the size of a space knows what cannot be tried, and how small a share of it any
# search has seen.


# %% tags=["exercise", "exercise:count_space"]
def my_count(modules, edges, operations, allow_none):
    """A whole number; operations is a list of names that holds "none"."""
    # BEGIN SOLUTION
    choices = len(operations) if allow_none else len(operations) - operations.count("none")
    return 2**modules * choices**edges
    # END SOLUTION


# %% tags=["check", "check:count_space"]
checks.count_space(my_count)

# %% [markdown]
# **2. A gated edge.** Write the mixture from *Nine operations, all of them gates* as a function: the softmax of
# `logits` gives the weights, and `x` is multiplied by the mixture of what the `gates` return. Every logit must get a
# gradient.
#
# *Why it matters.* This line is the whole idea of a differentiable search. With an `argmax` or a `.detach()` in it, the
# search runs but learns nothing.


# %% tags=["exercise", "exercise:gated_edge"]
def my_edge(x, gates, logits):
    """x: tensor (B, c, H, W); gates: list of n functions of x; logits: tensor (n,)."""
    # BEGIN SOLUTION
    weights = torch.softmax(logits, dim=0)
    return x * sum(w * gate(x) for w, gate in zip(weights, gates, strict=True))
    # END SOLUTION


# %% tags=["check", "check:gated_edge"]
checks.gated_edge(my_edge)

# %% [markdown]
# **3. Expected cost.** Each edge draws its operation with the softmax weights of its row as probabilities. What do all
# edges together cost on average? Return a tensor with a gradient, so that a search can make it smaller.
#
# *Why it matters.* If a price is looked up by position and not by name, the search is rewarded for the wrong operation,
# and no curve shows it (pitfall 5 of notebook 07).


# %% tags=["exercise", "exercise:expected_cost"]
def my_expected_cost(logits, operations, cost):
    """logits: float32 (edges, n); operations: names of the columns; cost: name -> number, in any order."""
    # BEGIN SOLUTION
    prices = torch.tensor([cost[name] for name in operations], dtype=logits.dtype)
    return (torch.softmax(logits, dim=1) * prices).sum()
    # END SOLUTION


# %% tags=["check", "check:expected_cost"]
checks.expected_cost(my_expected_cost)

# %% [markdown]
# ## What this shows, and what it does not
#
# slides: Space, size and prices are facts
# slides: Which network derains *well* is still open
#
# The space, its size and its costs are facts. You have also checked that the supernet and the derived network agree
# where they must. Nothing here says which architecture derains *well*: the cost is known before training, the quality
# is not.
#
# ## Summary
#
# * The space has two kinds of module and nine gates. It holds some 6 · 10¹⁴ networks at `teach` size, 10²⁸ at `paper`
#   size.
# * The supernet mixes all candidates. With a single weight of 1 in each row it is the derived network.
# * Costs are looked up by name and added. The expected cost has a gradient.
#
# **Next**: 03 bilevel search. **Or try** `size = "paper"`, and look where the parameters go.
#
# **References.** L. Cai et al., *MANAS*, arXiv 2207.00728 · Y. Gou et al., *CLEARER*, NeurIPS 2020 · K. Sun et al.,
# *HRNet*, arXiv 1902.09212 · J. Hu et al., *Squeeze-and-Excitation*, arXiv 1709.01507 · S. Woo et al., *CBAM*, arXiv
# 1807.06521.

# %% tags=["record"]
expected = losses.complexity(*SuperNet(space, seed=seed).weights(), costs).item()
course.record_results(
    architectures=float(space.count()),
    hand_made_parameters=by_hand.cost(),
    expected_cost_at_start=expected,
    one_hot_gap=gap,
    median_parameters=float(np.median(cost[:, 0])),
)
