# %% tags=["parameters"]
table = ""  # folder of a table like the package's own; empty: the one that the package brings
seed = 0  # first seed of the replayed searches
repeats = 200  # times that random search and evolution are replayed
trainings = 64  # trainings that each may pay for: 12 (a gradient search costs less) to 128
population = 10  # members of the evolution
sample = 3  # how many of them compete to be the next parent
final = False  # True opens the test column: once, when nothing is chosen any more

# %% tags=["imports"]
import numpy as np
from scipy import stats

from manas_course import micro_bench
from manas_course.micro_bench import figures
from manas_course import widgets
from manas_course import checks
from manas_lite.data import LeakError

# %% [markdown]
# ## What would chance have found?
#
# A search hands over an architecture, the architecture is trained, the result is good. Did the *search* help? Nobody can
# say who has not asked what a **random** architecture gives after the same training, and what one finds by drawing a
# few at random and keeping the best. In several spaces studied in "NAS evaluation is frustratingly hard" that was nearly
# all there was to find.
#
# The question is dear: every answer costs many trainings. So they were all done beforehand, in a space small enough to
# train *whole*: four modules, parallel or fusion, and one of eight gates, the same on all edges. 2⁴ · 8 = 128
# architectures, each trained alike, with several seeds. Searching is now looking up, and takes seconds.
#
# > **Predict.** How many of the 128 must you train until the best of them is, on average, among the best ten of all?

# %%
bench = micro_bench.load(table or None)
facts, trained = bench.manifest, bench.scores("val_psnr")
print(f"{len(bench.architectures)} architectures, each trained with seeds {list(bench.seeds)}")
recipe = {k: v for k, v in facts.get("recipe", {}).items() if k in ("steps", "batch", "patch")}
print(f"each alike: {recipe} on {facts.get('data')}, {facts.get('date')}")
print(f"{bench.scores('seconds').sum() / 3600:.1f} CPU hours of training in all")
rainy = facts.get("rainy_val", {}).get("psnr_rgb", np.nan)
print(f"PSNR (RGB), validation: rainy {rainy:.2f} dB,", end=" ")
print(f"derained {trained.min():.2f} to {trained.max():.2f} dB")
if bench.incomplete:
    print(f"not whole yet and left out (seed: architectures): {bench.incomplete}")
assert np.isfinite(trained).all() and trained.shape[0] == 2**4 * 8

# %% [markdown]
# A lookup gives what a search may know. The test scores are there, but **locked**: as long as anything is still chosen,
# reading them is an error, not a matter of discipline.

# %%
looked_up = bench.query(micro_bench.Architecture("pppf", "SE"), seed=bench.seeds[0])
for name, value in looked_up._asdict().items():
    print(f"{name:<12}{value:,.5g}")
try:
    bench.scores("test_psnr")
except LeakError as error:
    print("LeakError:", error)

# %% [markdown]
# ## The whole space at a glance
#
# Every score counts from the mean of its own training seed: a seed gives all architectures the same patches in the same
# order and shifts them together. What is left is the **gain over an average architecture**, in dB. Zero is what you get
# by drawing blindly.

# %%
gains = trained - trained.mean(0)
mean_gain = gains.mean(1)
field = mean_gain.reshape(len(micro_bench.PATTERNS), len(micro_bench.GATES))
title = f"gain over an average architecture, dB: mean of {len(bench.seeds)} trainings"
figures.table_map(field, micro_bench.PATTERNS, micro_bench.GATES, title=title)

# %%
fusions = np.array([each.modules.count("f") for each in bench.architectures])
for count in range(5):
    print(f"{count} fusion modules: {mean_gain[fusions == count].mean():+.2f} dB on average")
for k in np.argsort(field.mean(0))[::-1]:
    print(f"{micro_bench.GATES[k]:<21} {field.mean(0)[k]:+.2f} dB on average")
rows, columns = field.mean(1).std(), field.mean(0).std()
print(f"standard deviation: {rows:.3f} dB between patterns, {columns:.3f} dB between gates")

