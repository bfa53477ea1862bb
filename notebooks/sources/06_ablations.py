# %% tags=["parameters"]
# The study
arm = "full"  # a name for this combination of settings
search_seed = 0  # the unit of replication: weights, logits and batches of the search
retrain_seed = 0  # nested in it: initial weights and batches of the retraining
architecture = "searched"  # searched, random or hand_made
loss_phase = "both"  # where the losses below count: search, retrain or both
fusion = True  # False: every module is made parallel after the search
size = "teach"  # sizes and remaining settings: smoke, teach, lite or paper
search_steps = 150  # steps of a search, warm-up included
warmup_epochs = 1  # epochs (of five) before the first architecture step
retrain_steps = 600  # steps of a retraining
# The losses
external = "l1+ssim"  # distance to the clean picture: l1, mse, charbonnier, ssim, joined by +
external_ssim = 0.3  # weight of ssim beside the pixel distance
tv = 1e-4  # weight of the total variation
internal_weight = 0.1  # weight of the agreement between the rains of a scene
internal_from = 1  # first epoch of the internal loss, from 0
internal_ssim = False  # also 1 - SSIM between the rains of a scene
alpha_entropy_weight = 0.01  # pushes module weights to 0 or 1; this and the next 3: search only
beta_entropy_weight = 0.01  # pushes edge weights to 0 or 1
complexity_weight = 0.01  # lambda: what expected cost is worth
complexity_unit = "parameters"  # what expected cost counts: parameters or flops
# The training
multi_to_one = True  # all rains of a scene together; False: every rainy picture on its own
order = "first"  # hypergradient: first, finite-difference or exact
# The network
attention = True  # False: no attention blocks
residual = True  # the network predicts the rain; False: the clean picture
norm = "none"  # normalisation: none, batch or group
stem = "unshuffle"  # unshuffle (half resolution) or bottleneck (full)
# Everything else
settings = []  # every other setting, as a text that one writes after --set: see "This run" below
data = "photos"  # "photos" (bundled), a set's name, a folder, or the web address of an archive
runs_dir = "runs"  # runs: in the clone; on Colab on your Drive; else in ~/manas_lite
final = False  # True opens the test set: once, when the arms are chosen

# %% tags=["imports"]
import numpy as np

from manas_lite import draw, open_split
from manas_course import ablation, checks, differences, illustrations as pictures
from manas_course.chance import MARGIN, SEARCH_DEVIATION, Chance
from manas_lite.networks.genotype import Genotype

# %% [markdown]
# ## The question, before the answer
#
# An **ablation** leaves one part out and asks what it was worth. The usual table has one number a row and prints the
# larger one bold. This notebook asks first: *how far apart do two runs of the same thing lie?*
#
# A probe with small networks found a standard deviation of 0.5 to 0.65 dB **between search seeds**. A *difference* of two
# arms holds two such runs: unless a common seed makes them more alike, it varies √2 as much, about 0.8 dB. Many tables
# report differences smaller than that, from one run each. To plan with 0.55 dB is cautious; the runs below say how far
# they really lie apart.
#
# > **Predict.** How many searches would you need to see a difference of 0.3 dB?

# %%
print("smallest difference that is found 4 times in 5")
print("searches   one arm against full   the strictest of twelve arms")
for n in (2, 3, 5, 10, 20, 50):
    plan = Chance.planned(n)  # runs of one arm SEARCH_DEVIATION apart
    print(f"{n:>8}   {plan.detectable(1):>17.2f} dB   {plan.detectable(12):>25.2f} dB")

# %%
sizes = np.linspace(0.05, 4, 80)
power = {
    f"{n} searches": (sizes, [Chance.planned(n).power(size) for size in sizes])
    for n in (3, 5, 10, 20)
}
title = f"power: one arm against full, runs {SEARCH_DEVIATION} dB apart"
pictures.profile(power, x="true difference, dB", y="how often it is found", title=title)

