# %% tags=["parameters"]
unit = "multiply-adds"  # what is scarce: "multiply-adds" (in millions) or "milliseconds" (on this machine)
budget = 200.0  # the most that your network may cost, in that unit
table = ""  # folder of a table like the package's own; empty: the one that the package brings
seed = 0  # first seed of replayed searches, drawn networks and initial weights
side = 128  # pixels: height and width of the picture that milliseconds are measured on
timed = 8  # whole networks that are timed to check the table of milliseconds
repeats = 20  # forward passes of each timing, of which the fastest counts
scored = 128  # architectures that the zero-cost scores see, of 128
redrawn = 40  # times that the predictor's training set is drawn anew
replays = 100  # times that random search and evolution are replayed
trainings = 24  # trainings that each search may pay for
final = False  # True opens the test column: once, when nothing is chosen any more

# %% tags=["imports"]
import itertools
import time
from dataclasses import replace

import numpy as np
import torch
from scipy import stats
from torch.nn import functional as F

from manas_lite import DerainNet, draw, open_split
from manas_lite.networks.attention import EdgeSlot
from manas_lite.networks.budget import best_within, lowest_cost
from manas_lite.networks.costs import Costs, measure_costs
from manas_lite.networks.modules import MODULES
from manas_lite.photos.images import to_tensor
from manas_course import checks, illustrations as pictures, micro_bench, widgets
from manas_course.micro_bench import figures

# %% [markdown]
# ## The question that users ask
#
# slides: Not *the best network*, but the best one **that fits**
# slides: $\max_a Q(a)$ subject to $C(a) \le B$
# slides: A price λ is a guess; a **budget** is kept
#
# A user does not ask for *the best network*. A user asks for the best network **that runs on this camera**, or
# **within 10 milliseconds per frame**, or **within a third of what we have now**. Written as a formula, with an
# architecture $a$, its quality $Q$ (PSNR after training, in dB), its cost $C$ and the budget $B$:
#
# $$\max_a\ Q(a) \qquad\text{subject to}\qquad C(a) \le B$$
#
# Notebook 03 put a *price* on cost instead: it minimised $L(a) + \lambda\, C(a)$. That is simpler for gradients,
# because everything stands in one loss. But nobody knows beforehand which λ leads to 10 milliseconds. So one
# searches, looks at the cost, changes λ, and searches again. With a **budget** one states the limit once, and every
# network that is found keeps it.
#
# This notebook goes the whole way. It measures cost, and asks whether the budget is possible at all. It ranks
# networks without training them, and learns to predict the quality of all networks from a few trained ones. It
# searches at equal total cost, and hands over a network. All of this uses the table of notebook 05: 128
# architectures, each trained with several seeds. So every answer can be checked, and nothing has to be trained here.
#
# > **Predict.** An attention gate such as `CBAM` adds hardly any multiply-adds. Does it also add hardly any *time*?
#
# <details><summary>Answer: write yours down first, then click</summary>
#
# No. A gate has a tenth or a hundredth of the multiply-adds of a module, and takes a much larger share of its time,
# because it consists of many small operations. The measurement below prints both units.
#
# </details>

# %%
bench = micro_bench.load(table or None)
trained = bench.scores("val_psnr")  # (128, training seeds)
genotypes = [micro_bench.genotype_of(*each) for each in bench.architectures]
spread = micro_bench.spread(trained)
print(f"{len(genotypes)} architectures, each trained with seeds {list(bench.seeds)}")
print(f"noise between trainings of one architecture: {spread.noise:.2f} dB")
assert unit in ("multiply-adds", "milliseconds"), "unit: one of these two"

# %% [markdown]
# ## Three units of cost
#
# slides: Parameters: what is stored
# slides: Multiply-adds: what is calculated
# slides: Milliseconds: how long one waits; they must be *measured*
#
# **Parameters** say what must be stored. **Multiply-adds** say how much is calculated: a convolution of $k \times k$
# from $c$ to $d$ channels takes $k^2\, c\, d$ of them for each pixel. **Milliseconds** say how long one waits. The first
# two are counted, and they are the same everywhere. The third must be measured, and it is different on every machine.
#
# Is the time not simply the number of multiply-adds, divided by the speed of the machine? Only where the calculation
# itself takes most of the time. A gate reads a map, takes a mean, multiplies the map and writes it back. These are
# few calculations, but much memory is moved, and each small step has to be started.
#
# Let us measure, on one thread. The clock counts only the processor time of this thread: it stands still while other
# programs run. Other programs can still disturb a pass, but they can only make it *slower*. So the fastest of several
# passes is nearest to the truth.


# %%
def milliseconds(module, *inputs):
    """The fastest of several forward passes."""
    took = []
    with torch.inference_mode():
        for _ in range(repeats):
            began = time.thread_time()
            module(*inputs)
            took.append(1000 * (time.thread_time() - began))
    return min(took)


