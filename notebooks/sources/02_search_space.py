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
# resolutions sees both, and it can exchange what each resolution has found. HRNet did this first for poses, CLEARER
# searched over it for restoring pictures, and MANAS takes over their two modules.
#
# **Why attention.** Rain covers some pixels and leaves others alone, and it shows in some channels and not in others. A
# *gate* multiplies a map by numbers between 0 and 1: it lets pass what belongs to the background and holds back what
# belongs to the rain. Nobody knows beforehand which kind of gate serves best, or where. So the kind of each gate is
# searched too.
#
# **Why several rains of one background.** One clean photograph under three rains gives three inputs with *one* right
# answer. The answers must then agree with each other, and this can be asked for in the loss (the *internal* loss) even
# where no clean picture tells how good they are. Notebook 01 showed such scenes; 04 trains on them.
#
# **What the article claims, and what is unknown.** It reports better scores than networks that were designed by hand,
# and help for detection and segmentation. Its loss weights and the cost of its search are not known to us, and the code
# that its authors released has faults that change the sizes (see docs/hyperparameters.md). This kit therefore repeats
# the *method* and claims none of the article's numbers. Whether the search is better than chance is a question that
# notebooks 05 and 06 put to the test.
#
# ## A network in lanes
#
# slides: One lane for each resolution
# slides: Searched: each **module** and each **edge**
# slides: All else stays as it is
#
# The network looks at a picture at several resolutions at once. Each **branch** (a lane) has its own: branch *i* has
# 1/2ⁱ of the height and of the width, so 1/4ⁱ of the pixels, and usually more channels. Two kinds of place are *not*
# fixed but **searched**:
#
# * a **module** is either *parallel* (every branch for itself) or *fusion* (every branch hears all the others);
# * on every **edge** inside an attention block stands one of nine operations.
#
# Everything else (stem, transitions, the last fusion) stays as it is. Here is the trunk at the size that the article uses,
# with its three cells on two, three and four branches:

# %%
diagrams.trunk()

# %% [markdown]
# And here is one network of the space that this notebook looks at, the one that a person might draw: parallel modules with
# a fusion at the end of each cell, and squeeze-and-excitation everywhere.

# %%
space = SearchSpace.preset(size)
by_hand = Genotype.hand_made(space)
print(f"{len(by_hand.modules)} modules and {len(by_hand.edges)} attention edges are searched")
draw.architecture(by_hand)