# %% [markdown]
# **What you should see.** Two searches show nothing short of many dB; 0.3 dB needs some fifty. The curves are the
# **power** of a study: how often it finds a difference that is really there. Read them at 0.8, *4 times in 5*: three
# searches reach it at about 2.5 dB, ten at about 0.8 dB. A difference of 0.3 dB is mostly missed by all of them, and a
# study that misses it has not shown that it is not there. Whoever compares twelve arms at once asks more of each: the
# right column of the table is for the arm with the smallest p, whose test is the strictest (*Holm*, below).
#
# ## This run: one arm
#
# The parameters above have the names that settings have everywhere: in Python, after `--set`, and here. A setting
# without a line of its own goes into the list `settings`, such as `["rains=2", "fresh_rain=light,heavy"]`. The command
# line and sweep files put it there by themselves: `python -m tools.course run 06 -p arm=two_rains -p rains=2`. Whoever
# changes a setting gives the run another name in `arm`: runs are compared by arm and seeds. What differs from the full
# method:

# %%
known = ablation.names()
this = ablation.Arm.of({name: value for name, value in globals().items() if name in known})
changed = {k: v for k, v in this.changes().items() if not k.endswith("_seed")}
print(
    f"search seed {search_seed}, retrain seed {retrain_seed}; changed: {changed or 'nothing'}"
)

# %%
split = open_split(course.local(data))
assert not {s.name for s in split.val} & {s.name for s in split.train}
where = course.runs_folder(runs_dir)
result = ablation.run_arm(this, split, runs_dir=where, final=final, progress=True)
scored = np.mean(list(result["images"].values()))
rainy = np.mean(list(result["rainy"].values()))
print(
    f"{len(result['images'])} {result['part']} pictures: rainy {rainy:.2f} dB, derained {scored:.2f} dB (RGB)"
)

# %% [markdown]
# **What you should see.** The progress of a search and a retraining (some minutes at `teach` size), then one number above
# the rainy input. Run again with the same parameters: nothing is computed twice, and arms that differ only in the
# retraining share their search.
#
# Many runs are one command; a job array or several Colabs take a shard each:
#
# ```
# python -m tools.course sweep arms.yaml --dry-run          # what will it cost?
# python -m tools.course sweep arms.yaml --out runs/arms
# python -m tools.course sweep arms.yaml --out runs/arms --shard 1/4
# ```
#
# `arms.yaml` (in `notebooks/sweeps`) names thirteen arms. Then set `runs_dir` to the folder `runs/arms/runs` and run this
# notebook again: it reads them all. On Colab begin with `!pip install 'manas_lite[course]'`, write `!` before each command,
# and let `--out` be a folder of your Drive, `runs_dir` the folder `runs` in it. **Stop here if short of time.**
#
# ## All arms so far
#
# Results lie in files; those of one size, one budget and the same pictures can be compared. With fewer than two arms of
# your own, those that come with the package are shown, of shorter trainings than this notebook's
# (`scripts/ablations.py` makes them). They serve to *read* such a table.

# %%
mine = ablation.comparable(ablation.results(where, result["part"]), like=result)
arms = {r["arm"] for r in mine}
usable = len(arms) > 1 and "full" in arms
shipped = course.shipped("ablation") / "results.json"
found = mine if usable else ablation.read_results(shipped)
origin = "your runs" if usable else "shipped with the package"
done = found[0]["settings"]
budget = f"{done['search_steps']} search and {done['retrain_steps']} training steps"
seeds = len({r["search_seed"] for r in found})
print(f"{len(found)} runs of {len({r['arm'] for r in found})} arms, {origin}:")
print(f"size {done['size']}, {seeds} search seeds, {budget}")

# %%
by_arm = {}
for r in found:
    by_arm.setdefault(r["arm"], []).append(float(np.mean(list(r["images"].values()))))
print(f"{'rainy input':<14} {np.mean(list(found[0]['rainy'].values())):6.2f} dB")
for name, values in by_arm.items():
    shown = "  ".join(f"{v:.2f}" for v in values)
    print(f"{name:<14} {np.mean(values):6.2f} dB   each run: {shown}")
