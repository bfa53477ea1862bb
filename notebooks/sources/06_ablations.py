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
# An **ablation** leaves one part of a method out and asks what that part was worth. Each such version of the method
# is an **arm**. The arm in which nothing is left out is called `full`. The usual table has one number for each arm,
# and the largest number is printed bold. This notebook asks another question first: *how far apart do two runs of the
# same arm lie?* If they lie as far apart as two arms do, the bold number may be luck.
#
# A **run** is one search and the retraining of the network that it found. A trial with small networks found a
# standard deviation of 0.5 to 0.65 dB between runs that differ only in the seed of the search. A *difference* of two
# arms compares two runs, so its standard deviation is $\sqrt2$ times as large: about 0.8 dB. (It is smaller where a
# common seed makes the two runs alike.) Many published tables report smaller differences than that, from one run per
# arm. This notebook plans with a standard deviation of 0.55 dB. The runs below show how far apart runs really lie.
#
# > **Predict.** The true difference of two arms is 0.3 dB. How many searches does each arm need, so that 4 studies in
# > 5 find this difference?
#
# <details><summary>Answer: write yours down first, then click</summary>
#
# About fifty for each arm. Most people say five. Exercise 3 derives the number.
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
# **What you should see.** With two searches per arm, a study finds only differences of many dB. To find 0.3 dB it
# needs about fifty searches per arm. The curves show the **power** of a study: how often it finds a difference that
# is really there. Look where each curve reaches the height 0.8, that is 4 times in 5: three searches reach it at
# about 2.5 dB, ten at about 0.8 dB. All four studies mostly miss a difference of 0.3 dB. A study that has missed a
# difference has not shown that there is none.
#
# The right column of the table is for studies that compare twelve arms at once. With twelve comparisons, chance has
# twelve opportunities to produce a difference. So each arm has to pass a stricter test than one arm alone. The column
# shows the strictest of these tests, the one for the arm with the smallest p value (Holm's correction, explained
# below).
#
# ## This run: one arm
#
# slides: Change settings by parameters alone
# slides: Give each change a name: its **arm**
#
# Five parameters matter: a name for the arm, what it changes, the seed, and the steps of the search and of the
# retraining. To leave the internal loss out (the agreement between the rains of one scene), write
# `arm = "no_internal"` and `settings = ["internal_weight=0.0"]`. Then run the notebook once for each seed that `full`
# has been run with. `settings` takes every setting of a search, a retraining or a loss, by the name that it has in
# Python and after `--set`, such as `["rains=2", "fresh_rain=light,heavy"]`. The usual settings also have a line of
# their own among the parameters, and you may change that line instead. On the command line, a run with two rains per
# scene is `python -m tools.course run 06 -p arm=two_rains -p rains=2`. Always give a changed run a new name in `arm`,
# because runs are compared by arm and seed. The next cell prints what this run changes in the full method:

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
# A sweep starts many runs with one command. To share the work among several machines (the tasks of a job array, or
# several Colabs), give each of them one part, called a shard: `1/4`, `2/4` and so on.
#
# ```
# python -m tools.course sweep arms.yaml --dry-run          # what will it cost?
# python -m tools.course sweep arms.yaml --out runs/arms
# python -m tools.course sweep arms.yaml --out runs/arms --shard 1/4
# ```
#
# `arms.yaml` (in `notebooks/sweeps`) names thirteen arms: `full` and twelve others. When all their runs are done, set
# `runs_dir` to the folder `runs/arms/runs` and run this notebook again: it reads them all. On Colab, first run
# `!pip install 'manas_lite[course]'` and write `!` before each command. Let `--out` be a folder of your Drive, and
# let `runs_dir` be the folder `runs` in it.
#
# **Stop here if short of time.**
#
# ## All arms so far
#
# slides: Only runs of one size, budget and pictures compare
#
# Each finished run has left a file with its result. Only runs of the same size, with the same numbers of steps and on
# the same pictures can be compared, and the next cell picks those. If you do not yet have at least two such arms,
# `full` among them, the cell shows the runs that come with the package. Those were trained for a shorter time than
# the runs of this notebook (`scripts/ablations.py` makes them). They are there so that you can learn how to *read*
# such a table.

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
# **What you should see.** Runs of *one* arm differ, too. Compare the last line with the gaps between the means of the
# arms. The means alone would be enough for a table with bold numbers, but only the last line tells how large a gap
# may be by chance. The last line may be smaller than the 0.55 dB that we planned with: a few short runs may lie close
# together by chance, or because they were trained so little. Plan with the larger of the two numbers.
#
# ## What the differences are worth
#
# slides: Pair: same seeds, same pictures
# slides: Two kinds of chance: searches and pictures
# slides: An interval, and what could have been seen
#
# Every arm is compared with `full` on the same seeds and the same pictures: the comparison is **paired**. A mean
# difference still depends on chance, and on **two kinds** of chance:
#
# * **Which searches** were run. Another seed finds another network. A hundred pictures that are derained by one
#   network are still one run.
# * **Which pictures** were scored. Another picture may suit one of the two arms better. If ten networks agree on
#   twelve pictures, that says nothing about the thirteenth picture.
#
# More pictures do not reduce the chance that lies in the searches, and more searches do not reduce the chance that
# lies in the pictures. So each kind has a *t* test of its own: one test uses the mean difference of each search, the
# other the mean difference of each picture. A *t* test takes into account how few values there are. For example,
# three searches that all prefer the same arm decide nothing: even without any effect, this happens once in four times
# ($2 \cdot 0.5^3$). Each test has a standard error of the mean difference: $e_s$ for the searches and $e_p$ for the
# pictures. The two errors count as independent, so they add like the two short sides of a right triangle:
#
# $$\text{half the interval} = \sqrt{(t_s\, e_s)^2 + (t_p\, e_p)^2}$$
#
# Here $t_s$ and $t_p$ are the quantiles of Student's *t* distribution that belong to the two tests. (Some noise is
# contained in both errors. The code counts it only once: `manas_course/chance.py` has the exact formula.) The p value
# comes from the same interval: p = 0.05 means that the 95 % interval just touches zero, and p = 0.01 that the 99 %
# interval does. The interval is never too narrow. Where both kinds of chance are about equally large, it is somewhat
# wider than it would have to be.
#
# With twelve arms there are twelve opportunities to be wrong. So the p values are corrected for the number of arms,
# by **Holm**'s rule (exercise 2). The intervals are not corrected: each one is printed as if its arm were the only
# one.
#
# A comparison ends in one of four verdicts:
#
# * *better* or *worse*: the corrected p is at most 0.05.
# * *equivalent*: the difference is shown to be smaller than a margin. The margin is a difference that you call too
#   small to matter, and two one-sided tests show this. A large p alone does not show it: p is also large where little
#   was measured.
# * *undecided*: none of these. Then look at the column *detectable*. It is the difference that a study like this one
#   would find 4 times in 5: with as many searches and pictures, which vary as much as these do, and with the
#   strictest test of Holm's rule (5 % divided by the number of arms).

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
# **What you should see.** Each arm has a dot, an interval, and behind them a grey band as wide as *detectable*. This
# study mostly misses true differences that lie inside the band. A band that is wider than the picture ends in an
# arrow, with its size beside it. *Undecided* with a wide band does not mean "no effect". It shows how far this study
# is from an answer. There are intervals that do not contain zero although the verdict is *undecided*. Such an
# interval would decide the question if this were the only arm. It does not, because the corrected p is too large when
# twelve arms are compared. Among the shipped runs, look at `no_pixel`: its three searches agree to about a tenth of a
# dB, but the differences of its twelve pictures lie far apart. Only the second kind of chance, the pictures, shows
# that.
#
# Two arms change more than their names say. `random` draws architectures at random. The networks are larger than
# those of a search, because a search pays for parameters (compare the parameters beside the names). `one_to_one`
# trains with each rainy picture on its own. It therefore has no internal loss either: a single rain has nothing that
# it could agree with.
#
# A report needs the table and the figure as files. The next cell writes them, and prints how the table begins in LaTeX:

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
# There is another way to an interval, the **bootstrap**, and exercise 1 asks for it. It imitates chance. From the
# searches that were run, it draws the same number again, *with repetition*, so that some searches come twice and
# others not at all. Then it draws pictures in the same way, and takes the mean. A few hundred such means show how
# far the mean could have moved. In the drawing, pictures are drawn anew for each search:

