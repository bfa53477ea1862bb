# %% tags=["parameters"]
data = "photos"  # "photos" (bundled), a set's name, a folder, or the web address of an archive
runs_dir = "runs"  # runs: in the clone; on Colab on your Drive; else in ~/manas_lite
search_name = "search"  # the search to derive from, as notebook 03 named it
retrain_name = "searched"  # the first training's name; other settings need another one
size = "teach"  # retraining settings to start from: smoke, teach, lite or paper
seed = 0  # initial weights and batches of the retraining
epochs = 8  # of each retraining
steps = 100  # steps an epoch
scored = 4  # validation and test scenes on which networks are judged; 0: all

# %% tags=["imports"]
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
# This notebook starts from what a search left on disk: `genotype.json`, and the supernet's weights. On Colab, give the
# same Drive folder as in 03: each notebook has a machine of its own.

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
# ## Start the first training, read meanwhile
#
# The derived network is trained twice, from the same initial weights, on the same number of images a step: once with
# **multi-to-one** scenes (all rains of a scene together, the internal loss on), once **one-to-one** (every rainy
# picture on its own). They run one after the other, in processes of their own. The second starts when the first is done,
# further down: run that cell, and do the exercises meanwhile.

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
# The supernet was trained as a *mixture*. Deriving keeps one candidate a place and throws the others away, so the
# network that is left has weights that were never trained to work alone. Three ways to judge the same search:
#
# 1. the supernet as it is, all candidates mixed;
# 2. **derived**, with the weights it inherits;
# 3. derived and **retrained** from scratch.
#
# > **Predict.** Order the three by PSNR. Is 2 above or below the rainy input?

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
# **What you should see.** A supernet above the input, and beside it a derived network. The difference of the two is the
# gap. Where the entropy term has driven the rows to one-hot, as in the search that comes with the package, next to nothing
# is lost; the more undecided a search ended, the more is thrown away: look at the entropies below, and try a search with
# `epochs = 3`, and another `name`, in 03. BatchNorm, where a space has it, was measured anew before judging: the
# statistics of the mixture are not those of one candidate.

# %%
entropy = dict(zip(("alpha", "beta"), map(row_entropy, supernet.weights()), strict=True))
rounded = {symbol: round(value, 3) for symbol, value in entropy.items()}
print(rounded, "(1 undecided, 0 decided, as in 03)")

# %% [markdown]
# ## Multi-to-one, in one forward pass
#
# B scenes with R rains go through the network as B · R images; they meet only in the loss. It has two parts for the
# pictures. The **external loss** asks every output $T_k$ to be like the clean picture $Y$: pixel by pixel (the method
# squares the difference; $|T_k - Y|$ and 0.3 are this kit's), in structure (SSIM, 11 × 11 windows), and smooth (total
# variation):
#
# $$L_{\mathrm{ext}} = \frac3R \sum_{k=1}^R \Bigl[\, \overline{|T_k - Y|} + 0.3\,\bigl(1 - \mathrm{SSIM}(T_k, Y)\bigr)
# \Bigr] + 10^{-4}\, \mathrm{TV}(T)$$
#
# The **internal loss** asks the $R$ outputs of a scene to agree. It takes the mean squared difference of each of the
# $P = R(R-1)/2$ pairs; a tenth of it is added from the second epoch on:
#
# $$L_{\mathrm{int}} = \frac3P \sum_{j<k} \overline{(T_j - T_k)^2}$$
#
# Why does agreement help? Two outputs can only differ in what is left of the rain, or in background that one of them
# has lost: the true picture is the same. Where the clean picture says how wrong an output is, the internal loss says
# which part of the error comes from the rain. It cannot work alone: outputs that are all grey agree perfectly.
#
# The sum over pairs looks expensive. It is not: for any numbers $t_1 \dots t_R$ with mean $\bar t$,
#
# $$\sum_{j<k} (t_j - t_k)^2 = R \sum_k (t_k - \bar t)^2,$$
#
# so that the pairs are $R^2$ times a variance.

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
# **What you should see.** The same number twice: the kit computes the pairs as a variance, which costs R images and not
# R(R−1)/2 pairs. With one rain there is nothing to agree on.
#
# ## The trainings
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
# **What you should see.** A falling loss, and PSNR on whole validation pictures that rises steeply and then slowly. The
# best epoch's weights are kept, chosen on *validation* scenes, never on test scenes.

# %% [markdown]
# ## Exercises, while the second trains
#
# **1. Derive.** From logits to names; the columns of α are parallel, fusion.


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
# **2. The internal loss**, for any R: 3/P times the sum over pairs of the mean squared difference, averaged over scenes;
# 0 for R = 1.


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
# ## The gap, closed
#
# Wait for the second training, and set all networks side by side.

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
# **What you should see.** The retrained networks far ahead. Much of that is budget, not freedom: the supernet's weights
# had fewer steps, on half of the scenes, and the retrained networks' best epochs were picked on these very pictures. What
# it does show: a supernet's PSNR, mixed or inherited, says little about what its network is worth, so architectures are
# compared *retrained*. The two ways to train differ too, and either may lead: one run each, so do not read it yet.
#
# ## The test, once
#
# Only now is the test set opened: the networks are chosen.

# %%
test = split.test[: scored or None]
results = {name.replace("_", "-"): evaluate(r.net, test) for name, r in trained.items()}
print(table({"multi-to-one": results["searched"], "one-to-one": results["one-to-one"]}))

# %%
rainy, clean = test[0].read()
draw.comparison(rainy[-1], derain(rainy[-1], trained["searched"].net), clean)

# %% [markdown]
# ## What this shows, and what it does not
#
# What a mixture, its derived network and that network retrained have in common is the genotype, not the quality: say
# which of the three a number is of. It does not show that this genotype is better than another, nor that multi-to-one
# helps: that takes several searches, several retrainings, and an interval (06). Minutes of training on 20 photographs
# are a demonstration, not a result.
#
# ## Summary
#
# * mixture → one-hot → retrained: report which of the three a number is of.
# * One forward pass for all rains of a scene; the internal loss is a variance.
# * Validation chooses, the test is opened once.
#
# **Next**: 05 does the search help? **Or try** `search_name` of another search, with another `retrain_name`.
#
# **References.** L. Cai et al., *MANAS*, arXiv 2207.00728 · R. Wang et al., *Rethinking Architecture Selection in
# Differentiable NAS*, ICLR 2021, arXiv 2108.04392 · K. Yu et al., *Evaluating the Search Phase of NAS*, ICLR 2020, arXiv
# 1902.08142.

# %% tags=["record"]
course.record_results(
    steps=2 * epochs * steps,
    genotype=genotype.id,
    psnr_rgb=psnr,
    test_psnr_rgb={name: result.means()["psnr_rgb"] for name, result in results.items()},
    test_gain=results["searched"].gain,
)
