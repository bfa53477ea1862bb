# %% tags=["parameters"]
data = "photos"  # "photos" (bundled), a set's name, a folder, or the web address of an archive
runs_dir = "runs"  # runs: in the clone; on Colab on your Drive; else in ~/manas_lite
search_name = "search"  # the search to derive from, as notebook 03 named it
retrain_name = "searched"  # the first training's name; other settings need another one
size = "teach"  # retraining settings to start from: smoke, teach, lite or paper
seed = 0  # initial weights and batches of the retraining
epochs = 8  # of each retraining
steps = 100  # steps per epoch
scored = 4  # validation and test scenes on which networks are judged; 0: all

# %% tags=["imports"]
import numpy as np
import torch
from torch.optim.swa_utils import update_bn

from manas_lite import DerainNet, RetrainSettings, SuperNet, derain, draw, evaluate, losses
from manas_lite import open_split
from manas_lite.runs.checkpoint import read as read_tensors
from manas_course import checks, illustrations as pictures
from manas_lite.data import scene_loader
from manas_lite.training.evaluation import table
from manas_lite.networks.genotype import Genotype
from manas_lite.training.monitoring import row_entropy
from manas_lite.runs.record import write_json

# %% [markdown]
# ## From files
#
# A search ends with two things on disk. The **genotype** is a small text file: a name for every module and every edge.
# The **supernet's weights** are a large file: they hold every candidate at every place, trained together. Which of the
# two is the *result* of the search? Most articles print the genotype, train its network anew, and report the score of
# that training. This notebook shows why. It looks at one search, and at three scores of it that are often taken for one
# another.
#
# The notebook starts from the files that a search has left. On Colab each notebook has a machine of its own, so keep
# your runs on your Drive: the folded cell above does this.

# %%
run = course.find_run(runs_dir, search_name, made_by="03", needs="genotype.json")
genotype = Genotype.load(run / "genotype.json")
source = course.local(data)
split = open_split(source)
judged = split.val[: scored or None]
print(
    f"genotype {genotype.id}: {genotype.cost():,.0f} parameters, {len(split.train)} scenes to train on"
)
assert not {s.name for s in judged} & {s.name for s in split.train}
draw.architecture(genotype)

# %% [markdown]
# **What you should see.** How many parameters the derived network has, and its drawing: P or F for each module, one
# operation on each edge. In the search that comes with the package all four modules are parallel (P).
#
# ## Start the first training, read meanwhile
#
# slides: Same network, same images per step, trained twice
# slides: Multi-to-one against one-to-one
#
# The derived network is trained twice, from the same initial weights, on the same number of images a step: once with
# **multi-to-one** scenes (all rains of a scene together, with the internal loss), and once **one-to-one** (every rainy
# picture on its own). The two trainings run one after the other, in processes of their own. The next cell starts the
# first. A cell further down, under *The trainings*, waits for the first and starts the second: run it, and do the
# exercises meanwhile.

# %%
settings = {
    "searched": RetrainSettings.preset(size, seed=seed, epochs=epochs, steps=steps),
    "one_to_one": RetrainSettings.preset(
        size, seed=seed, epochs=epochs, steps=steps, multi_to_one=False
    ),
}
where = course.runs_folder(runs_dir)
names = {"searched": retrain_name, "one_to_one": f"{retrain_name}-one-to-one"}
job = course.background(
    genotype, settings["searched"], runs_dir=where, name=names["searched"], data=source
)