# %% [markdown]
# **What you should see.** From left to right: the stem, then one cell for each number of branches, each with its
# modules (P parallel, F fusion) and an attention block on every branch; at the end everything flows into branch 0.
#
# > **Predict.** In which kind of module are more parameters, in a parallel or in a fusion one? And is the answer the same
# > for multiply-adds?
#
# <details><summary>Answer: write yours down first, then click</summary>
#
# The parallel one has several times as many parameters, and in multiply-adds it is ahead by more still. The next cell
# but one prints both, and the text below it says why.
#
# </details>
#
# ## Two modules
#
# slides: Parallel: every branch for itself, $P(x)_i = x_i + \mathrm{conv}_3(\mathrm{relu}(\mathrm{conv}_3(x_i)))$
# slides: Fusion: every branch hears all the others
# slides: Same shapes in, same shapes out
#
# Both take a list with one tensor a branch and return a new list of the same shapes. That is the whole interface, and
# why one can stand in for the other.
#
# $$P(x)_i = x_i + \mathrm{conv}_3\bigl(\mathrm{relu}(\mathrm{conv}_3(x_i))\bigr)$$
#
# $$F(x)_i = x_i + \sum_{j>i} \mathrm{up}_{j-i}\bigl(\mathrm{conv}_1(x_j)\bigr) + \sum_{j<i} \mathrm{down}_{i-j}(x_j)$$
#
# Here $x_i$ is the map of branch $i$. The parallel module $P$ is the residual block of ResNet, one for each branch: it
# adds a correction to what came in, so that doing nothing is easy to learn. The fusion module $F$ adds to each branch
# what all others have: $\mathrm{up}_k$ repeats each pixel $2^k$ times in both directions, and $\mathrm{down}_k$ is
# $k$ convolutions of 3 × 3 with stride 2, each of which halves height and width. (Where a space normalises, BatchNorm
# follows each convolution and a ReLU each sum.)
#
# In the supernet a place holds both, with weights $p + f = 1$ that are learned: $M(x) = p\,P(x) + f\,F(x)$. Deriving
# keeps the one of the larger weight.

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
# **What you should see.** The same shapes, and a parallel module several times as large: two 3 × 3 convolutions a branch,
# where a fusion module has one 1 × 1 for each way up in resolution and a 3 × 3 of stride 2 for each step down. In
# multiply-adds the two are further apart still: the parallel module works on *every* pixel of the finest branch.
#
# ## An attention block
#
# slides: Two groups of channels, three searched edges
# slides: $U_0 = o_{00}(F_0), \quad U_1 = o_{10}(F_1) + o_{11}(U_0)$
# slides: The second group hears what the first has found
#
# On every branch of a cell stands an attention block. It cuts the channels into K = 2 groups F₀ and F₁, and its
# **edges** are the arrows of a small graph. Each edge o is searched, three of them a block:
#
# $$U_0 = o_{00}(F_0), \qquad U_1 = o_{10}(F_1) + o_{11}(U_0)$$
#
# $$\mathrm{out} = \mathrm{SE}\bigl(x + \mathrm{project}([\,U_0,\ U_1,\ \mathrm{SE}(F_0 + F_1)\,])\bigr)$$
#
# Read it from left to right: the first group is gated. The second group is gated too, and hears the result of the
# first. With $K$ groups, group $i$ has an edge for itself and one for each group before it, which makes
# $K(K+1)/2$ edges. The last line, with two 1 × 1 convolutions in `project`, is fixed: it puts the groups together again
# and adds them to what came in.

# %%
diagrams.attention_block()

# %% [markdown]
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
# | `sep_conv_3x3_spatial`, `dil_conv_3x3_spatial` | the channels' maximum and mean, two maps, the same way | every pixel |
# | `SE` (squeeze and excitation) | the mean of each channel over the map | every channel |
# | `SE_A_M` | the mean and the maximum of each channel | every channel |
# | `CBAM` | as `SE_A_M`, then a 7 × 7 on the maps so gated | every channel and pixel |
#
# What do they cost?

# %%
costs = measure_costs(space, "parameters")
width_row = len(space.edge_branch) - 1  # an edge of the widest branch
edge_costs = dict(zip(space.operations, costs.edges[width_row].tolist(), strict=True))
edge_channels = space.channels[space.edge_branch[width_row]] // space.groups
pictures.bars(edge_costs, title=f"one edge, {edge_channels} channels", unit="parameters")

# %% [markdown]
# **What you should see.** `none` (a cut) and `skip_connect` (the identity) are free, the spatial gates nearly so: they
# look at only two maps, the channels' maximum and mean. The separable convolutions cost most.
#
# Every candidate but `none` multiplies its input by a gate, $o_k(x) = x \cdot g_k(x)$. A mixture of them with weights
# $w_k = \mathrm{softmax}(\beta)_k$ is therefore one multiplication by a mixture of gates,
#
# $$\sum_k w_k\, o_k(x) = x \cdot \sum_k w_k\, g_k(x),$$
#
# so that the wide map is multiplied once, not nine times. Play with the weights of four candidates:

# %%
widgets.mixer(open_split("photos").test[0].clean.read())

# %% [markdown]
# ## How many networks?
#
# slides: Every choice goes with every other: numbers multiply
# slides: `none` may not win: it would cut the network
#
# Every choice goes with every other choice. `none` may not win an edge (it would silently cut the network), so eight
# operations are left.

