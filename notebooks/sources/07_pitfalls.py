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
# Research code can run, print a loss that falls, and still be wrong. Eight such pitfalls stand here. They, or close
# relatives of them, were found in released code of architecture search for restoration, the code of this method
# included. Every example below was written anew and is as small as it can be. For each pitfall you see **the bug**,
# **its effect**, and **the test** that would have caught it. None of the bugs raises an error.
#
# > **Predict.** How many of the eight would you notice from the training curve alone? Write a number down, and count
# > at the end.
#
# <details><summary>Answer: write yours down first, then click</summary>
#
# None of the eight. With each of them the loss still falls. The seventh even makes the best score rise without any
# training.
#
# </details>
#
# ## 1. Writing into the caller's list
#
# slides: A module writes into its input list
# slides: The next one reads results for inputs
#
# At each place of the supernet, the parallel module P and the fusion module F get the same list of branches $x$.
# Their results are mixed with two weights, here 0.5 and 0.5. Suppose that P writes its results back into the list
# that it was given. Then F, which runs next, reads the results of P where it should read the inputs.

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
# **What you should see.** `careless` returns what the good module returns. But afterwards the caller's list holds
# other tensors than before. So the supernet is searched with p·P(x) + f·F(**P(x)**), where p·P(x) + f·F(x) was meant.
# In a derived network only one of the two modules is left, and F gets x. What is derived is not what was searched.
#
# **The test**: after a forward pass, every tensor of the input list is the same object as before, with the same
# values.
#
# ## 2. Logits used as weights
#
# slides: Numbers near 0, used raw: the places are off
# slides: Take the softmax everywhere, or nowhere
#
# The architecture numbers α and β are logits, and they start near 0. The regulariser and the final decision take
# their softmax. Suppose that the forward pass uses the logits *as they are*. Then it multiplies the output of each
# searched place by numbers near 0, which all but switches the place off.

# %%
logits = 1e-3 * torch.randn(9, generator=torch.Generator().manual_seed(seed))
gates = torch.rand(9, 1000)
raw, soft = (w @ gates for w in (logits, logits.softmax(0)))
print(f"mean output: raw {raw.abs().mean():.4f}, softmax {soft.abs().mean():.4f}")
print(f"too weak by a factor of {soft.abs().mean() / raw.abs().mean():.0f}")
print(f"test: rows sum to 1?  raw {logits.sum():.4f}  softmax {logits.softmax(0).sum():.4f}")