# %% [markdown]
# ## The discretisation gap
#
# slides: The supernet was trained as a *mixture*
# slides: What is left was never trained to work alone
# slides: Mixed, derived, retrained: three numbers
#
# The supernet was trained as a *mixture*. Deriving keeps one candidate per place and throws the others away. The
# network that is left has weights that were never trained to work alone. How much worse it is than the mixture is
# called the **discretisation gap**. There are three ways to judge the same search:
#
# 1. the supernet as it is, all candidates mixed;
# 2. **derived**, with the weights it inherits;
# 3. derived and **retrained** from scratch.
#
# What can be lost between 1 and 2? Look at one edge. Its candidates are gates $g_j$ with weights $w_j$, and the
# supernet multiplies a map $x$ by their mixture. Deriving puts the gate $k$ with the largest weight in the place of the
# mixture:
#
# $$x \cdot \sum_j w_j\, g_j(x) \quad\longrightarrow\quad x \cdot g_k(x), \qquad k = \arg\max_j w_j$$
#
# Suppose there are two gates with weights 0.55 and 0.45. One lets everything pass, $g_1 = 1$, the other nothing,
# $g_2 = 0$. The mixture multiplies its input by 0.55, and every layer behind it has been trained with that. After
# deriving, the input is multiplied by 1: the values are nearly twice as large as any seen in training. With weights of
# 0.99 and 0.01 they would be 1 % larger, and that would hardly matter. In general, let $w$ be the row of weights, and
# $e_k$ the row with a 1 at place $k$ and 0 elsewhere. To first order the loss changes by
#
# $$L(e_k) - L(w) \approx \nabla_w L \cdot (e_k - w),$$
#
# This is a product of two factors. The second factor is small if the row is **decided**. The first factor is small if
# the choice does not **matter** for the loss. So a small gap can mean that the search has decided well, or only that
# the choice was not important. The gap alone does not tell you which.
#
# > **Predict.** Order the three by PSNR. Is 2 above or below the rainy input?
#
# <details><summary>Answer: write yours down first, then click</summary>
#
# The retrained network is far ahead. With the search that the package brings, the rainy input has 20.70 dB, the mixture
# 22.42, the derived network 22.37, and the retrained one 26.47. There the derived network (number 2) is above the
# input, because that search ended decided. After a search of three epochs it may be below.
#
# </details>

# %%
supernet_file = run / "supernet.safetensors"
tensors, _ = read_tensors(supernet_file)
supernet = SuperNet(genotype.space)
supernet.load_state_dict(tensors["net"])
inherited = DerainNet(genotype).inherit(supernet)
batches = scene_loader(split.train, batch=4, patch=64, seed=seed, steps=8)
update_bn((b.to("cpu").rainy.flatten(0, 1) for b in batches), inherited)
psnr = {}
for name, net in (("supernet, mixed", supernet), ("derived, inherited", inherited)):
    means = evaluate(net, judged, conventions=("rgb",), measures=("psnr",)).means()
    psnr["rainy input"], psnr[name] = means["rainy_psnr_rgb"], means["psnr_rgb"]
print({name: round(value, 2) for name, value in psnr.items()})

# %% [markdown]
# **What you should see.** The supernet is above the rainy input, and the derived network is close to the supernet.
# Their difference is the gap. A search of `teach` size ends decided, so its gap is a few hundredths of a dB, nearly
# nothing. (The derived network may even be slightly ahead.) The more undecided a search ended, the more is thrown
# away. To see this, run a search with `epochs = 3` and another `name` in notebook 03.
#
# ### Why the statistics are measured anew
#
# slides: The running statistics are those of the *mixture*
# slides: The network that is left has others: measure them again
#
# One line of the last cell was `update_bn`. **BatchNorm**, in spaces that have it, keeps a running mean $\mu$ and a
# running variance $\sigma^2$ of each channel. In use it turns a value $z$ into
#
# $$y = \gamma\, \frac{z - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta .$$
#
# Here $\gamma$ and $\beta$ are two learned numbers per channel (this $\beta$ has nothing to do with the edges), and
# $\epsilon$ is a tiny constant. In the supernet $z$ came from a mixture. In the derived network it comes from one
# candidate, with another mean and another variance, while $\mu$ and $\sigma^2$ are still those of the mixture. Even
# with perfect weights the output is then wrong. The cure is cheap: send some training batches through the derived
# network, change no weight, and let it measure $\mu$ and $\sigma^2$ again. Whoever forgets this finds a gap that comes
# from old statistics, and thinks that it comes from the search. Here is a small example, with one channel of a mixture
# of two candidates:

# %%
# NBVAL_CHECK_OUTPUT
torch.manual_seed(0)
one, two = torch.randn(4096, 1) + 4, 3 * torch.randn(4096, 1)  # what two candidates give
norm = torch.nn.BatchNorm1d(1, momentum=None)  # None: the mean over all batches
norm.train()(0.5 * one + 0.5 * two)
stale = norm.eval()(one)
norm.reset_running_stats()
norm.train()(one)
for name, y in {"statistics of the mixture": stale, "measured anew": norm.eval()(one)}.items():
    print(f"{name:<26} mean {y.mean():z.1f}, deviation {y.std():.1f}")  # z: never "-0.0"

