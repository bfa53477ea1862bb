# %% tags=["parameters"]
runs_dir = "runs"  # runs: in the clone; on Colab on your Drive; else in ~/manas_lite
seed = 0  # of every random example
repeats = 12  # random validations of pitfall 7
crops = 16  # crops in each of them

# %% tags=["imports"]
import numpy as np
import torch
from torch import nn

from manas_lite import SearchSpace, SuperNet, load, metrics, open_split
from manas_course import checks, illustrations as pictures
from manas_lite.data import scene_loader
from manas_lite.photos.images import to_tensor
from manas_lite.photos.inference import derain_batch
from manas_lite.networks.modules import FusionModule, ParallelModule
from manas_lite.networks.ops import OPERATIONS
from manas_lite.compute.runtime import Compute, ComputeSettings

# %% [markdown]
# ## Why a notebook of mistakes
#
# slides: It runs, its loss falls, and it is wrong
# slides: The bug, its effect, the test that catches it
#
# Research code runs, prints falling losses, and is wrong. The eight pitfalls here, or close relatives of them, were found
# in released code of architecture search for restoration, this method's included; every example below was written anew and is as small as
# it can be. For each: **the bug**, **its effect**, **the test** that would have caught it. None of them raises an
# error.
#
# > **Predict.** Which of these would you notice from the training curve alone? Count at the end.
#
# <details><summary>Answer: write yours down first, then click</summary>
#
# None of the eight. Each leaves a loss that falls; the seventh even makes the best score rise without any training.
#
# </details>
#
# ## 1. Writing into the caller's list
#
# slides: A module writes into its input list
# slides: The next one reads results for inputs
#
# A module gets a list of branches and writes its results back into it. The next module then reads results instead of
# inputs.

# %%
torch.manual_seed(seed)
parallel, fusion = ParallelModule((4, 8), "none"), FusionModule((4, 8), "none")


def careless(x):
    for i, block in enumerate(parallel.blocks):
        x[i] = parallel.last(x[i] + block(x[i]))  # the caller's list, changed
    return x


x = [torch.randn(1, 4, 8, 8), torch.randn(1, 8, 4, 4)]
good = [0.5 * p + 0.5 * f for p, f in zip(parallel(x), fusion(x), strict=True)]
assert all(torch.equal(a, b) for a, b in zip(careless(list(x)), parallel(x), strict=True))
shared = list(x)
bad = [0.5 * p + 0.5 * f for p, f in zip(careless(shared), fusion(shared), strict=True)]
print(f"the mixture changes by {(good[0] - bad[0]).abs().mean() / good[0].abs().mean():.0%}")
print(f"test: input unchanged? {all(a is b for a, b in zip(shared, x, strict=True))}")

# %% [markdown]
# **What you should see.** `careless` computes what the good module computes; only the list is another afterwards. The
# supernet searches p·P(x) + f·F(**P(x)**), and the derived network computes something else.
# **The test**: after a forward pass every tensor of the input list is the same object, with the same values.
#
# ## 2. Logits used as weights
#
# slides: Numbers near 0, used raw: the places are off
# slides: Take the softmax everywhere, or nowhere
#
# The architecture numbers start near 0. Used *raw* in the forward pass, while the regulariser and the final decision
# take their softmax, they all but switch the searched places off.

# %%
logits = 1e-3 * torch.randn(9, generator=torch.Generator().manual_seed(seed))
gates = torch.rand(9, 1000)
raw, soft = (w @ gates for w in (logits, logits.softmax(0)))
print(f"mean output: raw {raw.abs().mean():.4f}, softmax {soft.abs().mean():.4f}")
print(f"too weak by a factor of {soft.abs().mean() / raw.abs().mean():.0f}")
print(f"test: rows sum to 1?  raw {logits.sum():.4f}  softmax {logits.softmax(0).sum():.4f}")

