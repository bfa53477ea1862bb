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
# A search returns an architecture, the architecture is trained, and the result is good. Did the *search* help? To
# answer this you must know what a **random** architecture reaches after the same training, and what you find if you
# draw a few at random and keep the best. In several spaces that were studied in "NAS evaluation is frustratingly hard",
# a search found hardly more than that.
#
# The question is expensive: every answer costs many trainings. So all trainings were done beforehand, in a space small
# enough to train every network of it. It has four modules, each parallel or fusion, and one of eight gates, the same
# gate on all edges. These are 2⁴ · 8 = 128 architectures. Each was trained in the same way, with several seeds, and the
# scores were written into a table. To "train" an architecture here is to look it up in the table, and a whole search
# takes seconds.
#
# > **Predict.** How many of the 128 must you train until the best of them is, on average, among the best ten of all?
#
# <details><summary>Answer: write yours down first, then click</summary>
#
# Nine, on the table that the package brings: see the last line that is printed under *Random search, exactly*. A rule
# of thumb gives nearly the same. The best of n networks, drawn blindly, lies on average at the share n/(n + 1) of the
# ranking, counted from the worst. To be among the best ten of 128, this share must be 118/128 = 0.92, and so n is about
# a dozen.
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
    print(f"left out, trainings are missing (seed: architectures): {bench.incomplete}")
assert np.isfinite(trained).all() and trained.shape[0] == 2**4 * 8

# %% [markdown]
# The next cell looks up one architecture, and prints all that a search may know of it. The table has test scores as
# well, but they are **locked**. As long as anything is still being chosen, whoever reads them gets an error.

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
# A training seed gives all architectures the same patches in the same order. So it moves the scores of all
# architectures up or down together. To remove this, we subtract from every score the mean of all scores with the same
# seed. What is left is the **gain over an average architecture**, in dB. Zero is what you get on average by drawing
# blindly.

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
# **What you should see.** Rows are module patterns (p parallel, f fusion, in order), columns gates. The map has
# horizontal stripes: the shade changes from row to row, but hardly along a row. The last line that was printed gives
# this in numbers, some 0.30 dB between patterns and 0.03 dB between gates.
#
# Is even the difference of 0.03 dB real? With another seed single fields would have another shade. The mean of a gate
# is taken over 16 patterns and all seeds. This makes the noise smaller, but not zero. The next cell computes how much
# is left:

# %%
noise = micro_bench.spread(trained).noise
left = noise / np.sqrt(len(micro_bench.PATTERNS) * gains.shape[1])
print(f"the same architecture, trained again: {noise:.3f} dB of noise")
print(f"what noise alone would leave between gates: {left:.3f} dB; seen: {columns:.3f} dB")
left_rows = noise / np.sqrt(len(micro_bench.GATES) * gains.shape[1])
print(f"and between patterns: {left_rows:.3f} dB; seen: {rows:.3f} dB")