# %% [markdown]
# **What you should see.** With the mixture's statistics the mean of the output is not 0 and its deviation is below 1.
# Measured anew, they are 0 and 1, as all later layers expect. Most of the kit's own spaces have `norm = "none"` (only
# `paper` has BatchNorm), and there the call changes nothing. It stands in this notebook because a space with BatchNorm
# needs it.
#
# ## How decided was it?
#
# slides: Entropy near 0: the rows are decided, as a whole
# slides: **Margin**: the largest weight minus the second
# slides: A large margin is not an *important* decision
#
# An entropy near 0 says that the rows are decided *on average*. The next cell prints it for modules (α) and edges (β):

# %%
entropy = dict(zip(("alpha", "beta"), map(row_entropy, supernet.weights()), strict=True))
rounded = {symbol: round(value, 3) for symbol, value in entropy.items()}
print(rounded, "(1 undecided, 0 decided, as in 03)")

# %% [markdown]
# **What you should see.** Two numbers. After a search of `teach` size both are small, below 0.2: that search ended
# decided.
#
# But a mean hides the few rows that are not decided. The **margin** of a decision is the largest weight $w_{(1)}$ of its
# row minus the second largest $w_{(2)}$,
#
# $$m = w_{(1)} - w_{(2)} \in [0, 1].$$
#
# It is 1 if one candidate has all the weight. It is 0 for a tie, where another seed, another batch or one more epoch
# would have chosen otherwise. One more thing can go wrong. The cut, `none`, is a candidate of the search but may not be
# derived. Where `none` has the largest weight, the *second* operation is derived, and it may have had hardly any
# weight.

# %%
alpha, beta = (weights.detach() for weights in supernet.weights())
rows = {"modules": alpha, "edges": beta}
top = {name: w.topk(2, dim=1).values for name, w in rows.items() if len(w)}
margin = {name: (best[:, 0] - best[:, 1]).sort().values.tolist() for name, best in top.items()}
lines = {name: (list(range(1, len(m) + 1)), m) for name, m in margin.items()}
cut = genotype.space.operations.index("none")
barred = [row for row in range(len(beta)) if beta[row].argmax() == cut]
print(f"`none` leads on {len(barred)} of {len(beta)} edges; what was derived there:")
for row in barred:
    name = genotype.edges[row]
    weight = beta[row, genotype.space.operations.index(name)]
    print(f"  edge {row}: {name}, weight {weight:.3f}")
pictures.profile(lines, x="decisions, from the narrowest", y="margin", title="how decided?")

# %% [markdown]
# **What you should see.** The margins, sorted: each line starts at the least decided row. After a search of
# `teach` size nearly all margins are close to 1. But on some edges the winner is `none`, so the operation that was derived there had
# a weight of less than a hundredth. The gap is small all the same. By the formula above this means: on those edges the
# choice of a gate hardly *matters*. Notebook 05 measures exactly this, on 128 trained networks: 0.03 dB between gates,
# 0.30 dB between patterns of modules. So a large margin does not show that a decision is important, nor that it is
# right. It only says that *this* search would hardly have decided otherwise.
#
# ## Multi-to-one, in one forward pass
#
# slides: All rains of a scene go through together
# slides: External loss: be like the clean picture
# slides: Internal loss: agree with each other
#
# B scenes with R rains go through the network as B · R images. Only in the loss are the images of a scene brought
# together. The loss has two parts. The **external loss** asks every output $T_k$ to be like the clean picture $Y$ pixel
# by pixel, to have the same structure (SSIM, in windows of 11 × 11 pixels), and to be smooth (total variation, TV). A
# bar is a mean over all pixels and channels:
#
# $$L_{\mathrm{ext}} = \frac3R \sum_{k=1}^R \Bigl[\, \overline{|T_k - Y|} + 0.3\,\bigl(1 - \mathrm{SSIM}(T_k, Y)\bigr)
# \Bigr] + 10^{-4}\, \mathrm{TV}(T)$$
#
# (The article squares the difference; $|T_k - Y|$ and the factor 0.3 are choices of this kit.)
#
# The **internal loss** asks the $R$ outputs of a scene to agree. It takes the mean squared difference of each of the
# $P = R(R-1)/2$ pairs. A tenth of it is added to the loss from the second epoch on:
#
# $$L_{\mathrm{int}} = \frac3P \sum_{j<k} \overline{(T_j - T_k)^2}$$
#
# Why does agreement help? The true picture of all outputs is the same. So two outputs can only differ in rain that is
# left, or in background that one of them has lost. The external loss says how wrong an output is. The internal loss
# says which part of the error comes from the rain. It cannot work alone: outputs that are all grey agree perfectly.
#
# The sum over pairs looks expensive, but it is not. For any numbers $t_1 \dots t_R$ with mean $\bar t$,
#
# $$\sum_{j<k} (t_j - t_k)^2 = R \sum_k (t_k - \bar t)^2,$$
#
# so the sum over pairs is $R^2$ times a variance. The next cell computes both.

