# %% tags=["parameters"]
# The five that matter: name what you change, change it, and give each seed its run
arm = "full"  # a name for this combination of settings
settings = []  # what this arm changes, as a list of texts: see "This run" below
search_seed = 0  # the unit of replication: weights, logits and batches of the search
search_steps = 150  # steps of a search, warm-up included
retrain_steps = 600  # steps of a retraining
# Where it runs
data = "photos"  # "photos" (bundled), a set's name, a folder, or the web address of an archive
runs_dir = "runs"  # runs: in the clone; on Colab on your Drive; else in ~/manas_lite
final = False  # True opens the test set: once, when the arms are chosen
# All below may stay as it is. The study
retrain_seed = 0  # nested in search_seed: initial weights and batches of the retraining
architecture = "searched"  # searched, random or hand_made
loss_phase = "both"  # where the losses below count: search, retrain or both
fusion = True  # False: every module is made parallel after the search
size = "teach"  # sizes and remaining settings: smoke, teach, lite or paper
warmup_epochs = 1  # epochs (of five) before the first architecture step
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

# %% tags=["imports"]
import numpy as np

from manas_lite import draw, open_split
from manas_course import ablation, checks, diagrams, differences, illustrations as pictures
from manas_course.chance import MARGIN, SEARCH_DEVIATION, Chance
from manas_lite.networks.genotype import Genotype

# %% [markdown]
# ## The question, before the answer
#
# slides: Leave one part out: what was it worth?
# slides: How far apart do two runs of the *same* thing lie?
#
# An **ablation** leaves one part of a method out and asks what it was worth. Each such version is an **arm**. The usual table
# has one number a row, and prints the larger one bold. This notebook asks first: *how far apart do two runs of the same arm
# lie?* For if they lie further apart than two arms do, the bold number may be luck.
#
# A trial with small networks found a standard deviation of 0.5 to 0.65 dB between runs that differ in nothing but the seed of
# the search. A *difference* of two arms holds two such runs, so it varies by $\sqrt2$ times as much, about 0.8 dB (less where a
# common seed makes the two runs alike). Many published tables report differences smaller than that, from one run each. This
# notebook plans with 0.55 dB. The runs below show how far they really lie apart.
#
# > **Predict.** How many searches would you need to see a difference of 0.3 dB?
#
# <details><summary>Answer: write yours down first, then click</summary>
#
# Some fifty for each arm. Most people say five. Exercise 3 derives the number.
#
# </details>

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
# **What you should see.** With two searches an arm, only differences of many dB are found. For 0.3 dB some fifty are needed.
# The curves show the **power** of a study: how often it finds a difference that is really there. Read them at the height of
# 0.8, that is 4 times in 5: three searches reach it at about 2.5 dB, ten at about 0.8 dB. All four studies mostly miss a
# difference of 0.3 dB, and a study that has missed it has not shown that there is none. Whoever compares twelve arms at once
# must ask more of each: the right column of the table is for the arm with the smallest p, whose test is the strictest (Holm's
# correction, explained below).
#
# ## This run: one arm
#
# slides: Change settings by parameters alone
# slides: Give each change a name: its **arm**
#
# Five parameters matter: a name for the arm, what it changes, the seed, and how long to train. To leave the internal loss
# out, write `arm = "no_internal"` and `settings = ["internal_weight=0.0"]`, and run the notebook for each seed that `full`
# has. `settings` takes every setting of a search, a retraining or a loss, by the name that it has in Python and after
# `--set`, such as `["rains=2", "fresh_rain=light,heavy"]`. The usual ones also have a line of their own among the parameters;
# you may change that line instead. On the command line it is `python -m tools.course run 06 -p arm=two_rains -p rains=2`. Always give a
# changed run a new name in `arm`, for runs are compared by arm and seed. What this run changes in the full method:

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
# the rainy input. If you run the notebook again with the same parameters, nothing is computed twice: the result is read from
# disk. Arms that differ only in the retraining share one search.
#
# Many runs are one command; a job array or several Colabs take a shard each:
#
# ```
# python -m tools.course sweep arms.yaml --dry-run          # what will it cost?
# python -m tools.course sweep arms.yaml --out runs/arms
# python -m tools.course sweep arms.yaml --out runs/arms --shard 1/4
# ```
#
# `arms.yaml` (in `notebooks/sweeps`) names thirteen arms. When they are done, set `runs_dir` to the folder `runs/arms/runs` and
# run this notebook again: it reads them all. On Colab begin with `!pip install 'manas_lite[course]'`, write `!` before each
# command, let `--out` be a folder of your Drive, and let `runs_dir` be the folder `runs` in it.
#
# **Stop here if short of time.**
#
# ## All arms so far
#
# slides: Only runs of one size, budget and pictures compare
#
# Results lie in files. Those of one size, one budget and the same pictures can be compared. As long as you have fewer than
# two arms of your own, the ones that come with the package are shown. They were trained for a shorter time than this
# notebook does (`scripts/ablations.py` makes them), and serve to learn how such a table is *read*.

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
# **What you should see.** Runs of *one* arm differ, too. Compare the last line with the gaps between the arms' means. The means
# alone would already make a table with bold numbers. The last line may be smaller than the 0.55 dB that we planned with: a
# few short runs may lie close together by chance, or because little was trained. Plan with the larger of the two.
#
# ## What the differences are worth
#
# slides: Pair: same seeds, same pictures
# slides: Two kinds of chance: searches and pictures
# slides: An interval, and what could have been seen
#
# Every arm is compared with `full` on the same seeds and the same pictures (**paired**). A difference between two means
# then still depends on chance, and on chance of **two kinds**:
#
# * **Which searches** were run. Another seed finds another network. A hundred pictures of one network are still one run.
# * **Which pictures** were scored. Another picture may suit one of the two arms better. If ten networks agree on twelve
#   pictures, that says nothing about the thirteenth picture.
#
# More values of one kind do not help against the other kind. So each kind has a *t* test of its own: one over the means of
# the searches, one over the means of the pictures. A *t* test allows for how few values there are. Three searches that all
# prefer the same arm decide nothing: even without any effect this happens once in four times. The two errors, $e_s$ of the
# searches and $e_p$ of the pictures, are independent, and so they add like the sides of a right angle:
#
# $$\text{half the interval} = \sqrt{(t_s\, e_s)^2 + (t_p\, e_p)^2}$$
#
# Here $t_s$ and $t_p$ are the quantiles of the two *t* tests. p is the level at which the interval just reaches zero. The
# interval is never too narrow. Where both kinds count alike it is somewhat wider than it would have to be.
#
# Twelve arms are twelve chances to be wrong. So the p values are corrected for their number, by **Holm**'s rule (exercise 2).
# The interval is each arm's own and is not corrected.
#
# The verdict has four words:
#
# * *better* or *worse*: the corrected p is at most 0.05.
# * *equivalent*: two one-sided tests show that the difference is smaller than a margin, one that you call too small to
#   matter. A large p alone does not show that. It may only say that little was measured.
# * *undecided*: none of these. The column *detectable* says which difference this many searches and pictures, spread like
#   these, would find 4 times in 5 at Holm's strictest step (5 % divided by the number of arms).

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
# **What you should see.** Each arm has a dot and an interval, and behind them a grey band as wide as *detectable*. True
# differences inside the band are mostly missed. A band that is wider than the picture ends in an arrow, with its size beside
# it. *Undecided* with a wide band does not mean "no effect". It says how far this study is from an answer. Some intervals
# leave zero out while their arm is *undecided*: that would be enough if this were the only arm, and is not enough for the
# smallest p of many. Among the shipped runs, look at `no_pixel`: its searches agree to a tenth of a dB and its twelve
# pictures do not. Only the second kind of chance shows that.
#
# Two arms change more than their names say. `random` draws networks that are larger than those of a search that pays for
# cost (compare the parameters beside the names). `one_to_one` has no internal loss either: a single rain has nothing to agree
# with.

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
# There is another way to an interval, the **bootstrap**, which exercise 1 asks for. It draws again what was drawn by
# chance, in the same order: first searches, then pictures within each of them.