# %% [markdown]
# **What you should see.** With raw logits the output is more than a hundred times too weak. The other weights of a
# network can learn to make up for it, so the loss still falls. **The test**: the weights that the forward pass uses
# are positive and sum to 1.
#
# ## 3. Deriving from other rows than were searched
#
# slides: Nine blocks, three rows each
# slides: Counting stages instead of blocks reads the wrong rows
#
# At the released sizes there are nine attention blocks, in three stages of two, three and four blocks (the code calls
# the stages `cells`). Each block has three rows of β. Code that derives a network must move on by three rows after
# each *block*. If it moves on after each *stage* only, all blocks of a stage read the same rows.

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
# **What you should see.** Only one block of nine, the first, gets the operations that were searched for it. Imagine
# that the search had taken a hundred GPU-hours: two thirds of its attention choices would be thrown away unread.
# **The test**: a supernet whose rows are one-hot gives the same output as the derived network (notebook 02 runs this
# test).
#
# ## 4. Parameters that nothing trains
#
# slides: Modules that no forward pass reaches
#
# Suppose that a function is given the number of channels where it expects the number of modules. Then it builds many
# modules that no forward pass ever reaches.


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
# **What you should see.** With 128 modules, almost all parameters have no gradient. In the released code it is 80
# million parameters instead of 13 million. The loss shows nothing of it, because unused modules have no part in it.
# **The test**: after one backward pass, every parameter has a gradient.
#
# ## 5. Prices in another order than the operations
#
# slides: Prices shuffled: expensive operations are rewarded
#
# The complexity loss multiplies the weights of the operations by a table of their costs. If that table is in another
# order than the operations, the loss can reward expensive operations. The next two cells compare two such tables: one
# in the order of the operations ("by name"), and one in the order of the alphabet, which is read as if it had the
# order of the operations ("by position").

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
# **What you should see.** With prices by name, the search chooses `skip_connect`, which is free, and the expected
# cost falls to almost nothing. With prices by position, the search prefers CBAM, because the wrong table calls CBAM
# free. The true expected cost hardly falls. It began at the mean of all operations, 221 parameters, and it is about
# 204 after the 100 steps. With more steps it would go to the 248 of CBAM.
#
# **The test**: for every operation, a one-hot row of weights costs what the built network really has.
#
# ## 6. The targets of other scenes
#
# slides: `repeat` is not `repeat_interleave`
# slides: The shapes agree; the scenes do not
#
# Suppose that each scene has R rains. The outputs come scene by scene: scene 0 rain 0, scene 0 rain 1, and so on. The
# clean pictures, which are their targets, must be repeated in the same order. But `repeat` repeats the whole batch,
# scene 0, scene 1, and so on, and then begins again. Nothing complains, because the shapes agree.

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
# **What you should see.** With R = 1 everything is right, and this is why a quick test passes. With R = 3 most
# outputs are pulled towards *another photograph*. (The fault in the released code was a relative of this one. It took
# wrong groups of three, and 1 output of 48 met its own target.) A network that is trained in this way slowly learns a
# blur, and its loss falls.
#
# **Stop here if short of time.**
#
# ## 7. Validation on random crops
#
# slides: One network, many scores
# slides: Noise chooses the best epoch
#
# Suppose that "validation" cuts new random crops each time, and that the epoch with the best score is kept. Then
# chance chooses the epoch. The next cell takes *one* network, trains it no further, and validates it again and again:

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
# **What you should see.** The "best so far" rises although *nothing is learned*. Whoever keeps the best of such
# epochs reports luck. **The test**: validate twice, and get the same number. This kit scores whole pictures, and
# always the same ones.
#
# ## 8. Scoring what no screen can show
#
# slides: Outputs leave [0, 1]: clamp before scoring
#
# The output of a network may leave [0, 1]. A screen shows such a value as 0 or as 1. If the output is scored without
# clamping it first, it loses dB that nobody can see. (The opposite mistake, a PSNR that is too high, comes with the
# wrong range of Y: notebook 01.)

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
# **What you should see.** The same picture gets two numbers, and the clamped one is higher. **The test**: an output
# of 1.5 and an output of 1.0 get the same score.
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
# **2. Write a test.** Your function gets `make`, a class like `FusionModule`. `make((4, 8, 16), "batch").eval()`
# builds a module for three branches of 4, 8 and 16 channels. The module maps a list of three tensors to a list of
# three tensors. Each branch has half the height and half the width of the branch before it. Your function must raise
# `AssertionError` if the module is faulty, and must return without an error if it is good. A good module does two
# things:
#
# * Its output i is $\mathrm{relu}\bigl(x_i + \sum_{j \ne i} \mathrm{path}_{j \to i}(x_j)\bigr)$.
#   `module.paths["1to0"]` is the path from branch 1 to branch 0, and so on. A path from a finer branch (j < i) makes
#   the tensor smaller by itself. A path from a coarser branch (j > i) does not change the size, so its result must
#   still be enlarged $2^{j-i}$ times. `nn.functional.interpolate(y, scale_factor=2.0)` enlarges y twice.
# * It leaves the list that it was given, and the tensors in it, as they were.
#
# The checker brings more than twenty faulty modules. (This is the small project of this notebook.)
#
# *Why it matters.* A test is useful only if it fails for wrong code. Few people have ever tried their tests on a
# module that is wrong.


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
# **3. Whose rows are these?** Every branch of every cell has an attention block, and every block has `edges` rows of
# β. The blocks follow each other cell by cell, and within a cell branch by branch. Return for each block, in this
# order, the list of its row numbers, counted from 0. For example, `cells = [1, 2]` means three blocks: one in the
# first cell and two in the second.
#
# *Why it matters.* Pitfall 3 is this function with one wrong counter. It cost a published search most of its
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
# This notebook shows eight faults that leave the training curve falling, and for each a test of a few lines. It does
# not show how much each fault cost the published numbers: that would take the original runs. And code that passes all
# eight tests may contain a ninth fault.
#
# ## Summary
#
# * Test identities (a one-hot supernet equals the derived network), invariants (inputs stay unchanged, rows sum to
#   1), and repetition (validating twice gives the same score).
# * A single rain, few branches and branches of equal width hide mistakes. Test with several rains and with unequal
#   widths.
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