# %% [markdown]
# **What you should see.** Two orders of magnitude. The network learns around it: the loss still falls. **The test**:
# weights that the forward pass uses are positive and sum to 1.
#
# ## 3. Deriving from other rows than were searched
#
# slides: Nine blocks, three rows each
# slides: Counting stages instead of blocks reads the wrong rows
#
# Nine attention blocks have three rows of β each. Derivation code that moves on by *stage* and not by *block* reads the
# same rows again and again.

# %%
space = SearchSpace()  # the released sizes: 27 rows
beta = torch.randn(27, 9, generator=torch.Generator().manual_seed(seed))
own = [beta[3 * block : 3 * block + 3].argmax(1).tolist() for block in range(9)]
stage_of = [cell for cell, branches in enumerate(space.cells) for _ in range(branches)]
misread = [beta[3 * stage : 3 * stage + 3].argmax(1).tolist() for stage in stage_of]
right = sum(a == b for a, b in zip(own, misread, strict=True))
print(f"{right} of 9 blocks got the operations that were searched for them")
print(f"rows never read: {27 - 3 * len(set(stage_of))} of 27")

# %% [markdown]
# **What you should see.** One block in nine. A search of a hundred GPU-hours, and two thirds of its attention choices are
# thrown away unread. **The test**: a supernet with one-hot rows equals the derived network (notebook 02 runs it).
#
# ## 4. Parameters that nothing trains
#
# slides: Modules that no forward pass reaches
#
# A channel count passed where a number of modules was meant builds modules that no forward pass reaches.


# %%
class Cell(nn.Module):
    def __init__(self, modules):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(modules))

    def forward(self, x):
        for layer in self.layers[:4]:  # four are used, whatever was built
            x = layer(x)
        return x


for modules in (4, 128):
    cell = Cell(modules)
    cell(torch.randn(1, 4, 8, 8)).sum().backward()
    idle = sum(p.numel() for p in cell.parameters() if p.grad is None)
    total = sum(p.numel() for p in cell.parameters())
    print(f"{modules:>3} modules: {total:>6,} parameters, {idle:>6,} without a gradient")

# %% [markdown]
# **What you should see.** Almost all parameters idle; in the released code, 80 million instead of 13. The loss cannot
# tell. **The test**: after one backward pass every parameter has a gradient.
#
# ## 5. Prices in another order than the operations
#
# slides: Prices shuffled: expensive operations are rewarded
#
# The complexity loss multiplies weights by a table of costs. If that table is in another order, dear operations are
# rewarded.

# %%
names = [name for name in OPERATIONS if name != "none"]
price = {n: float(sum(p.numel() for p in OPERATIONS[n](16).parameters())) for n in names}
by_name = [price[name] for name in names]
by_letter = [price[name] for name in sorted(names)]  # a table in the order of the alphabet
print({name: round(value) for name, value in price.items()})

# %%
learned = {}
for label, table in (("by name", by_name), ("by position", by_letter)):
    a = torch.zeros(len(names), requires_grad=True)
    optimizer = torch.optim.Adam([a], 0.05)
    for _ in range(100):
        optimizer.zero_grad()
        (a.softmax(0) @ torch.tensor(table) / max(table)).backward()
        optimizer.step()
    learned[label] = float(a.detach().softmax(0) @ torch.tensor(by_name))
    best = names[a.argmax()]
    print(f"{label}: {best} has the largest weight; its true price is {price[best]:.0f}")
pictures.bars(
    learned, title="true expected cost after 100 steps of cost alone", unit="parameters an edge"
)

# %% [markdown]
# **What you should see.** With prices by name the cost goes to almost nothing; by position the search settles on CBAM,
# which the table calls free: the true cost stays near the mean of all operations, where it began, and goes on to CBAM's.
# **The test**: one-hot weights cost what the built network really has, for every operation.
#
# ## 6. The targets of other scenes
#
# slides: `repeat` is not `repeat_interleave`
# slides: The shapes agree; the scenes do not
#
# Outputs come scene by scene (scene 0 rain 0, scene 0 rain 1, …). Their targets must be repeated the same way;
# `repeat` repeats the whole batch instead, and nothing complains: the shapes agree.

