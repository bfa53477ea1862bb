"""Draw figures/ from the committed result files, each as PNG and, but for photographs, PDF: make figures.

The figures of a student's own runs are notebook 10's; these are the kit's evidence (docs/results.md). One whose files
are not there is left out, and said so. `python scripts/figures.py arms` draws that one alone.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ablations import FILES
from arms import against_searched
from experiments import rows
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from manas_course import ablation, differences, micro_bench
from manas_course import illustrations as pictures
from manas_course.micro_bench.figures import best_so_far, table_map
from manas_lite import draw, load, open_split
from manas_lite.draw.style import BLACK, BLUE, Drawing, styled
from manas_lite.photos.inference import derain
from manas_lite.runs.record import read_json

ROOT = Path(__file__).resolve().parents[1]
FIGURES, RESULTS, MODELS = ROOT / "figures", ROOT / "results", ROOT / "manas_lite" / "assets" / "models"
LEVELS = ("light", "medium", "heavy")


@styled
def complexity() -> Figure:
    """Cost of relaxed and derived networks against the complexity weight: a point a search, the means a line."""
    found, summary = rows(RESULTS / "complexity" / "searches.csv"), read_json(RESULTS / "complexity" / "summary.json")
    figure = Drawing(figsize=(7, 2.8), layout="constrained")
    places = {weight: place for place, weight in enumerate(summary["weights"])}
    names = {"expected_cost": "of the relaxed network", "derived_cost": "of the derived network"}
    for axes, (cost, name) in zip(figure.subplots(1, 2, sharey=True), names.items(), strict=True):
        xs, ys = zip(*((places[float(row["weight"])], float(row[cost])) for row in found), strict=True)
        axes.plot(xs, ys, "o", color=BLUE, alpha=0.4)
        axes.plot(list(places.values()), summary[cost]["means"], color=BLACK)
        axes.set_xticks(list(places.values()), [f"{weight:g}" for weight in places])
        axes.set(xlabel="complexity weight", title=f"{name}: rank correlation {summary[cost]['spearman']:.2f}")
    figure.axes[0].set_ylabel("parameters, share of the largest")
    return figure


def arms() -> Figure:
    """Every arm's difference to the searched one."""
    found = against_searched(read_json(RESULTS / "arms" / "summary.json")["seeds"])
    title = "arms at equal FLOPs: Rain100L pictures held out, PSNR Y"
    return pictures.forest(found, title=title, reference="the searched arm")


def parameters() -> Figure:
    """PSNR against parameters, an arm a point."""
    found = read_json(RESULTS / "arms" / "summary.json")["arms"]
    points = {name: (facts["parameters"] / 1e6, facts["psnr_y"]) for name, facts in found.items()}
    return pictures.scatter(points, x="M parameters", y="PSNR Y, dB", title="mean of each arm's seeds, same training")


@styled
def published() -> Figure:
    """PSNR against what it costs: published rows on Rain100L's hundred test pictures, and this kit's models on those
    ten of them that it could score. Hollow marks: another sample, not another method's rank. Cards were measured on
    several machines, each beside a network of PReNet's shape; the seconds are put on one scale by that."""
    found = rows(RESULTS / "published" / "Rain100L.csv")
    cards = [read_json(path) for path in sorted(MODELS.glob("*/card.json"))]
    figure = Drawing(figsize=(11.0, 3.8), layout="constrained")
    seconds = {"PReNet": cards[0]["speed"]["prenet_seconds"]}
    axes_of = {
        "G multiply-adds on 256 x 256 pixels": (
            lambda row: row["gmacs_256"],
            lambda card: card["flops_256"] / 2e9,  # published counts are of multiply-adds
        ),
        "seconds for 481 x 321 pixels, one thread": (
            lambda row: seconds.get(row["method"]),
            lambda card: card["speed"]["seconds"] * seconds["PReNet"] / card["speed"]["prenet_seconds"],
        ),
        "parameters": (lambda row: row["parameters"], lambda card: card["parameters"]),
    }
    panels: list[tuple[Axes, dict[str, tuple[float, float]]]] = []
    for axes, (label, (of_row, of_card)) in zip(figure.subplots(1, 3, sharey=True), axes_of.items(), strict=True):
        kinds: tuple[tuple[str, list[tuple[str, Any, float]], dict[str, Any]], ...] = (
            (
                "published: 100 pictures, trained on this set",
                [
                    (row["method"], of_row(row), float(row["psnr_y"]))
                    for row in found
                    if "Rain13K" not in row["protocol"]
                ],
                {"marker": "s", "color": BLACK},
            ),
            (
                "published: trained on Rain13K",
                [(row["method"], of_row(row), float(row["psnr_y"])) for row in found if "Rain13K" in row["protocol"]],
                {"marker": "x", "color": BLACK},
            ),
            (
                "this kit: 10 of the 100",
                [(c["name"], of_card(c), c["tests"]["Rain100L"]["single"]["psnr_y"]) for c in cards],
                {"marker": "o", "mfc": "white", "mec": BLUE, "color": BLUE},
            ),
        )
        named: dict[str, tuple[float, float]] = {}
        for name, points, style in kinds:
            known = {method: (float(x), y) for method, x, y in points if x}
            if known:
                axes.plot(*zip(*known.values(), strict=True), linestyle="none", label=name, **style)
            named |= known
        panels.append((axes, named))
        axes.set(xscale="log", xlabel=label)
        axes.margins(x=0.3, y=0.12)
    figure.axes[0].set_ylabel("PSNR Y, dB")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.suptitle("Rain100L, Y of MATLAB's rgb2ycbcr", fontsize=9)
    figure.draw_without_rendering()  # the layout decides where points lie on the page
    for axes, named in panels:
        pictures.name_points(axes, named, list(named.values()))
    return figure