# %% [markdown]
# A large space holds 10¹⁴ networks, and nobody can time them all. But a network consists of places, and at each place
# one candidate is chosen. So perhaps the time of the network is nearly the sum of the times of its places:
#
# $$T(a) \approx t_0 + \sum_{\text{places } p} t_p(a_p)$$
#
# Here $T(a)$ is the time of the whole network, $t_p(a_p)$ is the time of the candidate $a_p$ that is chosen at place
# $p$, and $t_0$ is the time of everything that is the same in all networks. There are only a few *different* places:
# a module on two branches, an edge on branch 0 or on branch 1. So it is enough to measure each candidate once, alone.
# The next cells make such a table. Hardware-aware searches such as ProxylessNAS and FBNet use the same idea.

# %%
space, threads = micro_bench.SPACE, torch.get_num_threads()
torch.set_num_threads(1)  # steadier, and what the table of trainings counted
maps = [
    torch.rand(1, w, side // (space.scale << i), side // (space.scale << i))
    for i, w in enumerate(space.channels)
]
halves = [x[:, : x.shape[1] // space.groups].contiguous() for x in maps]

# %%
module_ms = {
    name: milliseconds(MODULES[name](space.channels, space.norm).eval(), maps)
    for name in space.modules
}
edge_ms = [
    [
        milliseconds(EdgeSlot([name], x.shape[1], space.norm).eval(), x)
        for name in space.operations
    ]
    for x in halves
]

# %%
flops = measure_costs(space, "flops", (side, side))
print(
    f"one picture of {side} x {side} pixels, one thread     milliseconds   million multiply-adds"
)
for row, name in enumerate(space.modules):
    print(f"module {name:<40}{module_ms[name]:>9.2f}{flops.modules[0, row] / 2e6:>19.2f}")
for k, name in enumerate(space.operations):
    print(f"edge   {name:<40}{edge_ms[0][k]:>9.2f}{flops.edges[0, k] / 2e6:>19.2f}")

# %% [markdown]
# **What you should see.** The *parallel* module costs more than the *fusion* module in both units. Now look at the
# gates in the last lines. They have a tenth or a hundredth of the multiply-adds of a module, and take a much larger
# share of its time. Was your guess right? If you count multiply-adds alone, you will choose gates that look free, and
# then wait for them.
#
# Does the sum hold? Let us time some whole networks. $t_0$ is still unknown: it is the time of the stem, the
# transitions and the fixed part of the attention blocks. The first half of the timed networks is used to estimate it,
# and the other half to check the sum.

# %%
edges = torch.tensor([edge_ms[i] for i in space.edge_branch], dtype=torch.float64)
modules = torch.tensor([list(module_ms.values())] * len(space.module_branches)).double()
measured = Costs("milliseconds", space.operations, space.modules, modules, edges, 0.0)
picked = np.random.default_rng(seed).permutation(len(genotypes))[:timed]
picture = torch.rand(1, 3, side, side)
whole = np.array([milliseconds(DerainNet(genotypes[k]).eval(), picture) for k in picked])
places = np.array([measured.of(genotypes[k].modules, genotypes[k].edges) for k in picked])
half = timed // 2
measured = replace(measured, fixed=float(np.median((whole - places)[:half])))
error = np.abs(whole - places - measured.fixed)[half:] / whole[half:]
torch.set_num_threads(threads)
print(
    f"t0 = {measured.fixed:.2f} ms; whole networks take {whole.min():.1f} to {whole.max():.1f} ms"
)
print(f"the sum is off by {np.median(error):.0%} (median of {len(error)} other networks)")

# %% [markdown]
# **What you should see.** An error of some per cent on a quiet machine, and more on a busy one. A table of twenty
# measurements can replace the timing of millions of networks. But it is only a model. So measure the network that you
# choose in the end.
#
# From here on, `costs` and the budget are in the unit that you chose in the parameters.

# %%
full = measure_costs(space, "flops")  # at 256 x 256, as the kit states FLOPs
costs = measured if unit == "milliseconds" else full
size = 1.0 if unit == "milliseconds" else 2e6  # a multiply-add is two FLOPs
label = unit if unit == "milliseconds" else "million multiply-adds"
cost = np.array([costs.of(g.modules, g.edges) for g in genotypes]) / size
fits = cost <= budget
print(
    f"{cost.min():.1f} to {cost.max():.1f} {label}: within {budget:g} lie {fits.sum()} of {len(fits)}"
)
if not fits.any():
    raise ValueError(
        f"budget={budget:g}: impossible, the cheapest costs {cost.min():.1f} {label}"
    )

# %% [markdown]
# ## Is this budget possible at all?
#
# slides: Ask before any search
# slides: Is the cheapest network cheap enough?
# slides: Among those that fit, is one good enough? Ask with intervals
#
# This is the first question of a project, and it comes before any search. It has two halves. *Cost*: the cheapest
# network of a space is the sum of the cheapest choices at all places. If its cost is above the budget, no search will
# help, and the space must change. *Quality*: is there a network within the budget that reaches a given PSNR, the
# target?
#
# The second half has a trap. Among the means of 128 architectures, some are high by luck alone. So each architecture
# is judged by its *interval*. The intervals are made wider, because 128 questions are asked at once (Bonferroni: each
# interval may be wrong with a probability of 5 % / 128). Then the answer can be *yes*, *no*, or *the trainings cannot
# tell*.

# %%
# NBVAL_CHECK_OUTPUT
counted = np.array([g.cost("flops") for g in genotypes]) / 2e6
for limit in (60, 100, 150, 200, 300):
    print(f"{limit} million multiply-adds: {(counted <= limit).sum()} of 128 networks fit")
print(f"the cheapest of the space: {lowest_cost(space, full) / 2e6:.1f} million")


# %%
gains = trained - trained.mean(0)  # a seed shifts all architectures alike: see notebook 05
level = trained.mean()
half_width = stats.norm.isf(0.05 / 2 / len(gains)) * spread.noise / np.sqrt(len(bench.seeds))


def possible(limit, target):
    """Is there a network of at most this cost that reaches this PSNR?"""
    inside = (level + gains.mean(1))[cost <= limit]
    if not len(inside):
        return f"no: the cheapest costs {cost.min():.1f}"
    if (inside - half_width >= target).any():
        return f"yes, {(inside - half_width >= target).sum()} of {len(inside)} surely do"
    return "no" if (inside + half_width < target).all() else "the trainings cannot tell"


# %%
low, middle = cost.min(), np.median(cost)
best = level + gains.mean(1).max()
for limit in (0.8 * low, 1.2 * low, middle, cost.max()):
    for target in (best - 1.0, best - 0.5, best, best + 0.5):
        print(f"{limit:7.1f} {label}, {target:.2f} dB: {possible(limit, target)}")

# %% [markdown]
# **What you should see.** Very low budgets and very high targets get a clear answer. Between them there are pairs for
# which the trainings cannot tell. The noise is more than 0.2 dB and there are four trainings each, so a target that
# lies 0.3 dB above or below a measured mean cannot be decided. Whoever answers with a plain yes has looked at the
# luckiest of 128 numbers.
#
# **Stop here if short of time**, and do exercise 1.
#
# ## Scores that cost nothing
#
# slides: Judge a network *before* it is trained
# slides: Gradient norm, SynFlow, NASWOT
# slides: Beside them: just count parameters
#
# Training is expensive. Can one see from an *untrained* network how good it will be? A score that tries this is
# called a **zero-cost proxy**. It takes one or two passes with the initial weights $\theta$. Here are three
# well-known ones:
#
# **Gradient norm** (Abdelfattah et al., 2021). How strongly does the loss $L$ of one batch pull at the weights? The
# score is the sum, over all parameter tensors $\theta_l$, of the length of the gradient:
#
# $$S_{\mathrm{grad}} = \sum_l \Bigl\lVert \frac{\partial L}{\partial \theta_l} \Bigr\rVert_2$$
#
# **SynFlow** (Tanaka et al., 2020) needs no data at all. Make every weight positive, feed a picture of ones
# ($\mathbf 1$), and let $R$ be the sum of the outputs. The network with positive weights is $f_{|\theta|}$. Each
# single weight $\theta_i$ counts by how much it contributes to $R$. The score is large where many strong paths lead
# through the network:
#
# $$S_{\mathrm{syn}} = \sum_i \Bigl| \theta_i\, \frac{\partial R}{\partial \theta_i} \Bigr|, \qquad R = \mathbf 1^\top f_{|\theta|}(\mathbf 1)$$
#
# **NASWOT** (Mellor et al., 2021) asks whether the network tells pictures apart. For each picture $i$ of a batch,
# write down which ReLUs are on: a long code $c_i$ of 0 and 1. Let $N$ be the length of a code, and $d(c_i, c_j)$ the
# number of places in which two codes differ. Then $K_{ij}$ counts the places in which they agree. The less the codes
# of different pictures agree, the more differently the network can treat these pictures, and the larger is the
# determinant of $K$:
#
# $$S_{\mathrm{wot}} = \log \lvert \det K \rvert, \qquad K_{ij} = N - d(c_i, c_j)$$
#
# In this kit the last convolution starts at zero, so that an untrained network returns its input unchanged. Then no
# gradient passes this convolution, and the first two scores would see the last layer alone. So for this experiment
# its weights are drawn at random, like all others.

# %%
split, rng = open_split("photos"), np.random.default_rng(seed)
crops = []
for scene in split.train[:4]:
    versions, clean = scene.read()
    y, x = (int(rng.integers(0, length - 32)) for length in clean.shape[:2])
    crops.append([to_tensor(p[y : y + 32, x : x + 32]) for p in (versions[-1], clean)])
rainy, clean = (torch.stack(part) for part in zip(*crops, strict=True))
print("a batch for all networks:", tuple(rainy.shape))


# %%
def grad_norm(net):
    """The gradient of one batch's loss: the sum of its lengths."""
    loss = F.l1_loss(net(rainy), clean)
    return sum(g.norm().item() for g in torch.autograd.grad(loss, list(net.parameters())))


def synflow(net):
    """How much the weights carry, all of them made positive; its logarithm, for a large range."""
    for p in net.parameters():
        p.data.abs_()
    ones = torch.ones(1, 3, 32, 32)
    total = (ones - net(ones)).sum()  # the network subtracts what it finds from its input
    grads = torch.autograd.grad(total, list(net.parameters()))
    carried = [(p * g).abs().sum() for p, g in zip(net.parameters(), grads, strict=True)]
    return sum(carried).log().item()


# %%
def naswot(net):
    """How different the ReLU codes of the batch's pictures are."""
    codes = []
    relus = [m for m in net.modules() if isinstance(m, torch.nn.ReLU)]
    hooks = [
        m.register_forward_hook(lambda m, i, o: codes.append(o.flatten(1) > 0)) for m in relus
    ]
    with torch.no_grad():
        net(rainy)
    for hook in hooks:
        hook.remove()
    c = torch.cat(codes, 1).double()
    return np.linalg.slogdet((c @ c.T + (1 - c) @ (1 - c).T).numpy())[1]


# %%
chosen = np.sort(rng.permutation(len(genotypes))[:scored])
names, rows = ("gradient norm", "NASWOT", "SynFlow"), []
began = time.process_time()
for k in chosen:
    net = DerainNet(genotypes[k], seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net.head.reset_parameters()
    rows.append([grad_norm(net), naswot(net), synflow(net)])  # the last one changes the weights
proxies = dict(zip(names, np.array(rows).T, strict=True))
proxies |= {
    "parameters": bench.scores("parameters")[chosen, 0],
    "multiply-adds": counted[chosen],
}
print(f"{len(chosen)} networks scored in {time.process_time() - began:.0f} CPU seconds")

# %%
agreements = {name: micro_bench.agreement(v, trained[chosen]) for name, v in proxies.items()}
for name, found in agreements.items():
    print(f"{name:<15} {found}")
ceiling = micro_bench.noise_ceiling(trained[chosen])
shown = {name: (found.tau, found.low, found.high) for name, found in agreements.items()}
figures.agreements(shown, (ceiling.tau, ceiling.low, ceiling.high))

# %% [markdown]
# **What you should see.** Kendall's tau between each score and single trainings, with a 95 % interval. (Notebook 05
# explains tau. It is 1 where two rankings agree on all pairs of networks, and 0 where they agree on half of them. The
# grey band shows how well one training of all networks predicts another one.) SynFlow and NASWOT do rank these
# networks. But **counting parameters** ranks them as well or better, and it needs no pass at all. For the gradient
# norm, no agreement was shown.
#
# This is not a special case of a small table. Larger studies find the same: many proxies measure little more than
# size. So compare a proxy with *counting* first. Within a budget this matters even more. There all candidates have
# nearly the same size, and a score that sees only size has little left to say. The next cell looks only at networks
# of middling cost:

# %%
near = np.abs(cost[chosen] - np.median(cost)) <= np.quantile(
    np.abs(cost - np.median(cost)), 0.4
)
print(f"among the {near.sum()} scored networks of middling cost:")
for name, values in proxies.items():
    print(f"{name:<15} {micro_bench.agreement(values[near], trained[chosen][near])}")

# %% [markdown]
# **What you should see.** (With multiply-adds as the unit.) All values of tau are small now. Counting still agrees a
# little with the trainings. For none of the three proxies an agreement was shown.
#
# ## An accuracy predictor
#
# slides: Train some, learn from them what the others reach
# slides: Ridge regression on the choices, one column for each
#
# There is another way to save trainings: train *some* networks, and **learn** from them what the others will reach.
# An architecture becomes a row of zeros and ones, with one column for each choice (one-hot): is module 1 parallel? is
# the gate `SE`? and so on. Let $X$ be the matrix of such rows, and $y$ the scores of the trained networks. **Ridge
# regression** fits one number per choice, the vector $w$:
#
# $$w = \arg\min_w\ \lVert y - \bar y - (X - \bar X)\, w \rVert^2 + \mu\, \lVert w \rVert^2
# = \bigl(\tilde X^\top \tilde X + \mu I\bigr)^{-1} \tilde X^\top \tilde y$$
#
# Here $\bar X$ and $\bar y$ are the means over the trained networks, $\tilde X = X - \bar X$ and
# $\tilde y = y - \bar y$. The term with $\mu$ keeps the numbers small. It is needed for two reasons. The columns of
# the gates add up to 1 in each row, so that without this term the equation has no unique answer. And ten networks
# would be fitted exactly, with all their noise. This is a simple model of twelve numbers: it assumes that the effects
# of choices *add*. Larger spaces use a small neural network instead (Once-for-All: three layers). With only a hundred
# rows, the linear model is hard to beat.


# %%
def ridge(x, y, new, strength):
    """Fit y (n,) to rows x (n, columns); return the predictions for the rows `new`."""
    middle = x.mean(0)
    centred = x - middle  # each column adds up to 0: the mean of y drops out below
    inner = centred.T @ centred + strength * np.eye(x.shape[1])
    weights = np.linalg.solve(inner, centred.T @ y)
    return y.mean() + (new - middle) @ weights


parallel = np.array([[m == "p" for m in a.modules] for a in bench.architectures])
gates = np.array([[a.gate == gate for gate in micro_bench.GATES] for a in bench.architectures])
hot = np.hstack([parallel, gates]).astype(float)
print("for example", bench.architectures[1], "becomes", hot[1].astype(int).tolist())

# %% [markdown]
# > **Predict.** How many of the 128 networks must be trained until the predictor ranks the *others* as well as one
# > training of each of the others would rank them?
#
# <details><summary>Answer: write yours down first, then click</summary>
#
# About 24. Each choice occurs in many networks, so the noise of single trainings averages out in the predictor.
#
# </details>
#
# How good is the predictor? It must be judged only on networks that it has **not** seen. So draw $n$ networks, and
# fit the predictor to one training of each. Then let it rank all other networks, and compare this ranking with
# trainings of them that used *other* seeds. Repeat this with other draws. The result for each $n$ is the **learning
# curve**.

# %%
sizes, curve = (6, 12, 24, 48, 96), []
for n in sizes:
    taus = []
    for k in range(redrawn):
        drawn = np.random.default_rng([seed, k])
        order, column = drawn.permutation(len(hot)), int(drawn.integers(trained.shape[1]))
        seen, rest = order[:n], order[n:]
        predicted = ridge(hot[seen], gains[seen, column], hot[rest], 3.0)
        others = np.delete(gains[rest], column, axis=1)
        taus.append(np.mean([stats.kendalltau(predicted, y).statistic for y in others.T]))
    curve.append(np.mean(taus))
    ends = np.quantile(taus, [0.1, 0.9])
    print(
        f"{n:>3} trained: tau {curve[-1]:+.2f} on the rest (8 draws of 10: {ends[0]:+.2f} to {ends[1]:+.2f})"
    )

# %%
every = micro_bench.noise_ceiling(trained)
free = micro_bench.agreement(bench.scores("parameters")[:, 0], trained)
lines = {
    "predictor, on networks it has not seen": (sizes, curve),
    "noise ceiling: one training of each": (sizes, [every.tau] * len(sizes)),
    "counting parameters": (sizes, [free.tau] * len(sizes)),
}
pictures.profile(
    lines, x="trained networks", y="Kendall's tau", title="learning curve of the predictor"
)

# %% [markdown]
# **What you should see.** The curve rises fast, then slowly. With about 24 trainings the predictor ranks the hundred
# other networks about as well as one training of *each of them* would. Again, counting parameters is hard to beat in
# this table, because here larger networks are mostly better: its line lies above the whole curve. (Would the two
# together be better still? That is worth trying: `np.hstack([hot, cost[:, None]])`.)
#
# ## Three searches within one budget
#
# slides: What costs too much is never trained
# slides: Random, evolution, gradients: equal **total** cost
#
# Now search, with the budget as a *rule*: a network that costs too much is never trained. Cost is known before
# training, so refusing a network costs nothing.
#
# * **Random search** draws among the networks that fit.
# * **Evolution** changes one choice of a good network, as in notebook 05. If the result costs too much, it changes
#   one more choice, until the network fits.
# * **Gradient search** was recorded without a budget (notebook 05). If it hands over a network that costs too much,
#   we take the nearest network that fits: the one with the fewest changed choices, and among equally near ones the
#   one that uses most of the budget. (The own search of this kit keeps to a budget in a better way: see the end of
#   this notebook.)
#
# As in notebook 05, the searches are compared at equal total cost, and the training of the supernet is a part of this
# cost. What counts is the gain that a choice has when it is trained again with other seeds.

# %%
paid = min(trainings, int(fits.sum()))
random = [micro_bench.random_search(bench, seed + k, paid, within=fits) for k in range(replays)]
evolved = [micro_bench.evolution(bench, seed + k, paid, within=fits) for k in range(replays)]
names = np.array([[*a.modules, a.gate] for a in bench.architectures])
apart = (names[:, None] != names[None]).sum(-1) - cost / (2 * cost.max())  # changes, then cost
nearest = np.where(fits, apart, np.inf).argmin(1)
gradient = []
for search in bench.gradient_searches():
    derived = tuple(bench.architectures[nearest[bench.row(a)]] for a in search.derived)
    gradient.append(micro_bench.replay(bench, replace(search, derived=derived)))
assert all(fits[row] for trace in (*random, *evolved, *gradient) for row in trace.chosen)

# %%
inside = gains.mean(1)[fits]
kinds = {"random search": random, "evolution": evolved, "gradient search": gradient}
curves = {
    kind: [(trace.seconds, micro_bench.gain(bench, trace)) for trace in traces]
    for kind, traces in kinds.items()
}
figures.best_so_far(curves, best=inside.max())

# %%
longest = max(trace.seconds[-1] for trace in gradient)
for name, baseline in (("random search", random), ("evolution", evolved)):
    if min(trace.seconds[-1] for trace in baseline) < longest:
        print(f"{paid} trainings cost less than a gradient search: {name} cannot be compared")
    else:
        print(f"gradient search minus {name}, dB, at equal total cost within the budget:")
        print(f"  {micro_bench.against(bench, gradient, baseline)}")
print(f"a network drawn blindly within the budget: {inside.mean():+.2f} dB")

# %% [markdown]
# **What you should see.** The same picture as in notebook 05, inside a smaller space. The dotted line is the best of
# the networks that fit. The last lines give a verdict: *better*, *worse*, *equivalent*, or *undecided* together with
# the difference that could have been seen. If the budget is small, few networks fit, and one can simply train them
# all: then no search is needed.
#
# ## The trade-off curve
#
# slides: One budget is one point; a project wants the curve
# slides: Half of the seeds choose, the other half judges
#
# One budget gives one point. A whole project wants the **curve**: what does each further million bring? First the
# front: the networks that no other one beats in cost and quality at once. They are chosen by their scores with the
# first half of the training seeds (`seen`), and judged by their scores with the other half (`judged`). This is fair,
# because no network is judged by the same numbers that it was chosen by.

# %%
cut = len(bench.seeds) // 2
seen, judged = gains[:, :cut].mean(1), gains[:, cut:].mean(1)
order = np.argsort(cost, kind="stable")
front = [k for i, k in enumerate(order) if seen[k] > seen[order[:i]].max(initial=-np.inf)]
figure = figures.front(
    cost, seen, x=label, y="gain over the average, dB", title="the Pareto front"
)
figure.axes[0].plot(
    cost[front], judged[front], "x", color="#D55E00", label="the front, trained again"
)
figure.axes[0].legend(loc="lower right", fontsize=7)
print(
    f"{len(front)} networks on the front fall by {np.mean(seen[front] - judged[front]):.2f} dB, trained again"
)
figure

# %% [markdown]
# **What you should see.** The front steps up: no other network is as good and as cheap. The crosses are the same
# networks, judged by their *other* trainings, and most of them lie lower. The networks were chosen because their
# scores were high, and a part of these scores was luck. This is the winner's curse of notebook 05, and it holds for
# the fronts in articles as well.
#
# Now compare all ways to choose, budget by budget. Note what they cost. Random search and evolution train networks
# anew **for each budget**. The predictor trains its networks **once** and answers for all budgets. Counting
# parameters trains nothing.

# %%
limits = np.quantile(cost, np.linspace(0.05, 1.0, 8))
few, size_of = min(20, replays), bench.scores("parameters")[:, 0]
ways = {"random search": micro_bench.random_search, "evolution": micro_bench.evolution}
found = {name: [] for name in ("drawn blindly", "most parameters that fit", *ways)}
for limit in limits:
    open_ = cost <= limit
    n, largest = min(trainings, int(open_.sum())), np.where(open_, size_of, 0).argmax()
    found["drawn blindly"].append(gains.mean(1)[open_].mean())
    found["most parameters that fit"].append(gains.mean(1)[largest])
    for name, way in ways.items():
        traces = [way(bench, seed + k, n, within=open_) for k in range(few)]
        found[name].append(np.mean([micro_bench.gain(bench, t)[-1] for t in traces]))

# %%
worth = np.empty((few, len(limits)))
for k in range(few):
    drawn = np.random.default_rng([seed, k])
    rows = drawn.permutation(len(hot))[:trainings]
    column = int(drawn.integers(trained.shape[1]))
    predicted = ridge(hot[rows], gains[rows, column], hot, 3.0)
    picks = [np.where(cost <= limit, predicted, -np.inf).argmax() for limit in limits]
    worth[k] = np.delete(gains, column, axis=1).mean(1)[picks]
found[f"predictor, {trainings} trainings for all budgets"] = worth.mean(0)

# %% [markdown]
# For comparison, the next cell adds the best network of the whole table. Half of the seeds choose it, and the other
# half judges it. This is done for every way to halve the seeds, and the mean is taken.

# %%
halves = list(itertools.combinations(range(trained.shape[1]), cut))
whole = np.empty((len(halves), len(limits)))
for row, half in enumerate(halves):
    by, again = gains[:, list(half)].mean(1), np.delete(gains, half, axis=1).mean(1)
    whole[row] = [again[np.where(cost <= limit, by, -np.inf).argmax()] for limit in limits]
found["the table's best (all 128 trained)"] = whole.mean(0)
lines = {name: (limits, values) for name, values in found.items()}
pictures.profile(
    lines, x=f"budget, {label}", y="gain when trained again, dB", title="what a budget buys"
)

# %% [markdown]
# **What you should see.** All curves rise with the budget, and then become flat: the last millions bring little. The
# distance from *drawn blindly* is what each way of choosing is worth. The predictor pays once and serves all budgets.
# For the same reason, hardware-aware methods such as Once-for-All train once, and then choose a network for each of
# many devices. Differences of less than about 0.1 dB between the curves are noise of the table: even *the table's
# best* is not always on top.
#
# ## Your budget
#
# slides: Enter a budget, take a network home
#
# Enter a budget, and take your network home: its drawing, its cost, and the PSNR to expect. It is chosen by the first
# half of the training seeds, and its PSNR comes from the other half. The number after ± is the standard error of this
# PSNR, which is a mean. If you train the network once yourself, your PSNR will differ more from it, because one
# training has all the noise. The last line printed below says how much.
#
# In a live notebook, move the slider. Without one, set the parameter `budget` and run again:
# `python -m tools.course run 11 -p budget=150`.

# %%
error = spread.noise / np.sqrt(len(bench.seeds) - cut)
mine = int(np.where(fits, seen, -np.inf).argmax())
spoken = "/".join(bench.architectures[mine])
print(f"within {budget:g} {label}: {spoken}, {genotypes[mine].id}")
print(f"cost {cost[mine]:.1f}, expected PSNR {level + judged[mine]:.2f} ± {error:.2f} dB")
print(
    f"one more training of it: within {1.96 * np.hypot(error, spread.noise):.2f} dB of that, 19 times in 20"
)

# %%
widgets.network_within(genotypes, cost, seen, level + judged, error, budget=budget, unit=label)

# %% [markdown]
# **What you should see.** A network in lanes, as in notebook 02, that keeps the budget that you set. Lower the
# budget: first single modules change from parallel to fusion, and in the end no network fits any more.
#
# ### The same without a table
#
# slides: Scores add, costs add: a **knapsack**
# slides: Packed exactly, in a space far too large to list
#
# There is no table for a space of 10¹⁴ networks. But if scores add and costs add, choosing the best network is a
# **knapsack** problem: take one candidate at each place, so that the sum of the scores is as large as possible and
# the sum of the costs stays within the limit. Dynamic programming solves it without trying all networks.
# `search --budget flops=...` of this kit does this with the learned α and β (`manas_lite/networks/budget.py`). Here
# the scores are the numbers of the ridge predictor, and each edge may have its own gate. That makes 2⁴ · 8⁶ = 4
# million networks, of which the table holds 128.

# %%
columns = np.eye(hot.shape[1])
value = ridge(hot, gains.mean(1), columns, 3.0) - ridge(hot, gains.mean(1), 0 * columns, 3.0)
alpha = torch.zeros(len(space.module_branches), len(space.modules), dtype=torch.float64)
alpha[:, space.modules.index("parallel")] = torch.from_numpy(value[: len(alpha)])
beta = torch.zeros(len(space.edge_branch), len(space.operations), dtype=torch.float64)
for gate, number in zip(micro_bench.GATES, value[len(alpha) :], strict=True):
    beta[:, space.operations.index(gate)] = number / len(beta)
packed = best_within(space, alpha, beta, costs, budget * size)
print(f"packed: {costs.of(packed.modules, packed.edges) / size:.1f} of {budget:g} {label}")
draw.architecture(packed)

# %% [markdown]
# **What you should see.** A network that keeps the budget. `best_within` takes the best network among those that use
# at least 97 % of it. Where no network lies in that range, it takes the most expensive one that fits. So it does at 200
# million multiply-adds: a third parallel module would cost more than that, and the 190.6 million that were printed are
# the most that two parallel modules and any gates can cost.
#
# Is the network good? Nobody has trained it. The predictor was fitted to networks with *equal* gates on all edges.
# Where the gates differ, it has to guess about something that it has never seen. That the network keeps the budget is
# certain. Its PSNR is a guess until it is trained.
#
# ## The test column, once
#
# slides: Everything is chosen; now look, once
#
# Everything is chosen now. `final = True` opens the test scores. They say whether your network is as good on pictures
# that no choice has used.

# %%
if final:
    opened = bench.final().scores("test_psnr")
    shift = (opened - opened.mean(0)).mean(1)
    print(f"your network on test: {shift[mine]:+.2f} dB over an average architecture")
    print(f"on validation:        {judged[mine]:+.2f} dB, when trained again")
    print(
        f"all networks, validation against test: {micro_bench.agreement(gains.mean(1), opened)}"
    )
else:
    print("locked: set final = True when you would bet on your network")

# %% [markdown]
# ## Exercises
#
# **1. The best that fits.** Among the networks that cost at most the budget, return the index of the one with the
# highest PSNR. If two are equally good, return the cheaper one. If none fits, return `None`.
#
# *Why it matters.* Every deployment ends with this line. If the budget is impossible, the answer must be `None`, and
# not some network all the same.


# %% tags=["exercise", "exercise:best_that_fits"]
def my_best(psnr, cost, budget):
    """psnr, cost: lists of numbers, one per network; budget: a number -> an index, or None."""
    # BEGIN SOLUTION
    fits = [k for k in range(len(cost)) if cost[k] <= budget]
    return max(fits, key=lambda k: (psnr[k], -cost[k]), default=None)
    # END SOLUTION


# %% tags=["check", "check:best_that_fits"]
checks.best_that_fits(my_best)

# %% [markdown]
# **2. NASWOT from codes.** Given the ReLU codes of some pictures, one row per picture, return the logarithm of the
# absolute determinant of $K$ (see above: $K_{ij}$ counts the places in which codes $i$ and $j$ agree).
#
# *Why it matters.* A zero-cost score is only as good as the program that computes it. A wrong count still gives a
# number for every network, and nothing complains.


# %% tags=["exercise", "exercise:naswot"]
def my_naswot(codes):
    """codes: float array (pictures, ReLUs) of 0 and 1 -> a number."""
    # BEGIN SOLUTION
    kernel = codes @ codes.T + (1 - codes) @ (1 - codes).T
    return np.linalg.slogdet(kernel)[1]
    # END SOLUTION


# %% tags=["check", "check:naswot"]
checks.naswot(my_naswot)

# %% [markdown]
# **3. The predictor.** Write ridge regression as above, with `strength` for $\mu$: fit it to the rows `x` with their
# scores `y`, and return the predictions for the rows `new`. Only the numbers $w$ are kept small, not the mean: if all
# scores are shifted by a number, all predictions must shift by the same number.
#
# *Why it matters.* These few lines predict the quality of a hundred networks from two dozen trained ones.


# %% tags=["exercise", "exercise:ridge"]
def my_ridge(x, y, new, strength):
    """x (n, columns), y (n,), new (m, columns), strength > 0 -> predictions (m,)."""
    # BEGIN SOLUTION
    middle = x.mean(0)
    centred = x - middle  # each column adds up to 0: the mean of y drops out below
    inner = centred.T @ centred + strength * np.eye(x.shape[1])
    weights = np.linalg.solve(inner, centred.T @ y)
    return y.mean() + (new - middle) @ weights
    # END SOLUTION


# %% tags=["check", "check:ridge"]
checks.ridge(my_ridge)

# %% [markdown]
# **4. Pack the knapsack** (a small project). Each place of a network has several candidates, and each candidate has a
# score and a cost. Choose one candidate at each place, so that the total cost is at most `limit` and the total score
# is as large as possible. Return `None` if nothing fits. The spaces of the checker are small: you may try everything.
#
# *Why it matters.* With this step one can search a space that has no table. The budget is kept for sure, and no λ is
# needed.


# %% tags=["exercise", "exercise:knapsack"]
def my_packing(scores, costs, limit):
    """scores, costs: a list per place of a number per candidate -> candidates, one per place, or None."""
    # BEGIN SOLUTION
    best, total = None, -np.inf
    for picks in itertools.product(*(range(len(row)) for row in costs)):
        if sum(row[k] for row, k in zip(costs, picks, strict=True)) <= limit:
            score = sum(row[k] for row, k in zip(scores, picks, strict=True))
            if score > total:
                best, total = list(picks), score
    return best
    # END SOLUTION


# %% tags=["check", "check:knapsack"]
checks.knapsack(my_packing)

# %% [markdown]
# ## What this shows, and what it does not
#
# slides: A goal becomes a search, at equal cost, judged by trainings that chose nothing
# slides: Milliseconds here are not milliseconds elsewhere
#
# This notebook shows how a goal becomes a search: a budget that is kept, and a cost that is measured. The predictor
# was tested on networks that it had not seen. The ways to choose were compared at equal total cost, and judged by
# trainings that had chosen nothing.
#
# It does not show that milliseconds here are milliseconds elsewhere. On a GPU, small operations wait for their start;
# on a phone, memory decides. It does not show which proxy is best: there was one space, in which size decides most,
# and one batch. The gradient searches did not know the budget when they ran. And everything rests on one table, so
# all ways of choosing share its noise.
#
# ## Summary
#
# * A budget is a limit that is kept. With a price λ one has to guess which cost it leads to. Ask first whether the
#   budget is possible.
# * Multiply-adds are not time. Measure each candidate once, add the times up, and check the sum.
# * Compare every proxy with counting parameters, and every predictor on networks that it has not seen.
# * The networks on a front were picked because their scores were high. Train them again before you believe them.
#
# **Next**: your own space. **Or try** `unit = "milliseconds"` and a `budget` between the shortest and the longest time
# that was printed for whole networks, or `trainings = 12`.
#
# **References.** M. Abdelfattah et al., *Zero-cost proxies for lightweight NAS*, ICLR 2021, arXiv 2101.08134 · H. Tanaka
# et al., *SynFlow*, NeurIPS 2020, arXiv 2006.05467 · J. Mellor et al., *NAS without training*, ICML 2021, arXiv
# 2006.04647 · C. White et al., *How powerful are performance predictors in NAS?*, NeurIPS 2021, arXiv 2104.01177 · H. Cai
# et al., *ProxylessNAS*, ICLR 2019, arXiv 1812.00332 · H. Cai et al., *Once-for-All*, ICLR 2020, arXiv 1908.09791 · B. Wu
# et al., *FBNet*, CVPR 2019, arXiv 1812.03443 · E. Real et al., *Regularized evolution*, AAAI 2019, arXiv 1802.01548.

# %% tags=["record"]
course.record_results(
    networks_within=int(fits.sum()),
    network=genotypes[mine].id,
    cost=float(cost[mine]),
    expected_psnr=float(level + judged[mine]),
    tau={name: found.tau for name, found in agreements.items()},
    predictor_tau={str(n): float(tau) for n, tau in zip(sizes, curve, strict=True)},
    front=len(front),
)