# %% [markdown]
# **What to conclude.** *Gates hardly matter here.* There are eight kinds of attention, from a plain `skip_connect` to
# `CBAM`. They differ by about as much as eight equal ones would differ by noise alone. Patterns differ by some eight
# times what noise would leave, and most of that is one fact: a network of four fusion modules is bad. To know this is
# worth more than to know one good network. A search that takes great care with 15 edges of eight gates each, and gets
# the four modules wrong, has lost. A search that gets the modules right may choose its gates by cost, or at random. It
# also explains notebook 04. On some edges the derived operation had hardly any weight, and still the gap was only a few
# hundredths of a dB.
#
# All this holds *here*: in this space, for short trainings, with the same gate on all edges. In your own space it may
# be different, so measure it there.
#
# Build an architecture and read its score. In this table all edges have the same gate, so choose it at the place *all
# edges*. An architecture with different gates is not in the table.

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
# It is 1 if they always agree, 0 if they agree on half of the pairs, and −1 if they never agree. From tau you can
# compute how often. If tau = 0.4, then 70 % of the pairs are in the same order and 30 % are not, since 0.7 − 0.3 = 0.4.
# A **predictor** is any cheap number that is used to order architectures. Suppose its tau is 0.4. If you take any two
# architectures, and let the predictor say which one is better, it is right seven times in ten.
#
# Why ranks, and not a correlation of the numbers? Because the numbers of a predictor need not be dB. Parameters, FLOPs
# and the PSNR with borrowed weights have other units, and need not grow in proportion to the score. A search only asks
# *which of these two is better*.
#
# Tau between two trainings of the *same* architectures is called the **noise ceiling**. Why a ceiling? Think of a score
# $y$ as a sum, $y = g + e$: $g$ is what the architecture is worth and $e$ is noise, with variances $\sigma_g^2$ and
# $\sigma_e^2$. Two trainings of one architecture share $g$ and nothing else. So their correlation is the
# **reliability**
#
# $$r = \frac{\sigma_g^2}{\sigma_g^2 + \sigma_e^2} .$$
#
# With $r = 1$ one training would tell everything. With $r = 0$ its result would be pure chance. A predictor that knew
# $g$ perfectly would still have only a correlation of $\sqrt r$ with one training, because the training itself is
# noisy.
#
# So read every tau in the literature together with its ceiling. A predictor with tau 0.4 under a ceiling of 0.4 does as
# well as one training does. The same 0.4 under a ceiling of 0.9 is little. A cheap predictor that reaches the ceiling
# is as good as training once. It can be above the ceiling only if it has no noise of its own, such as a count of
# parameters.

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
# **What you should see.** On the left is a cloud along the diagonal. If it were a thin line, one training would rank
# the architectures like any other training. It is a thick cloud, so you can trust one training only roughly. The two
# other clouds show a shortcut: every architecture was scored with weights *inherited* from a supernet, without any
# training of its own. One cloud is from the supernet that ranks best, one from the supernet that ranks worst. (Each
# panel has a horizontal scale of its own: from 21 to 24 dB in one panel, from 5 to 22 dB in the other.) One cloud rises.
# Does the other one? A later section returns to this.
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
# There is a problem with the score of the best of *n*. It was picked *because its number was high*, and a part of that
# number is luck. The other trainings of the same architecture were not picked, so their mean tells what the
# architecture is worth.
#
# In this notebook a search draws *one* training seed and trains all its architectures with it. With a new seed for each
# training, the scores would be shifted against each other. The search would then choose the luckier seed, and not the
# better architecture.

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
# **What you should see.** The left column goes on rising, and the right one soon nearly stops. The first ten trainings
# bring most of the gain. What later trainings seem to add is mostly luck. The difference between the columns is called
# the **winner's curse**. Whoever reports the number by which an architecture was *chosen*, reports the left column.
# Compare the last line with what you predicted.
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
# The gradient searches were run once in this space, one supernet per seed, and recorded epoch by epoch. The other two
# kinds of search are replayed on the table. They are compared by two numbers. One is the CPU time **in all**, including
# what the search itself takes. The other is the gain of the architecture that a search holds at that time, when it is
# trained again. In these searches the cost of a network has no price (λ = 0), so only PSNR counts.
#
# > **Predict.** Which kind of search is best, after the gradient search has paid for its supernet?
#
# <details><summary>Answer: write yours down first, then click</summary>
#
# On average, random search and evolution are. Of the five gradient searches that the package brings, three end above
# zero. The other two end at −0.84 dB, and pull the mean of all five far down. So look at the thin lines, and not at the
# mean alone.
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
# **What you should see.** Random search starts at about zero (one training, drawn blindly) and rises. Eight of ten
# replays lie within its band. Each thin line is one supernet. It starts when the first epoch is over and the network
# that was derived then is trained; before that the gradient search has nothing. Where a thin line steps down, the
# search has changed its choice for a worse one. The thick green line is the mean of the thin ones, and starts with the
# last of them. The dotted line is the best mean in the table. It is a little too high itself, because it was picked,
# too.

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
# The next cell compares the choice of each supernet with random search that has spent **the same CPU time**. Two kinds
# of chance make the mean difference uncertain. The first is which supernets were searched. (Each supernet counts once:
# its epochs and its pictures are no repetitions of the search.) The second is how the trainings behind the table
# happened to go. If several supernets choose the same architecture, they share this second kind. Each kind is estimated
# separately, with its own quantile of Student's *t*, and the interval joins both. (06 does the same with searches and
# pictures.)

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
    print(
        f"less than {comparison.detectable:.2f} dB, the least that so few searches could show:"
    )
    print("searches that vary as these do could hardly have got the verdict better")