# %%
# NBVAL_CHECK_OUTPUT
for name in ("smoke", "teach", "lite", "paper"):
    each = SearchSpace.preset(name)
    count = f"2^{len(each.module_branches)} x 8^{len(each.edge_branch)}"
    assert each.count() == 2 ** len(each.module_branches) * 8 ** len(each.edge_branch)
    print(f"{name:<6} channels {each.channels}: {count} = {each.count():.1e} networks")

# %% [markdown]
# **What you should see.** From a million networks (`smoke`) to 10²⁸. `paper` means the sizes of the code that
# was released with the article. Trying one network a minute, the `teach` space would take about a billion years: nobody
# tries them all, and 05 and 06 ask what a search really finds.
#
# **Stop here if short of time**, and do exercise 1.
#
# ## Supernet: all of them at once
#
# slides: Every candidate, at every place, at once
# slides: Weights by softmax; at the start nearly equal
#
# The **supernet** holds every candidate at every place. A row of numbers, α for a module and β for an edge, becomes
# weights by softmax, and the place returns the weighted mixture. A search moves these weights, and deriving keeps the
# strongest candidate of each place:

# %%
diagrams.supernet_to_network()

# %% [markdown]
# At the start all weights are nearly equal:

# %%
supernet = SuperNet(space, seed=seed)
alpha, beta = supernet.weights()
print("alpha", tuple(alpha.shape), "first row", [round(w, 3) for w in alpha[0].tolist()])
print("beta ", tuple(beta.shape), "rows sum to", round(beta.sum(1).mean().item(), 6))
draw.mixture(alpha, beta, space)

# %% [markdown]
# ## The one identity that must hold
#
# slides: All weights on one candidate: the supernet *is* the derived network
# slides: Much research code fails this test
#
# If every row has exactly one weight of 1, the supernet must *be* the derived network: same weights, same output.
# Much research code fails here (notebook 07 shows how), and then searches one thing and derives another.

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
# ## What do architectures cost?
#
# slides: Price each choice once, then add
# slides: Cost is known before training; quality is not
#
# Some hundred random architectures, priced by adding up the measured cost of each choice. No network is built.

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
figure = pictures.scatter(
    points,
    x="thousand parameters",
    y="GFLOPs on 256 x 256",
    title=f"{samples} random architectures (small, darker: more parallel modules), and three named ones",
)
figure.axes[0].scatter(
    cost[:, 0] / 1e3, cost[:, 1] / 1e9, c=share, cmap="Blues", s=8, zorder=0, vmin=-0.4
)
figure

# %% [markdown]
# **What you should see.** A cloud in which parameters and FLOPs agree only roughly: a module of the last cell has many
# parameters but works on few pixels. "Small" therefore needs a unit. The method adds an **expected cost** to its loss,
# and the unit is a setting (`complexity_unit`).
#
# Build your own, and watch the price:

# %%
widgets.genotype_editor(by_hand)

# %% [markdown]
# ## Exercises
#
# **1. Count.** A space has `modules` places for a module, each of one of two kinds, and `edges` edges, each with one of the
# operations. How many architectures does it hold?
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
# **2. A gated edge.** Write the relaxed edge of this notebook. Every logit must get a gradient.
#
# *Why it matters.* This line is the whole idea of a differentiable search. An `argmax` or a `.detach()` in it leaves a
# search that runs and learns nothing.


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
# **3. Expected cost.** What will all edges together cost, if each is drawn with its weights as probabilities? A tensor
# with a gradient, so that a search can be told to be cheap.
#
# *Why it matters.* A price that is looked up by position and not by name rewards the wrong operation, and no curve
# shows it (pitfall 5 of notebook 07).


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
# The space, its size and its prices are facts; you have checked that supernet and derived network agree where they
# must. Nothing here says which architecture derains *well*: cost is known before training, quality is not.
#
# ## Summary
#
# * Two kinds of module, nine gates; some 6 · 10¹⁴ networks at `teach` size, 10²⁸ at `paper` size.
# * The supernet mixes all candidates; one-hot rows make it the derived network.
# * Costs are looked up by name and added; their expectation has a gradient.
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
