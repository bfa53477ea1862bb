# %% tags=["parameters"]
runs_dir = "runs"  # runs: in the clone; on Colab on your Drive; else in ~/manas_lite
figures_dir = "figures/course"  # where figures go; relative: beside runs_dir
search_name = "search"  # run of notebook 03
network = "searched"  # run of notebook 04
formats = ["pdf", "svg"]  # written beside each PNG

# %% tags=["imports"]
import csv

import numpy as np

from manas_course import micro_bench
from manas_course.micro_bench import figures
from manas_lite import draw, open_split
from manas_course import ablation, checks, differences, illustrations as pictures, toy
from manas_lite.networks.genotype import Genotype
from manas_lite.rain import rain_scene
from manas_lite.runs.record import read_json, read_log

# %% [markdown]
# ## Figures from files
#
# slides: One command, one year later, by someone else
# slides: Files in, figures and their numbers out
#
# Someone else should be able to rebuild every figure of a report a year later, by one command, from the files that
# the runs left. This notebook trains nothing and evaluates nothing. It reads `genotype.json`, `log.jsonl`,
# `metrics.json` and the results of ablations. It writes every figure, and the numbers behind it beside it.
#
# > **Predict.** The figures below are numbered from 1 to 6. Which of them would change if you ran the search again
# > with another seed?
#
# <details><summary>Answer: write yours down first, then click</summary>
#
# Figures 3, 4 and 5: those of the search, of the training and of the ablation. The scene, the toy and the table (1, 2
# and 6) are made from a photograph, a formula and a file of the package, and a new search changes none of these.
#
# </details>

# %%
out = course.runs_folder(runs_dir).parent / figures_dir
search_run = course.find_run(runs_dir, search_name, made_by="03", needs="genotype.json")
trained_run = course.find_run(runs_dir, network, made_by="04", needs="metrics.json")
written = []


