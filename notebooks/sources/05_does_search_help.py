# %% tags=["parameters"]
table = ""  # folder of a table like the package's own; empty: the one that the package brings
seed = 0  # first seed of the replayed searches
repeats = 200  # times that random search and evolution are replayed
trainings = 64  # trainings that each may pay for: 12 (a gradient search costs less) to 128
population = 10  # members of the evolution
sample = 3  # how many of them compete to be the next parent
final = False  # True opens the test column: once, when nothing is chosen any more

# %% tags=["imports"]
import math

import numpy as np
from scipy import stats

from manas_course import micro_bench
from manas_course.micro_bench import figures
from manas_course import widgets
from manas_course import checks, diagrams
from manas_lite.data import LeakError

# %% [markdown]
# ## What would chance have found?
#
# slides: The result is good. Did the *search* help?
# slides: Ask what a **random** architecture gives
# slides: 128 networks, all of them trained
#
# A search hands over an architecture, the architecture is trained, the result is good. Did the *search* help? Nobody can
# say who has not asked what a **random** architecture gives after the same training, and what one finds by drawing a
# few at random and keeping the best. In several spaces studied in "NAS evaluation is frustratingly hard" that was nearly
# all there was to find.
#
# The question is expensive: every answer costs many trainings. So they were all done beforehand, in a space small enough to
# train *whole*: four modules, parallel or fusion, and one of eight gates, the same on all edges. 2⁴ · 8 = 128
# architectures, each trained alike, with several seeds. Searching is now looking up, and takes seconds.
#
# > **Predict.** How many of the 128 must you train until the best of them is, on average, among the best ten of all?
#
# <details><summary>Answer: write yours down first, then click</summary>
#
# Nine, on the table that the package brings: the last line printed under *Random search, exactly*. If you draw n networks
# blindly, the best of them is on average at the share n/(n + 1) of the ranking; for the best ten of 128 that is a
# share of 0.92, so about a dozen will do.
#
# </details>

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
# slides: Zero is what drawing blindly gives
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
# **What you should see.** Rows are module patterns (p parallel, f fusion, in order), columns gates. The map has horizontal
# stripes: from row to row the shade changes, along a row hardly. The last line puts this into numbers, some 0.30 dB between
# patterns and 0.03 dB between gates. Is even the 0.03 real? Another seed would repaint single fields. The mean of a gate is
# taken over 16 patterns and all seeds, which makes noise smaller, not zero:

# %%
noise = micro_bench.spread(trained).noise
left = noise / np.sqrt(len(micro_bench.PATTERNS) * gains.shape[1])
print(f"the same architecture, trained again: {noise:.3f} dB of noise")
print(f"what noise alone would leave between gates: {left:.3f} dB; seen: {columns:.3f} dB")
left_rows = noise / np.sqrt(len(micro_bench.GATES) * gains.shape[1])
print(f"and between patterns: {left_rows:.3f} dB; seen: {rows:.3f} dB")

# %% [markdown]
# **What to conclude.** *Gates hardly matter here.* Eight kinds of attention, from a plain `skip_connect` to `CBAM`, differ by
# about as much as chance alone would make equal ones differ. Patterns differ by some eight times what chance would leave, and
# most of it is one fact: a network of four fusion modules is bad. This is worth more than a winner. A search that spends its effort
# on 15 edges with eight gates each, and gets the four modules wrong, has lost; one that gets the modules right may choose its
# gates by cost, or by dice. It also explains notebook 04: on some edges a leftover was derived and the gap was 0.05 dB all the
# same.
#
# It holds *here*: in this space, for short trainings, with the same gate on all edges. It is a reason to measure in yours, not
# a law.
#
# Build an architecture and read its score. The table ties all edges to one gate, so use the place *all edges*; anything
# else is not in it.

# %%
widgets.genotype_editor(micro_bench.genotype_of("pppf", "SE"), table=bench.by_genotype())