# %%
# NBVAL_CHECK_OUTPUT
torch.manual_seed(0)
outputs = torch.rand(2, 3, 3, 8, 8)  # 2 scenes, 3 rains
pairs = [(0, 1), (0, 2), (1, 2)]
loop = sum((outputs[:, k] - outputs[:, j]).square().mean() for k, j in pairs)
print(
    f"loop {loop:.4f}, kit {losses.internal(outputs):.4f}, R = 1: {losses.internal(outputs[:, :1]):.1f}"
)

# %% [markdown]
# **What you should see.** The loop over pairs and the kit give the same number. The kit computes the variance: its cost
# grows with R, and not with the number of pairs. With one rain there is nothing to compare, and the loss is 0.
#
# ## A recipe for training anew
#
# slides: Everything compared is trained alike
# slides: Warm-up, then a cosine, gradients clipped
# slides: EMA: an average of the last weights
#
# Why throw the supernet's weights away? They cost a whole search, and the derived network could simply be trained
# further from them. In a product one would do this. In a *comparison* one must not. A network whose weights were
# trained for a thousand steps inside the supernet has had a longer training than a random network. And the supernet has
# trained the candidates that it prefers more than all others. So every network that is compared starts from fresh
# weights, and gets the same number of steps, the same batches and the same recipe. Yu et al. (2020) judged several
# published searches in this way, and found them no better than random ones.
#
# The recipe itself has four parts, none of which is special to deraining:
#
# * **Warm-up.** With fresh weights the gradients are large and change much, and Adam has not yet measured their size.
#   So the learning rate rises from 0 over the first steps.
# * **Cosine.** Then the learning rate falls from its highest value $\eta$ to 0. Large steps find a good region, and
#   small steps settle in it. From step $t_0$ (the end of the warm-up) to the last step $T$ the rate is
#   $\eta_t = \tfrac12\,\eta\,\bigl(1 + \cos \pi \tfrac{t - t_0}{T - t_0}\bigr)$.
# * **Clipping.** A gradient longer than a limit is shortened to it, so that one unusual patch cannot move the weights
#   far.
# * **EMA.** What is validated and kept is not the weights but a moving average of them.
#
# The last one needs some words more. At the end of a training the weights $w_t$ still jump around a good point, one
# step to this side and the next step to the other. The **exponential moving average** (EMA) follows them slowly,
#
# $$\bar w_t = d\, \bar w_{t-1} + (1 - d)\, w_t ,$$
#
# where the weights of $k$ steps ago count $d^k$ times as much as the newest ones. With $d = 0.995$ it is an average
# over about $1/(1-d) = 200$ steps. If the jumps are independent, the average jumps less by a factor of
# $\sqrt{(1-d)/(1+d)}$, here 0.05. This has the same effect as many very small steps at the end. The price is a delay:
# an average over 200 steps is of little use in a training of 300. For this reason the smallest preset has no EMA. The
# next two cells check the factor, and draw the learning rate.

# %%
# NBVAL_CHECK_OUTPUT
decay, jumps = 0.995, np.random.default_rng(0).normal(size=60_000)
average = np.zeros_like(jumps)
for step in range(1, len(jumps)):
    average[step] = decay * average[step - 1] + (1 - decay) * jumps[step]
