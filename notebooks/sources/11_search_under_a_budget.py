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
# Nobody asks for *the best network*. They ask for the best network **that runs on this camera**, or **within 10
# milliseconds a frame**, or **within a third of what we have now**. Written down, with an architecture $a$, its quality
# $Q$ (PSNR after training, in dB) and its cost $C$:
#
# $$\max_a\ Q(a) \qquad\text{subject to}\qquad C(a) \le B$$
#
# Notebook 03 put a *price* on cost instead: it minimised $L(a) + \lambda\, C(a)$. That is simpler for gradients, because
# everything stands in one loss. But nobody knows beforehand which λ leads to 10 milliseconds. One searches, looks at the
# cost, changes λ, and searches again. A **budget** is a promise that is kept.
#
# This notebook goes the whole way: measure cost, ask whether the budget is possible, rank networks without training
# them, learn to predict their quality from a few trained ones, search at equal total cost, and hand over a network. All
# of it runs on the table of notebook 05: 128 architectures, each trained with several seeds. So every answer can be
# checked, and nothing has to be trained here.
#
# > **Predict.** An attention gate such as `CBAM` adds hardly any multiply-adds. Does it also add hardly any *time*?
#
# <details><summary>Answer: write yours down first, then click</summary>
#
# No. Gates with a tenth or a hundredth of a module's multiply-adds take a much larger share of its time, for each is
# many small operations. The measurement below prints both units.
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
# Are milliseconds not simply multiply-adds divided by speed? Only where calculating is what takes the time. A gate reads
# a map, takes a mean, multiplies the map and writes it back: few calculations, but much memory is moved, and each small
# step has to be started. Let us measure, on one thread, with the processor's own clock: it stands still while other
# programs run. What is left of them can only make a pass *slower*, so the fastest of several is nearest to the truth.


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
# Timing every network of a large space is hopeless: 10¹⁴ networks. But a network is a sum of its places, so perhaps its
# time is nearly the sum of theirs:
#
# $$T(a) \approx t_0 + \sum_{\text{places } p} t_p(a_p)$$
#
# There are only a few *different* places: a module on two branches, an edge on branch 0 or 1. So measure each candidate
# once, alone, and look the rest up. Here is that table. Hardware-aware searches such as ProxylessNAS and FBNet use the
# same idea.

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
# **What you should see.** The *parallel* module costs more than the *fusion* module in both units. Now compare the last
# lines: gates with a tenth or a hundredth of a module's multiply-adds take a much larger share of its time. Was your
# guess right? Whoever counts multiply-adds alone will choose gates that he then has to wait for.
#
# Does the sum hold? Time some whole networks. What a network takes besides its choices, $t_0$, is the same for all: the
# stem, the transitions and the fixed part of the attention blocks. The first half of the timed networks estimates it,
# the other half checks it.

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
# **What you should see.** An error of some per cent on a quiet machine, more on a busy one. A table of some thirty
# measurements stands in for millions of networks. It is a model all the same: measure the network that you choose.
#
# From here on `costs` is in the unit that you chose, and so is the budget.

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
# The first question of a project, and it comes before any search. It has two halves. *Cost*: the cheapest network of a
# space is the sum of the cheapest choice at each place. If that is above the budget, no search will help: the space must
# change. *Quality*: is there a network within the budget that reaches the dB that somebody wants?
#
# The second half has a trap. Among 128 measured means, some are high by luck alone. So ask each network with its
# *interval*, widened for 128 questions at once (Bonferroni: each may err with probability 5 % / 128). Then the answer
# can be *yes*, *no*, or *the trainings cannot tell*.

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
# **What you should see.** Clear answers at the ends, and a broad band where the trainings cannot tell: with a noise of
# more than 0.2 dB and four trainings each, a wish that is 0.3 dB above or below what was measured stays open. Whoever
# answers it with a plain yes has looked at the luckiest of 128 numbers.
#
# **Stop here if short of time**, and do exercise 1.
#
# ## Scores that cost nothing
#
# slides: Judge a network *before* it is trained
# slides: Gradient norm, SynFlow, NASWOT
# slides: Beside them: just count parameters
#
# Training is dear. Can one see at an *untrained* network how good it will be? Such a score is called a **zero-cost
# proxy**: it takes one or two passes, at the initial weights $\theta$. Three well-known ones:
#
# **Gradient norm** (Abdelfattah et al., 2021). How strongly does the loss of one batch pull at the weights? The sum over
# all parameter tensors $\theta_l$:
#
# $$S_{\mathrm{grad}} = \sum_l \Bigl\lVert \frac{\partial L}{\partial \theta_l} \Bigr\rVert_2$$
#
# **SynFlow** (Tanaka et al., 2020) needs no data at all. Make every weight positive, feed a picture of ones, and let $R$
# be the sum of the outputs. Each weight counts as much as it carries to $R$. It is large where many strong paths lead
# through the network:
#
# $$S_{\mathrm{syn}} = \sum_i \Bigl| \theta_i\, \frac{\partial R}{\partial \theta_i} \Bigr|, \qquad R = \mathbf 1^\top f_{|\theta|}(\mathbf 1)$$
#
# **NASWOT** (Mellor et al., 2021) asks whether the network tells pictures apart. For each picture $i$ write down which
# ReLUs are on, a long code $c_i$ of 0 and 1. Let $d(c_i, c_j)$ be the number of places in which two codes differ, and
# $N$ their length. Pictures with different codes can be treated differently:
#
# $$S_{\mathrm{wot}} = \log \lvert \det K \rvert, \qquad K_{ij} = N - d(c_i, c_j)$$
#
# In this kit the last convolution starts at zero, so that training begins at the identity. Then no gradient passes it,
# and the first two scores would see the last layer alone. So it is drawn at random here, as all others are.

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
# **What you should see.** Kendall's tau of each score with single trainings, with a 95 % interval (notebook 05 explains
# both; the grey band is what one training is worth as a prediction of another). SynFlow and NASWOT do rank these
# networks. But **counting parameters** ranks them as well or better, and it needs no pass at all. The gradient norm was
# not shown to rank anything here.
#
# This is no accident of a small table. Larger studies find the same: many proxies are counting size in disguise, and a
# proxy has to be compared with *counting* before it is compared with nothing. Within a budget it matters even more. There
# all candidates have nearly the same size, and a score that sees size alone has nothing left to say:

# %%
near = np.abs(cost[chosen] - np.median(cost)) <= np.quantile(
    np.abs(cost - np.median(cost)), 0.4
)
print(f"among the {near.sum()} scored networks of middling cost:")
for name, values in proxies.items():
    print(f"{name:<15} {micro_bench.agreement(values[near], trained[chosen][near])}")

# %% [markdown]
# ## An accuracy predictor
#
# slides: Train some, learn from them what the others reach
# slides: Ridge regression on the choices, one column for each
#
# The other way to save trainings: train *some* networks, and **learn** from them what the others will reach. An
# architecture becomes a row of zeros and ones, one column for each choice (one-hot): is module 1 parallel? is the gate
# `SE`? With such rows $X$ and scores $y$, **ridge regression** fits one number for each choice:
#
# $$w = \arg\min_w\ \lVert y - \bar y - (X - \bar X)\, w \rVert^2 + \mu\, \lVert w \rVert^2
# = \bigl(\tilde X^\top \tilde X + \mu I\bigr)^{-1} \tilde X^\top \tilde y$$
#
# with $\tilde X = X - \bar X$ and $\tilde y = y - \bar y$. The term with $\mu$ keeps the numbers small. It is needed:
# the columns of one-hot rows add up to 1, so without it the equation has no unique answer, and ten networks would be
# fitted exactly, noise and all. Twelve numbers are a modest model: it believes that choices *add*. Larger spaces use a
# small network instead (Once-for-All: three layers); with a hundred rows the line is hard to beat.