# %% [markdown]
# **What you should see.** Rows are module patterns (p parallel, f fusion, in order), columns gates. The last line says
# which of the two choices matters more *here*. Before you read a story into a single field of the map: how much of it
# would another seed repaint?
#
# Build an architecture and read its score. The table ties all edges to one gate, so use the place *all edges*; anything
# else is not in it.

# %%
widgets.genotype_editor(micro_bench.genotype_of("pppf", "SE"), table=bench.by_genotype())

# %% [markdown]
# ## How much of that is noise?
#
# The same architecture, trained again with another seed, gives another number. Two questions: how large is that
# **noise** beside the differences between architectures, and how far do two trainings **agree on the ranking**?
#
# The second has a name. *Kendall's tau* takes every pair of architectures and asks whether both rankings put them in the
# same order:
#
# $$\tau = \frac{\text{pairs in the same order} - \text{pairs in opposite order}}{\text{all pairs}}$$
#
# It is 1 where they always agree, 0 where they agree half of the time, −1 where they never do. Tau between two trainings of the *same* architectures is the
# **noise ceiling**: what a second training is worth as a prediction of the first. A shortcut that reaches it is as good as
# training once; only one without noise of its own, as a count of parameters is, can lie above it.

# %%
spread = micro_bench.spread(trained)
ceiling = micro_bench.noise_ceiling(trained)
print(f"standard deviation between architectures {spread.architectures:.3f} dB,")
print(f"of the noise between trainings           {spread.noise:.3f} dB:")
louder = "architectures" if spread.architectures > spread.noise else "trainings"
print(f"{louder} differ more; {spread.reliability:.0%} of the variance is the architectures'")
print(f"noise ceiling: {ceiling}")
winner = trained[:, 0].argmax()
ranks = [int((column > column[winner]).sum()) + 1 for column in trained.T]
print(f"the winner of seed {bench.seeds[0]} has rank {ranks} with seeds {list(bench.seeds)}")

# %%
one_shot = bench.one_shot()
one, other = bench.seeds[:2]
panels = {"trained, and trained again": (gains[:, 0], gains[:, 1])}
panels |= {f"supernet {k}": (scores, gains[:, 1]) for k, scores in enumerate(one_shot)}
figures.clouds(
    panels,
    shade=fusions,
    shade_label="fusion modules",
    x=[f"gain with seed {one}, dB", *["PSNR, inherited weights, dB"] * len(one_shot)],
    y=f"gain with seed {other}, dB",
)

# %% [markdown]
# **What you should see.** On the left a cloud along the diagonal, the thinner the higher the ceiling: so far can *one*
# training be trusted to rank another. Beside it the shortcut that one-shot methods take, once for each supernet: every
# architecture scored with weights *inherited* from it, without any training. Do these clouds rise, too, and all of them?
# More on that below.
#
# **Stop here if short of time**, and do exercise 1.
#
# ## Random search, exactly
#
# Train *n* architectures drawn without repetition and keep the best. On a table nothing has to be simulated: the expected
# best of *n* is the mean of an **order statistic**. Sort all $N$ values upwards, $x_1 \le \dots \le x_N$. The $i$-th is the
# best of $n$ if it is drawn and the $n - 1$ others come from the $i - 1$ values below it. Of all ways to draw $n$ from $N$,
# this is the share
#
# $$\Pr(\text{best} = x_i) = \binom{i-1}{n-1} \Big/ \binom{N}{n}, \qquad
# \mathrm{E}[\text{best of } n] = \sum_{i=n}^{N} x_i \binom{i-1}{n-1} \Big/ \binom{N}{n} .$$

# %%
# NBVAL_CHECK_OUTPUT
made_up = np.array([24.0, 25.0, 27.0, 30.0])
for n in (1, 2, 4):
    print(f"best of {n}: {micro_bench.expected_best(made_up, n):.3f} dB expected")
draws = np.random.default_rng(0).permuted(np.tile(made_up, (20000, 1)), axis=1)[:, :2].max(1)
near = abs(draws.mean() - micro_bench.expected_best(made_up, 2)) < 0.05
print(f"best of 2, drawn 20000 times: the same within 0.05 dB: {near}")