spreads = [np.var(values, ddof=1) for values in by_arm.values() if len(values) > 1]
pooled = np.sqrt(np.mean(spreads)) if spreads else np.nan
print(f"standard deviation of the runs of one arm, pooled over arms: {pooled:.2f} dB")

# %% [markdown]
# **What you should see.** Runs of *one* arm differ, too: hold the last line against the gaps between arms. The means alone
# would already make a table with bold numbers. Against the 0.55 dB of the plan: a few short runs may lie closer together,
# by chance or because little was trained. Plan with the larger of the two.
#
# ## What the differences are worth
#
# Every arm is compared with `full` on the same seeds and the same pictures (**paired**). A difference between two means
# then still depends on chance, and on chance of **two kinds**:
#
# * **which searches** were run. Another seed finds another network. A hundred pictures of one network are one run.
# * **which pictures** were scored. Another picture may suit one of the two arms better. Ten networks that agree on twelve
#   pictures say nothing about the thirteenth.
#
# More of one kind does not help against the other. So each kind has a *t* test of its own: one over the means of the
# searches, one over the means of the pictures. A *t* test allows for how few values it has: three searches of one sign,
# one chance in four, decide nothing. The errors of the two are joined into one interval, like the sides of a right angle,
# and p is the chance at which that interval just reaches zero. The interval is never too narrow; where both kinds count
# alike, it is somewhat wider than 95 % would need.
#
# Twelve arms are twelve chances to be wrong: p is corrected for their number (**Holm**). The interval is each arm's own.
#
# * *better*, *worse*: p at most 0.05.
# * *equivalent*: shown to differ by less than a margin that you call too small to matter, by two one-sided tests. A large
#   p alone does not show that: it may say that little was measured.
# * *undecided*: neither. *detectable* is the difference that this many searches and pictures, spread like these, find 4
#   times in 5 at Holm's strictest step, 5 % divided by the number of arms.

# %%
rows = differences.compare(found, margin=MARGIN)
print(
    f"{'arm':<14}{'n':>3}{'dB':>8}   {'95 % interval':<18}{'p (Holm)':>9}{'detectable':>12}  verdict"
)
for row in rows:
    interval = f"[{row['low']:+.2f}, {row['high']:+.2f}]"
    print(
        f"{row['arm']:<14}{row['searches']:>3}{row['mean']:>+8.2f}   {interval:<18}"
        f"{row['p']:>9.3f}{row['detectable']:>12.2f}  {row['verdict']}"
    )
print(f"equivalent: less than {MARGIN} dB apart; {rows[0]['pictures']} pictures")

# %%
forest = pictures.forest(
    rows, title=f"{origin}; {seeds} searches an arm; PSNR (RGB), {found[0]['part']}"
)
draw.save(forest, where / "ablation" / "forest.png", also=("pdf",))
forest

# %% [markdown]
# **What you should see.** A dot and an interval an arm, and a grey band as wide as *detectable* (it may fill the picture):
# true differences inside it are mostly missed, where they have to pass the strictest test. *Undecided* with a wide band
# does not mean "no effect"; it says what a real study would cost. An interval that leaves zero out while its arm is
# *undecided* would be enough for one arm alone, but is not for the smallest p of so many. Among the shipped runs, look
# at `no_pixel`: its searches agree to a tenth of a dB, its twelve pictures do not, and only the second kind of chance
# says so.
#
# Two arms change more than their names say. `random` draws networks larger than a search under λ does (compare the
# parameters beside the names), and `one_to_one` has no internal loss either: one rain has nothing to agree with.

# %%
about = f"{data if usable else 'photos'}, {len(found[0]['images'])} {found[0]['part']} pictures"
caption = f"Ablation: {about}, PSNR (RGB), n = {seeds} searches, size {done['size']}, {budget}"
runs_csv, images_csv = ablation.write_tables(found, where / "ablation")
(where / "ablation" / "table.tex").write_text(
    differences.latex(rows, caption), encoding="utf-8"
)
print(differences.latex(rows, caption)[:160], "...")
print(f"also: {runs_csv.name}, {images_csv.name}, forest.png, forest.pdf")