# %%
diagrams.nested_bootstrap()

# %% [markdown]
# ## The architecture of this run
#
# slides: What this arm's search chose
#
# Which network stands behind the number of this run? Another search seed would have derived another one:

# %%
trained = map(Genotype.load, (where / "ablation").glob(f"{arm}-*/genotype.json"))
draw.architecture(next(genotype for genotype in trained if genotype.id == result["genotype"]))

# %% [markdown]
# The next cell checks that the statistics compute what they should. It uses made-up differences whose true mean, 1.0
# dB, is known:

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
# **1. An interval that is honest.** `differences` holds one row per search and one column per picture. Resample them
# as described above: draw searches with repetition, draw pictures with repetition, take the mean of all drawn values,
# and repeat this a few hundred times. Return the 2.5 % and the 97.5 % quantile of these means. You may draw the
# pictures for each search anew, as in the drawing, or once for all searches, as the answer below does. The checker
# accepts both. It simulates studies whose true mean it knows, and asks that at least four intervals in five contain
# this mean. It does not ask for 95 %, because a bootstrap of a few searches falls short of that. This is also why the
# table above uses *t* tests. (This is the small project of this notebook.)
#
# *Why it matters.* Most intervals that one sees count every picture as a run of its own. Such intervals are several
# times too narrow.


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
# **2. Holm's correction.** There are n p values. Sort them from small to large. Compare the smallest one with
# level/n, the next one with level/(n − 1), and so on. The largest one is compared with the level itself. A p value
# that is not larger than its limit is significant. Stop at the first p value that is larger than its limit: neither
# this one nor any after it is significant. Return `True` (significant) or `False` for each p value, in the order in
# which they were given.
#
# *Why it matters.* Suppose that twelve arms change nothing at all. Without the correction, at least one of them is
# "significant" at 5 % in nearly every second study: $1 - 0.95^{12} = 0.46$.


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
# **3. How many searches?** Runs of one arm have a standard deviation of `deviation` dB. The true difference of two
# arms is `difference` dB. How many searches does each arm need, so that 4 studies in 5 find it? With many searches
# the quantiles are those of the normal distribution: 1.96 for a test at 5 %, and 0.84 for "4 times in 5". Together
# this asks that the true difference is 1.96 + 0.84 = 2.8 standard errors of the mean of n differences. (One line,
# rounded up. Remember that each difference holds two runs.)
#
# *Why it matters.* Do this calculation before a study. For 0.3 dB it asks for more searches than most articles ever
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
# This notebook shows how to ask what a part is worth, and what an answer costs. Arms are chosen on **validation**
# scenes. Only when they are chosen, `final = True` opens the test set, and this should be done once. If an arm is
# undecided, its part is not shown to be useless: these runs could not see what it is worth. If an arm is decided, the
# verdict holds for this size, these pictures and this number of steps.
#
# ## Summary
#
# * Searches and pictures are two kinds of chance, and neither can replace the other. Compare on the same seeds and
#   pictures, test both kinds, correct for the number of arms, and say which difference you could have found.
# * *Equivalent* has to be shown. *Undecided* does not mean *equivalent*.
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