# %% [markdown]
# **What you should see.** The verdict is *better* or *worse* if the interval does not contain zero. It is *equivalent*
# if the difference is shown to be less than 0.15 dB. Else it is *undecided*, and that is an answer, too. It does not
# mean that the search is as good as chance. It means that so few supernets and trainings could hardly have shown a
# difference smaller than the number in brackets.
#
# ### How many supernets would it take?
#
# slides: **Power**: how often is a real difference found?
# slides: $\delta \approx (t_{0.975} + t_{0.8})\, s / \sqrt n$
#
# The number in brackets can be planned before a study. The **power** of a study is how often it finds a difference that
# is really there. Let single searches differ by a standard deviation $s$. Then the mean of $n$ searches has a standard
# deviation of $s/\sqrt n$. To be found four times in five, with an interval of 95 %, a difference must be at least
#
# $$\delta \approx (t_{0.975} + t_{0.8})\, \frac{s}{\sqrt n},$$
#
# Here $t_{0.975}$ and $t_{0.8}$ are quantiles of Student's $t$ with $n - 1$ degrees of freedom. The first makes it rare
# that chance is taken for an effect, the second makes it rare that an effect is taken for chance. Their sum is 1.96 +
# 0.84 = 2.8 for many searches, and much larger for few. To find half the difference you need four times as many
# searches.

# %%
own_gains = np.array([mean_gain[trace.chosen[-1]] for trace in gradient])
deviation = own_gains.std(ddof=1)
print(f"{len(own_gains)} searches found {np.round(np.sort(own_gains), 2).tolist()} dB")
print(f"standard deviation {deviation:.2f} dB, and {room:.2f} dB are there to be won")
for n in (5, 10, 20, 40, 80):
    least = stats.t.ppf([0.975, 0.8], n - 1).sum() * deviation / np.sqrt(n)
    print(f"{n:>3} searches would show {least:.2f} dB{'  <- enough' if least < room else ''}")

# %% [markdown]
# **What you should see.** So few searches could only have shown a very large difference. The answer *undecided* was
# nearly certain before the first step. This calculation takes half a minute, and belongs at the *beginning* of a study.
# It leaves out the noise of the trainings behind the table, so the true numbers are somewhat larger.
#
# Now look at the first line that was printed. The numbers do not scatter around one value. Some searches find networks
# among the best, the others find one of the worst, and nothing is in between. A mean and a deviation describe this
# badly. Something happens in the bad searches, and the next two sections ask what it is.
#
# ## Do shared weights rank architectures?
#
# slides: Good inside the supernet: good alone?
# slides: Beside it: just count parameters
#
# Gradient search and one-shot methods trust that a candidate that does well *inside the supernet* also does well when
# it is *trained alone*. With the table this can be measured. We compare the supernets with two predictors that cost
# nothing: the number of parameters and the number of FLOPs. The supernets are those of the gradient searches, so their
# weights were trained in a mixture. (Most methods that are called *one-shot* draw one path per step instead. The next
# section shows that this is important.)

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
# training once. A hollow dot marks a predictor whose interval holds 0: it was not shown to rank anything. A negative
# tau means that architectures with a *higher* predicted number are mostly worse. Such a predictor helps only someone
# who knew the sign beforehand.
#
# For the interval of the one-shot scores, architectures *and* supernets are redrawn. For each supernet alone only
# architectures can be redrawn. There are many of them, so the interval is narrow and its tau looks certain. But it is
# one supernet, and the next one may rank in another way. Whoever trains a single supernet cannot know which kind it is.
#
# ## Why a supernet can rank backwards
#
# slides: In a supernet a module counts with its *weight*
# slides: Alone it counts in full, trained or not
# slides: Who leads is trained more: the rich get richer
#
# A predictor that knows nothing has a tau of about 0. Some of these supernets have a clearly *negative* tau. So they do
# know something about the architectures, but they rank them in the wrong order. How can that happen?
#
# The drawing below shows it for two candidates of one module place. We call them A and B. Trained alone, B is the better
# one. But in the first steps of the search A happens to be a little ahead.