# %% [markdown]
# ## How much of that is noise?
#
# slides: Train again with another seed: another number
# slides: Kendall's tau: how far do two rankings agree?
#
# The same architecture, trained again with another seed, gives another number. Two questions: how large is that
# **noise** beside the differences between architectures, and how far do two trainings **agree on the ranking**?
#
# The second has a name. *Kendall's tau* takes every pair of architectures and asks whether both rankings put them in the
# same order:
#
# $$\tau = \frac{\text{pairs in the same order} - \text{pairs in opposite order}}{\text{all pairs}}$$
#
# It is 1 where they always agree, 0 where they agree half of the time, −1 where they never do. With tau you can do a sum in
# your head: tau = 0.4 means that 70 % of the pairs are in the same order and 30 % are not, since 0.7 − 0.3 = 0.4. So pick any
# two architectures, let the predictor say which is better, and it is right seven times in ten.
#
# Why ranks, and not a correlation of the numbers? Because a predictor need not speak in dB. Parameters, FLOPs and
# the PSNR of borrowed weights have other units and bent scales; a search asks only *which of these two*.
#
# Tau between two trainings of the *same* architectures is the **noise ceiling**. Think of a score as the sum of what the
# architecture is worth and of noise, $y = g + e$, with variances $\sigma_g^2$ and $\sigma_e^2$. Two trainings share $g$ and
# nothing else, and so they correlate by the **reliability**
#
# $$r = \frac{\sigma_g^2}{\sigma_g^2 + \sigma_e^2} .$$
#
# With $r = 1$ one training would tell everything; with $r = 0$ training would be dice. A predictor that knew $g$ perfectly
# would still correlate only by $\sqrt r$ with one training, for the training itself is noisy. Read every tau in the
# literature with this in mind: a predictor with 0.4 under a ceiling of 0.4 does all that one training does, and the same 0.4
# under a ceiling of 0.9 does little. A shortcut that reaches the ceiling is as good as training once. Only one without noise
# of its own, as a count of parameters is, can lie above it.

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
ranked = [micro_bench.agreement(scores, trained).tau for scores in one_shot]
best_net, worst_net = int(np.argmax(ranked)), int(np.argmin(ranked))
panels = {"trained, and trained again": (gains[:, 0], gains[:, 1])}
for k, word in ((best_net, "ranks best"), (worst_net, "ranks worst")):
    panels[f"supernet {k}, which {word}"] = (one_shot[k], gains[:, 1])
figures.clouds(
    panels,
    shade=fusions,
    shade_label="fusion modules",
    x=[f"gain with seed {one}, dB", *["PSNR with inherited weights, dB"] * 2],
    y=f"gain with seed {other}, dB",
)

# %% [markdown]
# **What you should see.** On the left a cloud along the diagonal. If it were a thin line, one training would rank the
# architectures as well as any other; it is a thick cloud, so one training can be trusted only roughly. Beside it the
# shortcut: every architecture scored with weights *inherited* from a
# supernet, without any training of its own, for the supernet that ranks best and for the one that ranks worst. (Mind the
# axes: each panel has its own scale.) One cloud rises. Does the other one? More on that below.
#
# **Stop here if short of time**, and do exercise 1.
#
# ## Random search, exactly
#
# slides: Draw *n*, keep the best
# slides: On a table this needs no simulation
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
# ## Three searches, one budget
#
# slides: Random, evolution, gradients
# slides: Equal **total** cost, the supernet included
#
# * **Random search** draws architectures blindly, trains each of them and keeps the best. It pays for its trainings.
# * **Evolution** keeps a small population of trained architectures. Again and again it takes a few of them, changes one choice
#   of the best, trains this child, and drops the oldest member (*regularised* evolution). It pays for its trainings, too.
# * **Gradient search** pays for the supernet first, and then for *one* training: that of the architecture it derives.
#
# The gradient searches were run once in this space, one supernet a seed, and recorded epoch by epoch; the other two are
# replayed on the table. What counts is CPU time **in all**, the search's own share included, and what the choice in hand
# is worth when trained again: PSNR alone, so that cost has no price in these searches, λ = 0.
#
# > **Predict.** Which line is on top after the gradient search has paid for its supernet?
#
# <details><summary>Answer: write yours down first, then click</summary>
#
# Random search and evolution are on top on average. Of the five gradient searches that the package brings, three end
# above zero, and two at −0.84 dB, which pulls their mean far down. Look at the thin lines, not at the mean alone.
#
# </details>

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
# slides: Against random search of the *same* computing time
# slides: Two kinds of chance: supernets and trainings
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
# brackets.
#
# ### How many supernets would it take?
#
# slides: **Power**: how often is a real difference found?
# slides: $\delta \approx (t_{0.975} + t_{0.8})\, s / \sqrt n$
#
# That number can be planned. The **power** of a study is how often it finds a difference that is really there. Let single
# searches differ by a standard deviation $s$. The mean of $n$ of them varies by $s/\sqrt n$. To be found four times in five at
# the usual level, a difference must be as large as
#
# $$\delta \approx (t_{0.975} + t_{0.8})\, \frac{s}{\sqrt n},$$
#
# where $t_{0.975}$ keeps chance from being taken for an effect, $t_{0.8}$ keeps an effect from being taken for chance, and both
# are quantiles of Student's $t$ with $n - 1$ degrees of freedom (1.96 + 0.84 = 2.8 for many searches, and much more for few).
# Half the difference needs four times the searches.