settled = average[5_000:]
print(f"jumps of the weights 1.00, of their average {settled.std():.2f}", end=" ")
print(f"(the formula says {np.sqrt((1 - decay) / (1 + decay)):.2f})")

# %%
plan = settings["searched"]
total = np.arange(plan.epochs * plan.steps)
rising = total / max(plan.warmup, 1)
falling = 0.5 * (1 + np.cos(np.pi * (total - plan.warmup) / max(len(total) - plan.warmup, 1)))
rate = plan.rate * np.where(total < plan.warmup, rising, falling)
curve = {"learning rate": (total.tolist(), rate.tolist())}
pictures.profile(curve, x="step", y="learning rate", title="warm-up, then a cosine")

# %% [markdown]
# **What you should see.** The average jumps twenty times less, as the formula says. The learning rate of *this*
# training has a short rise, and then a long fall to zero. The small steps at the end are a part of the recipe. A
# training that is stopped half way has not had them, so compare only trainings that were finished.
#
# ## The trainings
#
# slides: Two curves, one network
#
# **Stop here if short of time**: the trainings continue where they were when you come back.

# %%
live = not course.headless()
trained = {"searched": job.wait(live=live)}
job = course.background(
    genotype, settings["one_to_one"], runs_dir=where, name=names["one_to_one"], data=source
)
draw.training_curves(trained["searched"].log)

# %% [markdown]
# **What you should see.** A falling loss, and PSNR on whole validation pictures that rises, and slowly in the end. The
# best epoch's weights are kept, chosen on *validation* scenes, never on test scenes.

# %% [markdown]
# ## Exercises, while the second trains
#
# **1. Derive.** Turn logits into names: each row keeps the candidate with the largest logit. The columns of α are
# parallel and fusion, in this order. If `allow_none` is false, `none` may not win.
#
# *Why it matters.* At this point several published codes read rows that were never searched, or shift every name by
# one. There is no error message: a genotype comes out in any case.


# %% tags=["exercise", "exercise:derive"]
def my_derive(alpha, beta, operations, allow_none):
    """alpha (modules, 2), beta (edges, n), operations: names of beta's n columns
    -> (list of module names, list of operation names)."""
    # BEGIN SOLUTION
    beta = beta.clone()
    if not allow_none:
        beta[:, operations.index("none")] = -torch.inf
    modules = [("parallel", "fusion")[k] for k in alpha.argmax(1).tolist()]
    return modules, [operations[k] for k in beta.argmax(1).tolist()]
    # END SOLUTION


# %% tags=["check", "check:derive"]
checks.derive(my_derive)

# %% [markdown]
# **2. The internal loss**, for any R. Compute 3/P times the sum over pairs of the mean squared difference, and average
# over the scenes. For R = 1 it is 0.
#
# *Why it matters.* Without this loss multi-to-one would only be a larger batch. An `.item()` in it returns a number
# without a gradient, and so switches it off without any message.


# %% tags=["exercise", "exercise:internal_loss"]
def my_internal(outputs):
    """outputs (B, R, 3, h, w) -> a tensor with one number."""
    # BEGIN SOLUTION
    rains = outputs.shape[1]
    if rains == 1:
        return outputs.new_zeros(())
    return 6 * outputs.var(dim=1, correction=1).mean()
    # END SOLUTION


# %% tags=["check", "check:internal_loss"]
checks.internal_loss(my_internal)

# %% [markdown]
# **3. Margins.** Turn logits into weights by a softmax, and return the margin of each row, as defined above. (Two
# lines.)
#
# *Why it matters.* A genotype does not show how sure each of its choices was. The margins say which choices another
# seed may change. For these choices you should not invent a reason.


# %% tags=["exercise", "exercise:margins"]
def my_margins(logits):
    """logits (rows, n) -> the margin of each row, a tensor (rows,)."""
    # BEGIN SOLUTION
    best = torch.softmax(logits, dim=1).topk(2, dim=1).values
    return best[:, 0] - best[:, 1]
    # END SOLUTION


# %% tags=["check", "check:margins"]
checks.margins(my_margins)

# %% [markdown]
# ## The gap, closed
#
# slides: All networks side by side, on validation pictures
#
# The next cell waits for the second training, and compares all networks on the same validation pictures.