# %% [markdown]
# The best of *n* has a flaw: it was picked *for its number*, and part of that number is luck. Its other trainings, which
# nobody has picked, tell what the architecture is worth.
#
# A search here draws *one* training seed and trains everything with it. With a new seed for each training it would
# compare shifted scores, and choose the luckier seed, not the better architecture.

# %%
random = [micro_bench.random_search(bench, seed + k, trainings) for k in range(repeats)]
worth = np.array([micro_bench.gain(bench, trace) for trace in random])
print("trainings   expected best (seen)   worth, trained again   luck")
for n in (1, 2, 4, 8, 16, 32, 64):
    if n <= trainings:
        seen = np.mean([micro_bench.expected_best(column, n) for column in gains.T])
        again = worth[:, n - 1].mean()
        print(f"{n:>9}   {seen:>+17.2f} dB   {again:>+17.2f} dB   {seen - again:+.2f} dB")
tenth = np.sort(mean_gain)[-10]
enough = next(
    (n for n in range(1, 129) if micro_bench.expected_best(mean_gain, n) >= tenth), None
)
print(f"the best of {enough}, chosen without noise, is on average as good as the tenth of all")

# %% [markdown]
# **What you should see.** The left column rises on, the right one soon no more: the first ten trainings bring most of it,
# and what later ones seem to add is luck. The gap between them is the **winner's curse**. Whoever reports the number by
# which an architecture was *chosen* reports the left column. Compare the last line with what you predicted.
#
# ## Three searches, one purse
#
# * **Random search** pays for its trainings.
# * **Evolution** (regularised) too: the best of a few members gets a child with one choice changed, the oldest dies.
# * **Gradient search** pays for the supernet first, then for *one* training of what was derived.
#
# The gradient searches were run once in this space, one supernet a seed, and recorded epoch by epoch; the other two are
# replayed on the table. What counts is CPU time **in all**, the search's own share included, and what the choice in hand
# is worth when trained again: PSNR alone, so that cost has no price in these searches, λ = 0.
#
# > **Predict.** Which line is on top after the gradient search has paid for its supernet?

# %%
evolved = [
    micro_bench.evolution(bench, seed + k, trainings, population=population, sample=sample)
    for k in range(repeats)
]
recorded = bench.gradient_searches()
gradient = [micro_bench.replay(bench, each) for each in recorded]
kinds = {"random search": random, "evolution": evolved, "gradient search": gradient}
curves = {
    name: [(trace.seconds, micro_bench.gain(bench, trace)) for trace in traces]
    for name, traces in kinds.items()
}
figures.best_so_far(curves, best=mean_gain.max())

# %% [markdown]
# **What you should see.** Random search starts at zero (one training, drawn blindly) and rises; the band holds eight
# replays of ten. Gradient search starts late: before its first epoch is over and a network trained, it has nothing. Each
# thin line is one supernet; where it steps down, the search has changed its mind for the worse. The dotted line is the
# best mean of the table, and a little too high itself: it, too, was picked.

# %%
whole = np.mean([trace.seconds[-1] for trace in gradient])
own = np.mean([each.seconds[-1] for each in recorded]) / whole
print(f"a gradient search costs {whole / 60:.1f} CPU minutes, {own:.0%} of it the supernet's:")
print(f"as much as training {whole / bench.scores('seconds').mean():.1f} architectures")
for each, trace in zip(recorded, gradient, strict=True):
    row = trace.chosen[-1]
    place = int((mean_gain > mean_gain[row]).sum()) + 1
    name = "/".join(bench.architectures[row])
    print(f"supernet {each.seed}: {name}, {mean_gain[row]:+.2f} dB, rank {place} of 128")

# %% [markdown]
# ## Does the search help?
#
# Each supernet's choice against random search that has spent **the same CPU time**. Two kinds of chance count: which
# supernets were searched (epochs and pictures are no repetitions of them), and how the trainings behind the table
# happened to go, which all supernets share if they choose the same architecture. Each has its own *t* value, and the
# interval joins both. (06 does the same with searches and pictures.)