# %%
diagrams.nested_bootstrap()

# %% [markdown]
# ## The architecture of this run
#
# slides: What this arm's search chose

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
# **1. An interval that is honest.** `differences` holds one row per search and one column per picture. Return the 2.5 % and
# 97.5 % quantiles of some hundred resampled means. (This is the **bootstrap**, another way to an interval. The checker
# simulates studies whose true mean it knows. It is content when four intervals in five hold that mean: with few searches a
# bootstrap falls short of 95 %, and for this reason the table above uses *t* tests. This is the small project of this
# notebook.)
#
# *Why it matters.* Intervals that count every picture as a run are the usual ones, and are several times too narrow.


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
# **2. Holm's correction.** Sort the n p values. Compare the smallest with level/n, the next with level/(n − 1), and so on to
# the last, which is compared with the level itself. A p value holds where it is no larger than its limit. Stop at the first
# one that fails: it and all after it do not hold.
#
# *Why it matters.* Of twelve arms that do nothing, at least one is "significant" at 5 % in nearly every second study.


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
# **3. How many searches?** Runs of one arm differ by a standard deviation of `deviation` dB. How many searches does each arm
# need, so that 4 studies in 5 find a true difference of `difference` dB? Take 1.96 + 0.84 = 2.8 for the two quantiles, as for
# many searches: the mean of n differences must lie 2.8 of its standard errors from zero. (One line, and a rounding.)
#
# *Why it matters.* It is the sum to do before a study. For 0.3 dB it asks for more searches than most articles ever
# ran.


# %% tags=["exercise", "exercise:searches_needed"]
def my_searches(deviation, difference):
    """Both in dB -> the searches of each arm, a whole number."""
    # BEGIN SOLUTION
    per_pair = np.sqrt(2) * deviation  # of the difference of two runs
    return int(np.ceil((2.8 * per_pair / difference) ** 2))
    # END SOLUTION


# %% tags=["check", "check:searches_needed"]
checks.searches_needed(my_searches)

# %% [markdown]
# ## What this shows, and what it does not
#
# slides: *Undecided* is not *useless*: these runs could not see it
# slides: A verdict holds for this size, data and budget
#
# It shows how to ask, and what an answer costs. Arms are chosen on **validation** scenes; `final = True` opens the test set,
# once. An undecided arm is not a useless part: these runs could not see its worth. A decided arm is decided for this size,
# these pictures and this budget.
#
# ## Summary
#
# * Searches and pictures are two kinds of chance, and neither stands for the other. Compare on the same seeds and pictures,
#   test both kinds, correct for the number of arms, and say which difference you could have found.
# * *Equivalent* has to be shown. *Undecided* is not *equivalent*.
#
# **Next**: 07 pitfalls. **Or try** `arm = "no_internal"` and `settings = ["internal_weight=0.0"]`, with the seeds that
# `full` has.
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