# %%
# NBVAL_CHECK_OUTPUT
scenes = torch.arange(16)
for rains in (1, 3):
    mine = torch.tensor([s for s in range(16) for _ in range(rains)])
    theirs = scenes.repeat(rains)
    print(
        f"R = {rains}: {int((mine == theirs).sum())} of {16 * rains} outputs meet their own target"
    )

# %% [markdown]
# **What you should see.** With R = 1 all is well, which is why a quick test passes; with R = 3 most outputs are pulled
# towards *another photograph*. (A relative of the released fault, which took wrong groups of three and met its own target
# once in 48.) The network learns a blur, slowly, and the loss falls.
#
# **Stop here if short of time.**
#
# ## 7. Validation on random crops
#
# slides: One network, many scores
# slides: Noise chooses the best epoch
#
# If "validation" draws new crops each time, noise chooses the best epoch. Here is *one* network, not trained any
# further, validated again and again:

# %%
net = load(course.find_run(runs_dir, "searched", made_by="04", needs="weights.safetensors"))
val = open_split("photos").val
runtime = Compute(ComputeSettings())
random_scores = []
for trial in range(repeats):
    batch = next(iter(scene_loader(val, batch=crops, patch=64, seed=seed + trial, steps=1)))
    batch = batch.to(runtime.device)
    outputs = derain_batch(net.to(runtime.device), batch.rainy[:, -1], runtime)
    random_scores.append(metrics.psnr(outputs.cpu(), batch.clean.cpu()).mean().item())
spread = float(np.std(random_scores, ddof=1))
print(f"{repeats} validations of one network: {spread:.2f} dB standard deviation")

# %%
order = list(range(1, repeats + 1))
best_so_far = np.maximum.accumulate(random_scores)
curves = {"this validation": (order, random_scores), "best so far": (order, list(best_so_far))}
pictures.profile(
    curves, x="validation", y="PSNR (RGB), dB", title="one network, validated on random crops"
)

# %% [markdown]
# **What you should see.** A "best so far" that rises although *nothing is learned*. Whoever keeps the best of such epochs
# reports luck. **The test**: validate twice, get the same number. The kit scores fixed whole pictures.
#
# ## 8. Scoring what no screen can show
#
# slides: Outputs leave [0, 1]: clamp before scoring
#
# A network's output may leave [0, 1]. Scored unclamped it loses dB that no one would see. (The opposite, dB that are not
# there, comes with the wrong range of Y: notebook 01.)

# %%
clean = val[0].clean.read() / 255
rng = np.random.default_rng(seed)
output = clean + rng.normal(0, 0.1, clean.shape)
scores = {
    "unclamped": -10 * np.log10(np.mean((output - clean) ** 2)),
    "clamped": metrics.psnr(
        torch.from_numpy(output).permute(2, 0, 1)[None],
        to_tensor(np.uint8(np.rint(255 * clean)))[None].double(),
    ).item(),
}
print({name: round(float(value), 2) for name, value in scores.items()})

# %% [markdown]
# **What you should see.** The same picture, two numbers. **The test**: an output of 1.5 and one of 1.0 score alike.
#
# ## Exercises
#
# **1. Pair outputs with targets.** The outputs come scene by scene: scene 0 rain 0, scene 0 rain 1, and so on. Repeat the
# clean pictures in the same order. (One line.)
#
# *Why it matters.* A network trained on the targets of other scenes learns a blur, and its loss falls all the way.


# %% tags=["exercise", "exercise:pairing"]
def my_targets(clean, rains):
    """clean (B, 3, h, w) -> targets (B * rains, 3, h, w) of outputs that come scene by scene."""
    # BEGIN SOLUTION
    return clean.repeat_interleave(rains, dim=0)
    # END SOLUTION


# %% tags=["check", "check:pairing"]
checks.pairing(my_targets)