# %%
comparison = micro_bench.against(bench, gradient, random)
print("gradient search minus random search, dB, at equal total cost:")
print(f"  {comparison}")
print("gradient search minus evolution, dB, at equal total cost:")
print(f"  {micro_bench.against(bench, gradient, evolved)}")

# %%
own_gain = np.mean([mean_gain[trace.chosen[-1]] for trace in gradient])
room = mean_gain.max() - (own_gain - comparison.mean)  # what random search leaves to be won
print(f"choosing the table's best architecture would beat random search by {room:.2f} dB")
if room < comparison.detectable:
    print(f"less than the {comparison.detectable:.2f} dB that so few searches would show:")
    print("with searches that differ as these do, *better* could hardly have come out")

# %% [markdown]
# **What you should see.** *Better* or *worse* where the interval leaves zero out, *equivalent* where the difference is
# shown to be less than 0.15 dB, else *undecided*. That is an answer, too. It does not mean that the search is as good as
# chance: it means that so few supernets and trainings could hardly have shown a difference smaller than the number in
# brackets. Hold that number against all that there is to win: a study should be planned so that it is smaller.
#
# ## Do shared weights rank architectures?
#
# Gradient search and one-shot methods trust that a candidate that does well *inside the supernet* does well *trained
# alone*. Here that can be measured, beside two predictors that cost nothing: the number of parameters and of FLOPs.

# %%
proxies = {
    "parameters": bench.scores("parameters")[:, 0],
    "FLOPs": bench.scores("flops")[:, 0],
    f"one-shot ({len(one_shot)} supernets)": one_shot,
}
agreements = {name: micro_bench.agreement(values, trained) for name, values in proxies.items()}
for name, found in agreements.items():
    print(f"{name:<24} {found}")
for k, scores in enumerate(one_shot):
    print(f"   supernet {k} alone      {micro_bench.agreement(scores, trained)}")
shown = {name: (found.tau, found.low, found.high) for name, found in agreements.items()}
figures.agreements(shown, (ceiling.tau, ceiling.low, ceiling.high))

# %%
*counted, shared = agreements.values()
free = max(counted, key=lambda found: found.tau)
print(f"{len(one_shot)} supernets:", end=" ")
if shared.verdict != "agrees":
    print("too few, or too unlike, to say that inherited weights rank architectures.")
elif shared.low > free.high:
    print("their weights rank better than counting parameters or FLOPs does.")
elif shared.high < free.low:
    print("their weights rank, but counting parameters or FLOPs ranks better.")
else:
    print("their weights rank, but not visibly better than counting parameters or FLOPs.")

# %% [markdown]
# **What you should see.** The grey band is the ceiling with its interval. A predictor that reaches it is as good as
# training once; one whose interval holds 0 (hollow dot) was not shown to rank anything. A negative tau says that *smaller*
# networks rank higher: of use only to someone who knew the sign beforehand.
#
# The interval of the one-shot scores redraws architectures *and* supernets. Each supernet alone, many architectures make
# its tau look sure; but it is one supernet, and the next one may rank otherwise. Whoever trains a single supernet cannot
# know which of them it is.
#
# ## The test column, once
#
# Everything is chosen now: nothing above will be changed because of what stands here. `final = True` opens the column,
# and asks whether the answer on validation pictures holds on pictures that no search has seen.

# %%
if final:
    opened = bench.final()
    on_test = micro_bench.against(opened, gradient, random, column="test_psnr")
    print("gradient search minus random search, dB, at equal total cost, on test:")
    print(f"  {on_test}")
    between = micro_bench.agreement(mean_gain, opened.scores("test_psnr"))
    print(f"validation (mean) against test: {between}")
else:
    print("locked: set final = True when you would bet on your answer")

# %% [markdown]
# ## Exercises
#
# **1. Random search on the table.** The table in this exercise has `table.architectures` (a tuple of names), and
# `table.val_psnr(name)` trains one of them. You may pay for *n* different ones. (There is a `table.test_psnr(name)`, too.)