# %%
diagrams.weight_sharing()

# %% [markdown]
# **What you should see.** On the left a circle: A gets more weight, so the shared weights are trained for A, so A looks
# better still. On the right the result: the supernet ranks A first, and trained alone B is first.
#
# Did this happen here? In this table A would be the fusion module, and B the parallel one. The next cell prints the
# mean PSNR with inherited weights, by the number of fusion modules, for the supernet that ranks best and for the one
# that ranks worst:

# %%
print(f"rainy input {rainy:.1f} dB. Mean PSNR with inherited weights, dB:")
print("fusion modules  " + "".join(f"{count:>8}" for count in range(5)) + "   derived")
for k in (best_net, worst_net):
    means = [one_shot[k][fusions == count].mean() for count in range(5)]
    found = bench.architectures[gradient[k].chosen[-1]].modules
    print(f"supernet {k:<7}" + "".join(f"{mean:>8.1f}" for mean in means) + f"   {found}")
print("trained alone  " + "".join(f"{mean_gain[fusions == c].mean():>+8.2f}" for c in range(5)))

# %% [markdown]
# **What you should see.** In the supernet that ranks worst, networks of parallel modules reach some 5 dB. This is far
# worse than the rainy input: these networks are not poor but *broken*. Networks of fusion modules reach 22 dB. If the
# networks are trained alone, it is the other way round. And the search derived what looked best to it: four fusion
# modules, one of the worst choices of the table.
#
# How do weights get so bad? A module place computes
#
# $$M(x) = p\, P(x) + f\, F(x), \qquad p + f = 1,$$
#
# and so the gradient for the weights $\theta_P$ of the parallel module carries the factor $p$:
#
# $$\frac{\partial L}{\partial \theta_P} = p\, \frac{\partial L}{\partial M}\, \frac{\partial P}{\partial \theta_P} .$$
#
# Suppose that chance, or a few easy first steps, favour fusion: $f = 0.9$, $p = 0.1$. From now on the parallel module
# learns with a tenth of the gradient. It stays badly trained, so it helps little, so the architecture step takes more
# weight from it. At $p = 0.01$ its output is multiplied by 0.01. It may be nonsense, and the mixture hardly changes.
# **The rich get richer.** Then a network is derived or scored, and the parallel module, *whose weight was 0.01, counts
# in full*. Nothing in the training ever asked what it does alone. Its 5 dB say how little it was trained. They do not
# say what it could be.
#
# A model with three weights shows all of it. The target is $y = x_1 + x_2$. The *good* candidate sees both inputs and
# has two weights. The *poor* one sees only $x_1$ and has one weight. So alone and well trained, the good one is right
# and the poor one is not. The next cell trains both as a mixture with fixed shares, and then scores each of them alone,
# as a supernet does.


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
# **What you should see.** The numbers are errors, so smaller is better. Where the good candidate has most of the
# weight, it is trained, and the ranking is right. Where it has a tenth of the weight it stays half trained, and the
# ranking turns round. Even the equal mixture does not give the errors of candidates that were trained alone, because
# each has learned to be one half of a sum. This is called *co-adaptation*. The last line trains **one path per step**:
# one of the two candidates, drawn with equal chance, and it counts in full. Both candidates learn to work alone, and
# their errors are those of candidates trained alone. One-shot methods train in this way (Bender et al., 2018; *SPOS*,
# Guo et al., 2020).
#
# What helps, then?
#
# * If the supernet is to *rank* architectures, train paths and not mixtures.
# * Use a longer warm-up, in which the architecture stands still and only the weights of the network are trained.
# * Watch the weights of the modules over the epochs, and stop the search when one of them runs away.
# * Do not trust the scores of the supernet: let it propose a few candidates, and really train those.
# * Always compare it with a predictor that costs nothing. If the number of parameters ranks better than your supernet,
#   the supernet was not worth its price.
#
# A model of three weights proves nothing about a real network. It only shows that this mechanism is enough to turn a
# ranking round. The numbers above show that the result, a backward ranking with broken parallel modules, does happen in
# a real supernet.
#
# ## The test column, once
#
# slides: Everything is chosen; now look, once
#
# Everything is chosen now, and nothing above will be changed after you have seen the test scores. `final = True` opens
# the column. Then the next cell tells whether the answer on validation pictures also holds on pictures that no search
# has seen.

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
# **1. Random search on the table.** Spend a budget of *n* trainings on random architectures, and return the one to
# keep. `table.architectures` is a tuple of names, and `table.val_psnr(name)` trains one of them. You may train *n*
# different ones. (There is a `table.test_psnr(name)`, too.)
#
# *Why it matters.* These two lines are what every search has to beat, and many articles leave them out.


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
# **2. Tau, its ceiling, and a verdict.** `proxy` holds one number per architecture, a predictor. `scores` has one row
# per architecture and one column per training. Return three things:
#
# * the mean tau between the proxy and each training;
# * the ceiling: the mean tau over all pairs of trainings;
# * a word: `"agrees"` if the 95 % interval of the first number lies wholly above 0, `"disagrees"` if it lies wholly
#   below 0, `"undecided"` if it contains 0.
#
# For the interval, redraw *architectures* with replacement, some two hundred times. (This is the small project of this
# notebook.)
#
# *Why it matters.* Nobody can judge a tau without a ceiling and without an interval, and you will meet dozens of them.


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
# **3. The expected best of n.** Write the formula of *Random search, exactly* as a function. `math.comb(n, k)` counts
# the ways to draw k of n. (One line, once the values are sorted.)
#
# *Why it matters.* It turns any list of finished trainings into the curve of a random search, without running one. Draw
# this curve beside that of your own method.


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
# This notebook shows what a few searches are worth *in this table*, at equal cost, and how uncertain that is. It also
# shows how such a claim is made: compare with random search, count the total cost, measure the noise, and keep the test
# scores locked.
#
# It does not show what the same search finds in the spaces of the other notebooks. The space is **tiny**: four modules,
# two branches. Its gates are **tied**: all edges have the same gate. But the gradient search decides every edge by
# itself and its result is reduced to one gate afterwards, which the method does not do. Trainings are **short**, the
# rain is **synthetic**, and there are few photographs, seeds and supernets. And replays are not repetitions: 200 random
# searches on one table all share the noise of that table.
#
# ## Summary
#
# * Compare with random search at equal *total* cost. Report what the chosen architecture is worth when it is trained
#   again.
# * Here gates hardly matter (0.03 dB between them, as much as noise makes) and patterns do (0.30 dB).
# * Compare the tau of a predictor with the tau between two trainings. A tau without an interval is a guess.
# * In a mixture a module is trained in proportion to its weight, but alone it counts in full. So a supernet can rank
#   backwards.
# * With every *undecided*, report the smallest difference that could have been found.
#
# **Next**: 06 ablations. **Or try** `trainings = 16`, or `sample = 8`. Evolution then keeps closer to its best members:
# is it better?
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