def keep(figure, name, rows=()):
    """Write a figure and its numbers; returns the figure."""
    written.extend(draw.save(figure, out / f"{name}.png", also=tuple(formats)))
    if rows:
        with open(out / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
        written.append(out / f"{name}.csv")
    return figure


# %% [markdown]
# ## 1. A scene under several rains
#
# slides: One clean picture, its rains

# %%
clean = open_split("photos").test[0].clean.read()
keep(draw.scene(rain_scene(clean, seed=0)), "scene")

# %% [markdown]
# **What you should see.** The same picture as on every other machine. The rain follows from its seed, so this figure
# needs no file but the photograph.
#
# ## 2. The toy, three orders
#
# slides: Where each order of gradient ends
#
# This is the toy of notebook 03: one weight w, one architecture number a, and three ways to take the gradient.

# %%
paths = [toy.descend("first"), toy.descend("finite-difference"), toy.descend("exact")]
rows = [["order", "w", "a"], *([p.label, *p.end] for p in paths)]
keep(pictures.phase_plane(paths), "toy", rows)

# %%
# NBVAL_CHECK_OUTPUT
for path in paths:
    print(f"{path.label:<18} ends at w = {path.end[0]:.2f}, a = {path.end[1]:.2f}")

# %% [markdown]
# ## 3. The search, on one time axis
#
# slides: Losses, entropy, weights: one axis
#
# The next three cells draw the search of notebook 03: its curves, its weights at the end, and the network that it
# derives.

# %%
log, genotype = read_log(search_run), Genotype.load(search_run / "genotype.json")
epochs = [record for record in log if record["kind"] == "epoch"]
facts = ["step", "alpha_entropy", "beta_entropy", "skip_share", "expected_cost"]
rows = [facts, *([record[name] for name in facts] for record in epochs)]
keep(draw.search_curves(log, genotype.space), "search", rows)

# %%
last = epochs[-1]
keep(draw.mixture(last["alpha"], last["beta"], genotype.space), "relaxed")

# %%
keep(draw.architecture(genotype), "derived")

# %% [markdown]
# **What you should see.** Three views of one search: the weights over time, the weights at the end, and what argmax
# keeps of them. In the second figure a thick line is a large weight. The third figure names the operation of the
# thickest line at each place (`none` left out, because it may not win).
#
# ## 4. The training
#
# slides: Loss and validation PSNR
#
# The first figure shows the training of notebook 04. The second one shows the PSNR of its networks: the rainy input,
# the supernet, the derived network with the weights of the supernet (the difference of these two is the gap), and the
# retrained network.

# %%
training = read_log(trained_run)
keep(draw.training_curves(training), "training")

# %%
gap_file, figure = trained_run / "gap.json", None
if gap_file.is_file():
    gap = read_json(gap_file)
    rows = [["network", "PSNR (RGB), dB"], *gap.items()]
    figure = pictures.bars(
        gap, title="validation scenes", unit="PSNR (RGB), dB", start=min(gap.values()) - 0.5
    )
    keep(figure, "gap", rows)
else:
    print("no gap.json: notebook 04 writes it")
figure

# %% [markdown]
# **Stop here if short of time.**
#
# ## 5. The ablation
#
# slides: Differences with intervals
#
# If you have at least two arms of your own, `full` among them, the figures show those. Otherwise they show the arms
# that come with the package. These were trained for a short time, and serve only to learn how to read such a figure.

# %%
mine = ablation.comparable(ablation.results(course.runs_folder(runs_dir)))
usable = len({r["arm"] for r in mine}) > 1 and any(r["arm"] == "full" for r in mine)
shipped = course.shipped("ablation") / "results.json"
results = mine if usable else ablation.read_results(shipped)
sizes = sorted({r["settings"]["size"] for r in results})
comparison = differences.compare(results)
columns = list(comparison[0])
rows = [columns, *([row[c] for c in columns] for row in comparison)]
title = f"{'your runs' if usable else 'shipped runs'}, size {', '.join(sizes)}, validation"
keep(pictures.forest(comparison, title=title), "forest", rows)

# %%
points = {}
for name in dict.fromkeys(r["arm"] for r in results):
    runs = [r for r in results if r["arm"] == name]
    psnr = np.mean([np.mean(list(r["images"].values())) for r in runs])
    points[name] = (float(np.mean([r["parameters"] for r in runs])), float(psnr))
figure = pictures.scatter(
    points,
    x="parameters",
    y="PSNR (RGB), dB",
    title=f"mean of {len(runs)} runs an arm; {title}",
)
keep(
    figure, "parameters", [["arm", "parameters", "PSNR"], *([k, *v] for k, v in points.items())]
)

# %% [markdown]
# **What you should see.** Each arm is one point. Before you see a trend in the points, remember that the seeds of one
# arm lie apart, too (notebook 06 prints each run).
#
# ## 6. The table, and three searches on it
#
# slides: 128 networks, three searches
#
# The table of notebook 05 is a file as well: 128 architectures, each trained with several seeds. So its figures can
# be rebuilt, too.

# %%
bench = micro_bench.load()
gains = bench.scores("val_psnr")
gains = (gains - gains.mean(0)).mean(1).reshape(len(micro_bench.PATTERNS), -1)
rows = [
    ["modules", *micro_bench.GATES],
    *([p, *row] for p, row in zip(micro_bench.PATTERNS, gains, strict=True)),
]
title = f"gain over an average architecture, dB: mean of {len(bench.seeds)} trainings"
keep(
    figures.table_map(gains, micro_bench.PATTERNS, micro_bench.GATES, title=title),
    "micro_bench",
    rows,
)

# %% [markdown]
# The next figure shows cost and quality of the same architectures. Which of them would you take? With two aims there
# is rarely *one* best. An architecture is beaten by another one that is as cheap and better, or as good and cheaper,
# or better in both. The **Pareto front** holds the architectures that no other one beats.

# %%
cost, quality = bench.scores("parameters")[:, 0], gains.ravel()
each = zip(bench.architectures, cost, quality, strict=True)
rows = [["modules", "gate", "parameters", "gain, dB"], *([*a, c, q] for a, c, q in each)]
keep(
    figures.front(cost, quality, x="parameters", y="gain, dB", title="128 architectures"),
    "front",
    rows,
)

# %% [markdown]
# **What you should see.** The front is a line that steps up, and most architectures lie below it. The members of the
# front were picked for their scores, and a part of a high score is luck. With other training seeds, some of them
# would be others. Exercise 1 asks for the front.

# %%
traces = {
    "random search": [micro_bench.random_search(bench, k, 64) for k in range(200)],
    "evolution": [micro_bench.evolution(bench, k, 64) for k in range(200)],
    "gradient search": [micro_bench.replay(bench, s) for s in bench.gradient_searches()],
}
curves = {
    kind: [(trace.seconds, micro_bench.gain(bench, trace)) for trace in each]
    for kind, each in traces.items()
}
verdicts = {
    kind: micro_bench.against(bench, traces["gradient search"], traces[kind])
    for kind in ("random search", "evolution")
}
rows = [["gradient search minus", "dB at equal cost", "low", "high", "detectable", "verdict"]]
for kind, found in verdicts.items():
    rows.append([kind, found.mean, found.low, found.high, found.detectable, found.verdict])
keep(figures.best_so_far(curves, best=gains.max()), "searches", rows)

# %% [markdown]
# **What you should see.** The curves show what each kind of search has found after how much computing. The curves
# alone decide nothing. The numbers that decide are in the file beside the figure, `searches.csv`, and the next cell
# prints them: the difference at equal total cost, its interval and its verdict, by the same rule as in notebook 05.

# %%
print("gradient search minus   dB at equal cost   95 % interval    verdict")
for kind, found in verdicts.items():
    print(
        f"{kind:<24}{found.mean:>+16.2f}   [{found.low:+.2f}, {found.high:+.2f}]   {found.verdict}"
    )
found = verdicts["random search"]
print(f"the least that {found.searches} searches would show: {found.detectable:.2f} dB")

# %% [markdown]
# **What you should see.** A verdict for each comparison. The verdict is *better* or *worse* if the interval does not
# contain zero, *equivalent* if the difference is shown to be less than 0.15 dB, and else *undecided*. With the table
# that the package brings both are *undecided*: the curve of the gradient search ends below the others, but five
# searches differ too much from each other to prove a difference.
#
# You can now check your answer to the first question: with another seed the scene, the toy and the table would be the
# same, and all that comes from your runs would not.
#
# ## What was written
#
# slides: A file for every figure, its numbers beside it
#
# Each figure was written for the screen (PNG) and in your `formats`, and its numbers as a table (CSV):

# %%
assert all(path.stat().st_size > 0 for path in written)
for path in written:
    print(f"{path.name:<18} {path.stat().st_size / 1024:8.1f} kB")

# %% [markdown]
# ## Exercises
#
# **1. The front.** `points` are networks, each with a cost and a quality. Return the indices of those that no other
# point beats. A point is beaten by one that costs no more *and* is no worse, and that differs from it in at least one
# of the two.
#
# *Why it matters.* With two aims there is rarely one best network. A table that prints one of them bold has already
# chosen for its reader.


# %% tags=["exercise", "exercise:pareto_front"]
def my_front(points):
    """points: list of (cost, quality) -> indices of those that none beats."""

    # BEGIN SOLUTION
    def beats(a, b):
        return a[0] <= b[0] and a[1] >= b[1] and a != b

    return [k for k, p in enumerate(points) if not any(beats(q, p) for q in points)]
    # END SOLUTION


# %% tags=["check", "check:pareto_front"]
checks.pareto_front(my_front)

# %% [markdown]
# **2. As many digits as are known.** Return mean and standard deviation as a text: `"24.6 ± 0.5"`, or `"25 ± 3"`.
# Take the sample standard deviation (divide by n − 1). Round it to *one* significant digit, and round the mean to the
# same place. So a deviation of 23 becomes 20, and the mean is then rounded to tens.
#
# *Why it matters.* Half a decibel of noise makes the third decimal of a mean meaningless. Whoever prints it has not
# looked at the noise.


# %% tags=["exercise", "exercise:mean_and_deviation"]
def my_summary(values):
    """values: list of numbers -> text."""
    # BEGIN SOLUTION
    mean, deviation = np.mean(values), np.std(values, ddof=1)
    digits = -int(f"{deviation:.0e}".split("e")[1])  # of the deviation, once rounded
    places = max(digits, 0)
    return f"{round(mean, digits):.{places}f} ± {round(deviation, digits):.{places}f}"
    # END SOLUTION


# %% tags=["check", "check:mean_and_deviation"]
checks.mean_and_deviation(my_summary)

# %% [markdown]
# **3. The lie factor** (E. Tufte). Bars that do not begin at 0 make a change look larger than it is. The change from
# a first to a second number is (second − first) / first. Return the change of the *heights of the bars*, divided by
# the change of the *values*. A bar reaches from `start` up to its value.
#
# *Why it matters.* If bars begin at 19 dB, the bar of 21 dB is twice as high as the bar of 20 dB. The bars of
# notebook 04 begin in this way, and say it in their title. Decide for yourself whether that is enough.


# %% tags=["exercise", "exercise:lie_factor"]
def my_lie_factor(first, second, start):
    """Two values, and where the axis of the bars starts, below both -> a number."""
    # BEGIN SOLUTION
    shown = (second - first) / (first - start)
    real = (second - first) / first
    return shown / real
    # END SOLUTION


# %% tags=["check", "check:lie_factor"]
checks.lie_factor(my_lie_factor)

# %% [markdown]
# ## What this shows, and what it does not
#
# slides: Figures follow from files
# slides: A picture of three runs is still three runs
#
# This notebook shows that the figures follow from the files. It does not show whether the results deserve a figure:
# notebook 06 is about that. A picture of three runs is still three runs.
#
# ## Summary
#
# * Make every figure from files, and write its numbers beside it. Use PNG for the screen and PDF for print.
#
# **Next**: 11 search under a budget, or your own report. **Or try** `formats = ["pdf"]`, and `figures_dir` in the folder of your report.
#
# **References.** L. Cai et al., *MANAS*, arXiv 2207.00728 · M. Okabe, K. Ito, *Color universal design*, 2008 (the colours
# of all figures).

# %% tags=["record"]
course.record_results(
    figures=len([path for path in written if path.suffix == ".png"]),
    files=len(written),
    genotype=genotype.id,
    verdicts={row["arm"]: row["verdict"] for row in comparison},
)