# %% [markdown]
# **2. Write a test.** `make` is a class like `FusionModule`: `make((4, 8, 16), "batch").eval()` builds a module, which
# maps a list of three branches to a list of three. Your function must raise `AssertionError` for a faulty module and pass a
# good one. For branch i that is relu(x_i + Σ_{j≠i} path_{j→i}(x_j)); paths from coarser branches (j > i) are still to be
# enlarged 2^(j−i) times, those from finer ones shrink by themselves; and the list that was given stays as it was. The
# checker brings some twenty faulty modules. `module.paths["1to0"]` is the path from branch 1 to branch 0, and
# `nn.functional.interpolate(y, scale_factor=2.0)` enlarges. (This is the small project of this notebook.)
#
# *Why it matters.* A test is worth what it fails on. Few people have ever tried theirs on a module that is wrong.


# %% tags=["exercise", "exercise:mutants"]
def my_test(make):
    """Raise AssertionError where the module is no fusion module."""
    # BEGIN SOLUTION
    module = make((4, 8, 16), "batch").eval()
    x = [torch.rand(1, width, 16 // 2**i, 16 // 2**i) for i, width in enumerate((4, 8, 16))]
    before = list(x)
    outputs = module(x)
    assert all(a is b for a, b in zip(x, before, strict=True)), "the input list was changed"
    up = nn.functional.interpolate
    wanted = [
        x[0]
        + up(module.paths["1to0"](x[1]), scale_factor=2.0)
        + up(module.paths["2to0"](x[2]), scale_factor=4.0),
        x[1] + module.paths["0to1"](x[0]) + up(module.paths["2to1"](x[2]), scale_factor=2.0),
        x[2] + module.paths["0to2"](x[0]) + module.paths["1to2"](x[1]),
    ]
    for got, want in zip(outputs, wanted, strict=True):
        assert torch.allclose(got, torch.relu(want), atol=1e-5), "another value than the sum"
    # END SOLUTION


# %% tags=["check", "check:mutants"]
checks.mutants(my_test)

# %% [markdown]
# **3. Whose rows are these?** Every branch of every cell has an attention block, and every block has `edges` rows of β.
# Blocks follow each other by cell, and within a cell by branch. Which rows belong to which block?
#
# *Why it matters.* Pitfall 3 is this function with one wrong counter, and cost a published search most of its
# attention choices.


# %% tags=["exercise", "exercise:block_rows"]
def my_rows(cells, edges):
    """cells: branches of each cell, such as [1, 2]; edges: rows of a block -> a list of rows per block."""
    # BEGIN SOLUTION
    return [list(range(edges * block, edges * (block + 1))) for block in range(sum(cells))]
    # END SOLUTION


# %% tags=["check", "check:block_rows"]
checks.block_rows(my_rows)

# %% [markdown]
# ## What this shows, and what it does not
#
# slides: Eight faults, a short test for each
# slides: A ninth may be there
#
# Eight faults that leave the curve falling, and a test of a few lines for each. It does not show how much each cost the
# published numbers: that would take the original runs. And a code base that passes these tests may hold a ninth.
#
# ## Summary
#
# * Test identities (one-hot supernet = derived network), invariants (inputs unchanged, rows sum to 1), and twice the
#   same (validation).
# * Small R, few branches and equal widths hide mistakes: test with unequal ones.
#
# **Next**: 08 your own photos. **Or try** to plant a ninth bug in a copy of `modules.py`, and see whether `make test`
# finds it.
#
# **References.** L. Cai et al., *MANAS*, arXiv 2207.00728 · Y. Gou et al., *CLEARER*, NeurIPS 2020 · L. Li, A.
# Talwalkar, *Random search and reproducibility for NAS*, UAI 2019, arXiv 1902.07638.

# %% tags=["record"]
supernet_rows = [
    w.sum(1).mean().item() for w in SuperNet(SearchSpace.preset("smoke")).weights()
]
course.record_results(
    blocks_read_right=right,
    random_validation_sd=spread,
    rows_sum=supernet_rows[0],
    cost_by_name=learned["by name"],
    cost_by_position=learned["by position"],
    unclamped_loss_db=scores["clamped"] - scores["unclamped"],
)