# %%
def ridge(x, y, new, strength):
    """Fit y (n,) to rows x (n, columns); return the predictions for the rows `new`."""
    middle = x.mean(0)
    centred = (
        x - middle
    )  # its columns add up to 0, so that the mean of y falls out of the product below
    inner = centred.T @ centred + strength * np.eye(x.shape[1])
    weights = np.linalg.solve(inner, centred.T @ y)
    return y.mean() + (new - middle) @ weights


parallel = np.array([[m == "p" for m in a.modules] for a in bench.architectures])
gates = np.array([[a.gate == gate for gate in micro_bench.GATES] for a in bench.architectures])
hot = np.hstack([parallel, gates]).astype(float)
print("for example", bench.architectures[1], "becomes", hot[1].astype(int).tolist())

# %% [markdown]
# > **Predict.** How many of the 128 networks must be trained until the predictor ranks the *others* as well as one
# > training of each would?
#
# <details><summary>Answer: write yours down first, then click</summary>
#
# About 24. Each choice occurs in many networks, so the noise of single trainings averages out in the predictor.
#
# </details>
#
# How good is it? That may be asked only of networks that it has **not** seen. So draw $n$ networks, fit to one training
# of each, and rank the held-out rest, against trainings with *other* seeds. Repeat with other draws. This is its
# **learning curve**.

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
# **What you should see.** The curve rises fast, then slowly. With some 24 trainings the predictor ranks the hundred
# others about as well as one training of *each of them* would: the noise of single trainings is averaged away, because
# every choice occurs in many networks. And again counting parameters is hard to beat in this table, because here larger
# is mostly better. (Would the two together be better still? That is worth trying: `np.hstack([hot, cost[:, None]])`.)
#
# ## Three searches within one budget
#
# slides: What costs too much is never trained
# slides: Random, evolution, gradients: equal **total** cost
#
# Now search, with the budget as a *rule*: what costs too much is never trained. Cost is known before training, so that
# refusing is free.
#
# * **Random search** draws among the networks that fit.
# * **Evolution** changes a child in one more choice, until it fits.
# * **Gradient search** was recorded without a budget (notebook 05). When it hands over a network that costs too much, take
#   the nearest one that fits: as few choices changed as possible, and of equally near ones the one that uses most of the
#   budget. (The kit's own search does this better: see the end of this notebook.)
#
# As in notebook 05, total cost counts, the supernet's share included, and what a choice is worth when trained again.

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
# **What you should see.** The same picture as in 05, inside a smaller space. The dotted line is the best of those that
# fit. A verdict stands in the last lines: *better*, *worse*, *equivalent*, or *undecided* with what could have been seen.
# With a small budget, few networks fit, and one can simply train them all: then no search is needed.
#
# ## The trade-off curve
#
# slides: One budget is one point; a project wants the curve
# slides: Half of the seeds choose, the other half judges
#
# One budget is one point. A whole project wants the **curve**: what is each further million worth? It ends the
# notebook, so draw it for all ways at once. *Seen* decides here with the first half of the training seeds, and the other
# half judges. This is honest: nobody is judged by the numbers that he chose by.

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
# **What you should see.** The front steps up: no other network is as good and as cheap. The crosses are the same networks
# after *other* trainings: most have fallen. They were picked because they were high, and a part of that was luck. A front
# in an article is a row of winners, and each of them has the winner's curse.
#
# Now the ways to choose, budget by budget. Note what they cost: random search and evolution train anew **for each
# budget**. The predictor trains its networks **once** and answers for all budgets. Counting parameters trains nothing.

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
# And, as a yardstick, the best of the whole table. Each half of the seeds chooses once, and the other half judges.

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
# **What you should see.** All curves rise with the budget, and they flatten: the last millions buy little. The distance
# from *drawn blindly* is what each way is worth. The predictor pays for one search and serves all budgets: this is why
# hardware-aware methods such as Once-for-All train once and then specialise for many devices. Differences of less than
# about 0.1 dB between the curves are noise of the table: even *the table's best* is not always on top.
#
# ## Your budget
#
# slides: Enter a budget, take a network home
#
# Enter a budget, and take your network home: its drawing, its cost, and what PSNR to expect. It is chosen by the first
# half of the training seeds, and its PSNR comes from the other half. The ± is the error of that mean. Your own training
# of it would scatter around it by the noise above.
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
# **What you should see.** A network in lanes, as in notebook 02, under the budget that you set. Lower the budget: first
# single modules change from parallel to fusion, then nothing fits any more.
#
# ### The same without a table
#
# slides: Scores add, costs add: a **knapsack**
# slides: Packed exactly, in a space far too large to list
#
# A space of 10¹⁴ networks has no table. But a sum of scores under a sum of costs is a **knapsack**, and dynamic
# programming packs it exactly. That is what `search --budget flops=...` of this kit does with the learned α and β
# (`manas_lite/networks/budget.py`). Here it packs the ridge predictor's numbers, with a free gate on each edge:
# 2⁴ · 8⁶ = 4 million networks, of which the table holds 128.

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
# **What you should see.** A network that uses the budget nearly to its end. As the scores only add up, the best gate is
# the same everywhere, unless the budget forces a cheaper one somewhere. Is the network good? Nobody has trained it. The
# predictor was fitted to networks with *equal* gates; where they differ, it is believed outside of what it has seen. A
# budget that is kept is a fact; a predicted PSNR is a guess until it is trained.
#
# ## The test column, once
#
# slides: Everything is chosen; now look, once
#
# Everything is chosen now. `final = True` opens the test scores, and asks whether your network is as good on pictures
# that no choice has seen.

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
# **1. The best that fits.** Return the index of the best network within the budget, of equally good ones the cheaper, and
# `None` where nothing fits.
#
# *Why it matters.* Every deployment ends with this line, and *impossible* must not be answered with some network all the
# same.


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
# **2. NASWOT from codes.** From the ReLU codes of some pictures, the log of the absolute determinant of $K$ (see above).
#
# *Why it matters.* A zero-cost score is only as good as its code. A wrong count still gives a number for every network, and
# nothing complains.


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
# **3. The predictor.** Ridge regression with an intercept that is *not* made small: a shift of all scores must shift all
# predictions alike.
#
# *Why it matters.* With these few lines the quality of a hundred networks is predicted from two dozen trained ones.