# %%
own_gains = np.array([mean_gain[trace.chosen[-1]] for trace in gradient])
deviation = own_gains.std(ddof=1)
print(f"{len(own_gains)} searches found {np.round(np.sort(own_gains), 2).tolist()} dB")
print(f"standard deviation {deviation:.2f} dB, and {room:.2f} dB are there to be won")
for n in (5, 10, 20, 40, 80):
    least = stats.t.ppf([0.975, 0.8], n - 1).sum() * deviation / np.sqrt(n)
    print(f"{n:>3} searches would show {least:.2f} dB{'  <- enough' if least < room else ''}")

# %% [markdown]
# **What you should see.** So few searches would have shown nothing short of a disaster; the answer *undecided* was certain
# before the first step was taken. This sum takes half a minute and belongs at the *beginning* of a study. It leaves
# out the noise of the trainings behind the table, so it is on the kind side.
#
# And look at the first line. These are not draws from one bell: some searches find networks among the best, the others
# one of the worst, and nothing between. A mean and a deviation are poor words for that. Something happens in the bad ones,
# and the next section asks what.
#
# ## Do shared weights rank architectures?
#
# slides: Good inside the supernet: good alone?
# slides: Beside it: just count parameters
#
# Gradient search and one-shot methods trust that a candidate that does well *inside the supernet* does well *trained
# alone*. Here that can be measured, beside two predictors that cost nothing: the number of parameters and of FLOPs. The
# supernets are those of the gradient searches: their weights were trained in a mixture. (Methods that are called *one-shot*
# mostly train by drawing one path per step instead; the difference turns out to be important.)

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
# ## Why a supernet can rank backwards
#
# slides: In a supernet a module counts with its *weight*
# slides: Alone it counts in full, trained or not
# slides: Who leads is trained more: the rich get richer
#
# A predictor that knows nothing has a tau of 0. Some of these supernets have a clearly *negative* tau: they know something,
# and say the opposite. How can that happen?

# %%
diagrams.weight_sharing()

# %% [markdown]
# Is that what happened here? Look at what inherited weights are worth, by the number of fusion modules, in the supernet that
# ranks best and in the one that ranks worst:

# %%
print(f"rainy input {rainy:.1f} dB. Mean PSNR with inherited weights, dB:")
print("fusion modules  " + "".join(f"{count:>8}" for count in range(5)) + "   derived")
for k in (best_net, worst_net):
    means = [one_shot[k][fusions == count].mean() for count in range(5)]
    found = bench.architectures[gradient[k].chosen[-1]].modules
    print(f"supernet {k:<7}" + "".join(f"{mean:>8.1f}" for mean in means) + f"   {found}")
print("trained alone  " + "".join(f"{mean_gain[fusions == c].mean():>+8.2f}" for c in range(5)))

# %% [markdown]
# **What you should see.** In the supernet that ranks worst, networks of parallel modules reach some 5 dB: not a poor network
# but a *broken* one, far worse than doing nothing at all. Networks of fusion modules reach 22. Trained alone it is the other
# way round. And the search derived what looked best to it: four fusion modules, one of the worst choices of the table.
#
# How do weights get so bad? A module place computes
#
# $$M(x) = p\, P(x) + f\, F(x), \qquad p + f = 1,$$
#
# and so the gradient for the weights $\theta_P$ of the parallel module carries the factor $p$:
#
# $$\frac{\partial L}{\partial \theta_P} = p\, \frac{\partial L}{\partial M}\, \frac{\partial P}{\partial \theta_P} .$$
#
# Let chance, or a few easy first steps, favour fusion: $f = 0.9$, $p = 0.1$. From now on the parallel module learns with a
# tenth of the gradient. It stays raw, so it helps little, so the architecture step takes more weight from it. At $p = 0.01$
# whatever it computes is damped a hundredfold; it may be nonsense, and the mixture does not feel it. **The rich get richer.**
# Then a network is derived or scored, and the parallel module, *whose weight was 0.01, counts in full*. Nothing in training
# ever asked what it does alone. Its 5 dB say how little it was trained, and nothing of what it could be.
#
# A model with three numbers shows all of it. The target is $y = x_1 + x_2$. The *good* candidate sees both inputs, the *poor*
# one only the first, so alone and well trained the good one is right and the poor one is not. They are trained as a mixture
# with fixed weights, and then scored alone, as a supernet scores them.


# %%
def alone(share, paths=False, steps=40, rate=0.05):
    draws = np.random.default_rng(0)
    x = draws.normal(size=(400, 2))
    good, poor = np.zeros(2), 0.0
    for _ in range(steps):
        p = float(draws.random() < 0.5) if paths else share  # paths: one of them, in full
        error = p * (x @ good) + (1 - p) * poor * x[:, 0] - x.sum(1)
        good -= 2 * rate * p * (x.T @ error) / 400
        poor -= 2 * rate * (1 - p) * (x[:, 0] @ error) / 400
    return np.mean((x @ good - x.sum(1)) ** 2), np.mean((poor * x[:, 0] - x.sum(1)) ** 2)