# %% tags=["exercise", "exercise:random_search"]
def my_random_search(table, n, rng):
    """table: see above; n: trainings; rng: numpy Generator -> the architecture that you keep."""
    # BEGIN SOLUTION
    drawn = rng.choice(table.architectures, size=n, replace=False)
    return max(drawn, key=table.val_psnr)
    # END SOLUTION


# %% tags=["check", "check:random_search"]
checks.random_search(my_random_search)

# %% [markdown]
# **2. Tau, its ceiling, and a verdict.** `proxy` holds a number an architecture, `scores` a row an architecture and a
# column a training. Return the mean tau between the proxy and each training, the mean tau over the pairs of trainings,
# and a word: `"agrees"` or `"disagrees"` where the 95 % interval of the first lies wholly above or below 0,
# `"undecided"` where it holds 0. For the interval, redraw *architectures* with replacement, some two hundred times.


# %% tags=["exercise", "exercise:rank_agreement"]
def my_agreement(proxy, scores, rng):
    """proxy (n,), scores (n, trainings), rng: numpy Generator -> (tau, ceiling, verdict)."""

    # BEGIN SOLUTION
    def mean_tau(rows):
        return np.mean(
            [stats.kendalltau(proxy[rows], column[rows]).statistic for column in scores.T]
        )

    n, count = scores.shape
    pairs = [(scores[:, k], scores[:, j]) for k in range(count) for j in range(k)]
    ceiling = np.mean([stats.kendalltau(x, y).statistic for x, y in pairs])
    redrawn = [mean_tau(rng.integers(n, size=n)) for _ in range(200)]
    low, high = np.quantile(redrawn, [0.025, 0.975])
    word = "agrees" if low > 0 else "disagrees" if high < 0 else "undecided"
    return mean_tau(np.arange(n)), ceiling, word
    # END SOLUTION


# %% tags=["check", "check:rank_agreement"]
checks.rank_agreement(my_agreement)

# %% [markdown]
# ## What this shows, and what it does not
#
# It shows what a few searches are worth *in this table*, at equal cost, with the uncertainty that belongs to it, and how
# such a claim is made: random search beside it, total cost on the axis, noise measured, test scores locked.
#
# It does not show what the same search finds in the spaces of the other notebooks. The space is **tiny**: four modules,
# two branches. Its gates are **tied**, while the search relaxes every edge by itself and is cut to one gate afterwards,
# which the method does not do. Trainings are **short**, the rain is **synthetic**, the photographs are few, and so are
# seeds and supernets. And replays are not repetitions: 200 random searches on one table all share its noise.
#
# ## Summary
#
# * Compare with random search at equal *total* cost, and give what the choice is worth when trained again.
# * Tau between two trainings is the yardstick of every predictor; tau without an interval is a guess.
# * The smallest detectable difference belongs beside every *undecided*.
#
# **Next**: 06 ablations. **Or try** `trainings = 16`, or an evolution with `sample = 8`: greedier, is it better?
#
# **References.** A. Yang et al., *NAS evaluation is frustratingly hard*, ICLR 2020, arXiv 1912.12522 · L. Li, A.
# Talwalkar, *Random search and reproducibility for NAS*, UAI 2019, arXiv 1902.07638 · M. Lindauer, F. Hutter, *Best
# practices for scientific research on NAS*, JMLR 2020, arXiv 1909.02453 · C. Ying et al., *NAS-Bench-101*, ICML 2019,
# arXiv 1902.09635 · E. Real et al., *Regularized evolution*, AAAI 2019, arXiv 1802.01548 · H. Liu et al., *DARTS*, ICLR
# 2019, arXiv 1806.09055 · J. Dodge et al., *Show your work*, EMNLP 2019, arXiv 1909.03004.

# %% tags=["record"]
course.record_results(
    architectures=len(bench.architectures),
    training_seeds=len(bench.seeds),
    supernets=len(gradient),
    noise_ceiling=ceiling.tau,
    reliability=spread.reliability,
    gradient_minus_random=comparison.mean,
    detectable=comparison.detectable,
    verdict=comparison.verdict,
    tau={name: found.tau for name, found in agreements.items()},
)