def ablations() -> Iterator[tuple[str, Figure]]:
    """Every set's arms against the full method."""
    for name, path in FILES.items():
        if not path.exists():
            continue
        found = ablation.comparable(ablation.read_results(path))
        settings = found[0]["settings"]
        title = f"{name}: {settings['search_steps']} search and {settings['retrain_steps']} training steps"
        yield f"ablations-{name}", pictures.forest(differences.compare(found), title=title)


def table() -> Figure:
    """The whole small space at a glance."""
    bench = micro_bench.load()
    scores = bench.scores("val_psnr")
    gains = (scores - scores.mean(0)).mean(1).reshape(len(micro_bench.PATTERNS), len(micro_bench.GATES))
    title = f"gain over an average architecture, dB: mean of {len(bench.seeds)} trainings"
    return table_map(gains, micro_bench.PATTERNS, micro_bench.GATES, title=title)


def searches() -> Figure:
    """Three searches on the table: best so far against total cost."""
    bench = micro_bench.load()
    kinds = {
        "random search": [micro_bench.random_search(bench, seed, 64) for seed in range(200)],
        "evolution": [micro_bench.evolution(bench, seed, 64) for seed in range(200)],
        "gradient search": [micro_bench.replay(bench, each) for each in bench.gradient_searches()],
    }
    curves = {name: [(t.seconds, micro_bench.gain(bench, t)) for t in traces] for name, traces in kinds.items()}
    return best_so_far(curves)


@styled
def gallery() -> Figure:
    """A bundled test photograph a row under three rains, rainy and derained by the shipped models."""
    scenes, names = open_split("photos").test[:3], sorted(path.parent.name for path in MODELS.glob("*/card.json"))
    if not names:
        raise FileNotFoundError(MODELS)
    nets = {name: load(name) for name in names}
    figure = Drawing(figsize=(1.6 * (len(names) + 2), 1.27 * len(scenes)), layout="constrained")
    for panels, scene, level in zip(figure.subplots(len(scenes), len(names) + 2), scenes, LEVELS, strict=True):
        rainy, clean = scene.read()
        image = rainy[scene.labels.index(level)]
        columns = {f"{level} rain": image, **{name: derain(image, net) for name, net in nets.items()}, "clean": clean}
        for axes, (name, picture) in zip(panels, columns.items(), strict=True):
            error = np.mean((picture.astype(float) - clean) ** 2)
            axes.imshow(picture)
            axes.set_title(name if name == "clean" else f"{name}: {10 * np.log10(255**2 / error):.1f} dB")
            axes.set_axis_off()
    return figure


@styled
def rain_statistics() -> Figure:
    """Rain of the published sets and of this kit's recipes: median, middle half and nine tenths of the pictures."""
    found = rows(RESULTS / "rain" / "statistics.csv")
    kinds = list(dict.fromkeys(row["rain"] for row in found))
    names = {
        "share": "share of pixels",
        "brightness": "brightness",
        "angle": "degrees from the vertical",
        "length": "length, pixels",
        "width": "width, pixels",
    }
    figure = Drawing(figsize=(11.0, 2.9), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, len(names), sharey=True), names.items(), strict=True):
        for place, kind in enumerate(kinds):
            values = [float(row[name]) for row in found if row["rain"] == kind]
            low, first, median, third, high = np.nanpercentile(values, [5, 25, 50, 75, 95])
            colour = BLUE if kind == "wild" else BLACK
            axes.plot([low, high], [place, place], color=colour, linewidth=1)
            axes.plot([first, third], [place, place], color=colour, linewidth=4)
            axes.plot(median, place, "o", color="white", markeredgecolor=colour, markersize=5)
        axes.set(title=title)
    figure.axes[0].set_yticks(range(len(kinds)), kinds)
    figure.axes[0].invert_yaxis()
    return figure


FIGURE: dict[str, Callable[[], Figure]] = {
    "complexity": complexity,
    "arms": arms,
    "parameters": parameters,
    "published": published,
    "micro_bench": table,
    "searches": searches,
    "rain_statistics": rain_statistics,
    "gallery": gallery,
}


def drawn(names: list[str]) -> Iterator[tuple[str, Figure]]:
    """Each figure that has its files, by name: of these, or all."""
    for name, make in FIGURE.items():
        try:
            if name in names or not names:
                yield name, make()
        except FileNotFoundError as error:
            print(f"{name}: left out: {error}")
    if not names:
        yield from ablations()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all; one of {', '.join(FIGURE)}")
    options = parser.parse_args()
    if unknown := set(options.names) - set(FIGURE):
        parser.error(f"no figure is called {', '.join(sorted(unknown))}: choose among {', '.join(FIGURE)}")
    for name, figure in drawn(options.names):
        for path in draw.save(figure, FIGURES / f"{name}.png", also=() if name == "gallery" else ("pdf",)):
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