print("weight of the good one     good alone   poor alone   ranked")
for share, paths in ((0.9, False), (0.5, False), (0.1, False), (0.5, True)):
    good, poor = alone(share, paths)
    name = "one path a step" if paths else f"{share:.1f} of the mixture"
    print(f"{name:<22}{good:>15.2f}{poor:>13.2f}   {'right' if good < poor else 'BACKWARDS'}")

# %% [markdown]
# **What you should see.** Errors, smaller is better. Where the good candidate leads, it is trained and ranked right. Where it
# has a tenth of the weight it stays half trained, and the ranking turns round. Even the fair mixture, half and half, gives
# numbers that are not those of networks trained alone: each has learned to be one half of a sum. The last line trains **one path per step**,
# drawn with equal chance, in full weight. Both candidates learn to stand alone, and their errors are those of networks
# trained alone. This is what one-shot methods do (Bender et al., 2018; *SPOS*, Guo et al., 2020), and the name for the rest is
# *co-adaptation*.
#
# What helps, then? Train paths, not mixtures, where the supernet is to *rank*. Keep the two kinds of weights apart for longer
# (a warm-up in which the architecture stands still). Watch the weights of the modules over the epochs, and stop where they run
# away. Or leave the supernet's scores alone, and let it hand over a few candidates that are then really trained. And count
# something for nothing beside it: if the number of parameters ranks better than your supernet, you have paid for noise.
#
# A model of three numbers proves nothing about a network; it shows that the mechanism suffices. The picture above shows that
# what it predicts does happen.
#
# ## The test column, once
#
# slides: Everything is chosen; now look, once
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
#
# *Why it matters.* These two lines are the opponent that every search has to beat, and that many articles leave out.


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
# `"undecided"` where it holds 0. For the interval, redraw *architectures* with replacement, some two hundred times. (This is
# the small project of this notebook.)
#
# *Why it matters.* A tau without a ceiling and without an interval is a number that nobody can judge. You will meet
# dozens of them.


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
# **3. The expected best of n**, by the formula of *Random search, exactly*. `math.comb(n, k)` counts the ways to draw k of n.
# (One line, once the values are sorted.)
#
# *Why it matters.* It turns any list of finished trainings into the curve of a random search, without running one. Put
# it beside your own method.


# %% tags=["exercise", "exercise:best_of_n"]
def my_best_of(values, n):
    """values: a list of N numbers; n: how many are drawn, without repetition -> the mean of their best."""
    # BEGIN SOLUTION
    ordered, total = sorted(values), math.comb(len(values), n)
    return sum(x * math.comb(i, n - 1) for i, x in enumerate(ordered)) / total
    # END SOLUTION


# %% tags=["check", "check:best_of_n"]
checks.best_of_n(my_best_of)

# %% [markdown]
# ## What this shows, and what it does not
#
# slides: How such a claim is made
# slides: A tiny space, short trainings, few supernets
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
# * Here gates hardly matter (0.03 dB between them, as much as noise makes) and patterns do (0.30 dB).
# * Tau between two trainings is the yardstick of every predictor; tau without an interval is a guess.
# * In a mixture a module is trained by its weight, and alone it counts in full: a supernet can rank backwards.
# * The smallest detectable difference belongs beside every *undecided*.
#
# **Next**: 06 ablations. **Or try** `trainings = 16`, or an evolution with `sample = 8`: greedier, is it better?
#
# **References.** A. Yang et al., *NAS evaluation is frustratingly hard*, ICLR 2020, arXiv 1912.12522 · L. Li, A.
# Talwalkar, *Random search and reproducibility for NAS*, UAI 2019, arXiv 1902.07638 · M. Lindauer, F. Hutter, *Best
# practices for scientific research on NAS*, JMLR 2020, arXiv 1909.02453 · C. Ying et al., *NAS-Bench-101*, ICML 2019,
# arXiv 1902.09635 · E. Real et al., *Regularized evolution*, AAAI 2019, arXiv 1802.01548 · H. Liu et al., *DARTS*, ICLR
# 2019, arXiv 1806.09055 · G. Bender et al., *Understanding and simplifying one-shot architecture search*, ICML 2018 · Z. Guo
# et al., *Single path one-shot* (SPOS), ECCV 2020, arXiv 1904.00420 · J. Dodge et al., *Show your work*, EMNLP 2019, arXiv 1909.03004.

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