# %% tags=["exercise", "exercise:ridge"]
def my_ridge(x, y, new, strength):
    """x (n, columns), y (n,), new (m, columns), strength > 0 -> predictions (m,)."""
    # BEGIN SOLUTION
    middle = x.mean(0)
    centred = (
        x - middle
    )  # its columns add up to 0, so that the mean of y falls out of the product below
    inner = centred.T @ centred + strength * np.eye(x.shape[1])
    weights = np.linalg.solve(inner, centred.T @ y)
    return y.mean() + (new - middle) @ weights
    # END SOLUTION


# %% tags=["check", "check:ridge"]
checks.ridge(my_ridge)

# %% [markdown]
# **4. Pack the knapsack** (a small project). Each place of a network has several candidates, with a score and a cost each.
# Choose one candidate at each place, so that the total score is largest and the total cost at most the limit; `None` where
# nothing fits. The spaces of the check are small: you may try everything.
#
# *Why it matters.* This is the step from a table to a space without one: here a budget is kept by construction, with no λ.


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
# It shows how a goal becomes a search: a budget that is kept, cost that is measured, a predictor that is tested on what
# it has not seen, and ways compared at equal total cost, judged by trainings that chose nothing.
#
# It does not show that milliseconds here are milliseconds elsewhere: on a GPU small operations wait for their start, on
# a phone memory decides. It does not show which proxy is best: one space, in which size decides most, with one batch.
# The gradient searches knew nothing of the budget when they ran. And all of it stands on one table, whose noise all ways
# share.
#
# ## Summary
#
# * A budget is a constraint; a price λ is a guess. Ask first whether the budget is possible.
# * Multiply-adds are not time. Measure each candidate once, add up, and check the sum.
# * Compare every proxy with counting parameters, and every predictor on networks that it has not seen.
# * A front is a row of winners: train them again before you believe them.
#
# **Next**: your own space. **Or try** `unit = "milliseconds"` with `budget = 8`, or `trainings = 12`.
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