# %%
trained["one_to_one"] = job.wait(live=live)
for name, result in trained.items():
    means = evaluate(result.net, judged, conventions=("rgb",), measures=("psnr",)).means()
    psnr[f"retrained, {name.replace('_', '-')}"] = means["psnr_rgb"]
psnr["retrained, multi-to-one"] = psnr.pop("retrained, searched")
write_json(where / retrain_name / "gap.json", psnr)
lowest = min(psnr.values()) - 0.5
pictures.bars(
    psnr,
    title=f"all rains of {len(judged)} validation scene(s); the axis does not begin at 0",
    unit="PSNR (RGB), dB",
    start=lowest,
)

# %% [markdown]
# **What you should see.** From `teach` size on, the retrained networks are far ahead, by two dB or more. (In the run
# that the package brings it is 4 dB: its search was shorter.) This is not only the price of sharing weights. Much of it
# is training: the weights of the supernet had fewer steps, on half of the scenes, and the best epochs of the retrained
# networks were picked on these very pictures. But it does show that three honest measurements of *one* search lie
# several dB apart. The PSNR of a supernet, as a mixture or inherited, says little about what its network is worth. So
# architectures are compared after retraining, and a report must say which of the three numbers it gives.
#
# The two ways to train differ too, and either may be ahead. One run of each decides nothing, because two seeds of the
# same way differ by as much (06).
#
# ## The test, once
#
# slides: Chosen first; only then is the test set opened
#
# The networks are chosen now. Only at this point is the test set opened.

# %%
test = split.test[: scored or None]
results = {name.replace("_", "-"): evaluate(r.net, test) for name, r in trained.items()}
print(table({"multi-to-one": results["searched"], "one-to-one": results["one-to-one"]}))

# %% [markdown]
# **What you should see.** A block of rows for each strength of rain, and a last block for all of them. In each block
# compare the two networks with the rainy input. Under light rain there is little to gain: the input is already close to
# the clean picture, and a network that was trained for a short time can make it worse. The next cell shows one test
# picture under the strongest rain:

# %%
rainy, clean = test[0].read()
draw.comparison(rainy[-1], derain(rainy[-1], trained["searched"].net), clean)

# %% [markdown]
# **What you should see.** Above: the rainy, the derained and the clean picture. In the middle: the part in the orange
# square, enlarged. Below: three differences, the brighter the larger. The first is what the rain added, the second is
# what the network has left of it, and the third is what the network took away.
#
# ## What this shows, and what it does not
#
# slides: Mixture, derived and retrained share a genotype, not a quality
# slides: Whether multi-to-one helps needs several searches
#
# The mixture, the derived network and the retrained network have the same genotype, but not the same quality. So say
# which of the three a number belongs to. This notebook does not show that this genotype is better than another, nor
# that multi-to-one helps: that takes several searches, several retrainings, and an interval (06). Minutes of training
# on 20 photographs are a demonstration and not a result.
#
# ## Summary
#
# * Mixture, derived network and retrained network are three different things: report which of the three a number
#   belongs to.
# * The gap is small if the rows are decided, or if the choice does not matter. Margins show the first, a table of
#   trained networks (05) shows the second.
# * The statistics of BatchNorm are those of the mixture: measure them anew before you judge a derived network.
# * One forward pass serves all rains of a scene; the internal loss is a variance.
# * Validation chooses the network. The test set is opened once, when nothing is chosen any more.
#
# **Next**: 05 does the search help? **Or try** `search_name` of another search, with another `retrain_name`.
#
# **References.** L. Cai et al., *MANAS*, arXiv 2207.00728 · R. Wang et al., *Rethinking Architecture Selection in
# Differentiable NAS*, ICLR 2021, arXiv 2108.04392 · K. Yu et al., *Evaluating the Search Phase of NAS*, ICLR 2020, arXiv
# 1902.08142 · B. Polyak, A. Juditsky, *Acceleration of stochastic approximation by averaging*, 1992 · S. Ioffe, C. Szegedy,
# *Batch Normalization*, ICML 2015, arXiv 1502.03167.

# %% tags=["record"]
course.record_results(
    steps=2 * epochs * steps,
    genotype=genotype.id,
    psnr_rgb=psnr,
    test_psnr_rgb={name: result.means()["psnr_rgb"] for name, result in results.items()},
    test_gain=results["searched"].gain,
)