# %% [markdown]
# ## The architecture of this run

# %%
trained = map(Genotype.load, (where / "ablation").glob(f"{arm}-*/genotype.json"))
draw.architecture(next(genotype for genotype in trained if genotype.id == result["genotype"]))

# %% [markdown]
# A check that the statistics compute what they say, on made-up differences of known size:

# %%
# NBVAL_CHECK_OUTPUT
made_up = np.random.default_rng(0).normal(1.0, 0.1, (8, 2, 10))
low, high = differences.interval(made_up)
p = differences.paired_p(made_up)
print(f"interval holds 1.0: {low < 1.0 < high}; p < 0.01: {p < 0.01}")
print("Holm:", [round(x, 3) for x in differences.holm_adjusted([0.01, 0.04, 0.03])])

# %% [markdown]
# ## Exercises
#
# **1. An interval that is honest.** `differences` holds one row a search and one column a picture. Return the 2.5 % and
# 97.5 % quantiles of some hundred resampled means. (This is the **bootstrap**, another way to an interval. The checker
# simulates studies whose true mean it knows, and is content when four intervals in five hold it: with few searches a
# bootstrap falls short of 95 %, which is why the table above asks *t* tests.)


# %% tags=["exercise", "exercise:nested_bootstrap"]
def my_interval(differences, rng):
    """differences (searches, images) in dB; rng: numpy Generator -> (low, high)."""
    # BEGIN SOLUTION
    searches, images = differences.shape
    means = []
    for _ in range(300):
        rows = rng.integers(searches, size=searches)
        columns = rng.integers(images, size=images)
        means.append(differences[np.ix_(rows, columns)].mean())
    return tuple(np.quantile(means, [0.025, 0.975]))
    # END SOLUTION


# %% tags=["check", "check:nested_bootstrap"]
checks.nested_bootstrap(my_interval)

# %% [markdown]
# **2. Holm's correction.** Of n p values, the smallest is compared with level/n, the next with level/(n − 1), …. One holds
# where it is no larger; stop at the first that fails.


# %% tags=["exercise", "exercise:holm"]
def my_holm(p, level):
    """p: list of p values -> list of bool, in the same order."""
    # BEGIN SOLUTION
    significant = [False] * len(p)
    for rank, k in enumerate(sorted(range(len(p)), key=lambda k: p[k])):
        if p[k] > level / (len(p) - rank):
            break
        significant[k] = True
    return significant
    # END SOLUTION


# %% tags=["check", "check:holm"]
checks.holm(my_holm)

# %% [markdown]
# ## What this shows, and what it does not
#
# How to ask, and what an answer costs. Arms are chosen on **validation** scenes; `final = True` opens the test set, once.
# An undecided arm is not a useless part: these runs could not see it. A decided one holds for this size, this data and
# this budget.
#
# ## Summary
#
# * Searches and pictures are two kinds of chance, and neither stands for the other. Pair, ask both, correct, and state
#   what n could detect.
# * *Equivalent* has to be shown; *undecided* is not *equivalent*.
#
# **Next**: 07 pitfalls. **Or try** `arm = "no_internal"`, `internal_weight = 0.0` with the seeds
# that `full` has.
#
# **References.** M. Lindauer, F. Hutter, *Best practices for scientific research on NAS*, JMLR 2020, arXiv 1909.02453 ·
# X. Bouthillier et al., *Accounting for variance in machine learning benchmarks*, MLSys 2021, arXiv 2103.03098 · S. Holm,
# *A simple sequentially rejective multiple test procedure*, 1979 · D. Barr et al., *Random effects structure for
# confirmatory hypothesis testing*, JML 2013 · A. Owen, *The pigeonhole bootstrap*, Annals of Applied Statistics 2007.

# %% tags=["record"]
course.record_results(
    steps=this.search_steps + this.retrain_steps,
    arm=arm,
    psnr_rgb=float(scored),
    gain=float(scored - rainy),
    parameters=result["parameters"],
    genotype=result["genotype"],
)
