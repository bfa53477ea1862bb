"""Draw figures/ from the committed result files, each as PNG and, but for photographs, PDF: make figures.

The figures of a student's own runs are notebook 10's; these are the kit's evidence (docs/results.md). One whose files
are not there is left out, and said so.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ablations import FILES
from arms import against_searched
from experiments import rows
from matplotlib.figure import Figure

from manas_course import ablation, differences, micro_bench
from manas_course import illustrations as pictures
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
    title = "arms under one protocol: Rain100L pictures held out, PSNR Y"
    return pictures.forest(found, title=title, reference="the searched arm")


def parameters() -> Figure:
    """PSNR against parameters, an arm a point."""
    found = read_json(RESULTS / "arms" / "summary.json")["arms"]
    points = {name: (facts["parameters"] / 1e6, facts["psnr_y"]) for name, facts in found.items()}
    return pictures.scatter(points, x="M parameters", y="PSNR Y, dB", title="mean of each arm's seeds, same training")


@styled
def published() -> Figure:
    """PSNR against parameters: published rows on Rain100L's hundred test pictures, and this kit's models on those ten
    of them that it could score. Hollow marks: another sample, not another method's rank."""
    found = rows(RESULTS / "published" / "Rain100L.csv")
    cards = [read_json(path) for path in sorted(MODELS.glob("*/card.json"))]
    figure = Drawing(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    theirs = [(row["method"], float(row["parameters"]), float(row["psnr_y"])) for row in found]
    ours = [(c["name"], c["parameters"], c["tests"]["Rain100L"]["single"]["psnr_y"]) for c in cards]
    kinds: tuple[tuple[str, list[tuple[str, float, float]], dict[str, Any]], ...] = (
        ("published: 100 pictures, trained on this set", theirs, {"marker": "s", "color": BLACK}),
        ("this kit: 10 of the 100", ours, {"marker": "o", "mfc": "white", "mec": BLUE, "color": BLUE}),
    )
    for label, points, style in kinds:
        _, xs, ys = zip(*points, strict=True)
        axes.plot(xs, ys, linestyle="none", label=label, **style)
        for name, x, y in points:
            axes.annotate(name, (x, y), xytext=(7, -3), textcoords="offset points")
    axes.set(xscale="log", xlabel="parameters", ylabel="PSNR Y, dB", title="Rain100L, Y of MATLAB's rgb2ycbcr")
    axes.margins(x=0.25, y=0.12)
    axes.legend(loc="upper left")
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
    return draw.table_map(gains, micro_bench.PATTERNS, micro_bench.GATES, title=title)


def searches() -> Figure:
    """Three searches on the table: best so far against total cost."""
    bench = micro_bench.load()
    kinds = {
        "random search": [micro_bench.random_search(bench, seed, 64) for seed in range(200)],
        "evolution": [micro_bench.evolution(bench, seed, 64) for seed in range(200)],
        "gradient search": [micro_bench.replay(bench, each) for each in bench.gradient_searches()],
    }
    curves = {name: [(t.seconds, micro_bench.gain(bench, t)) for t in traces] for name, traces in kinds.items()}
    return draw.best_so_far(curves)


@styled
def gallery() -> Figure:
    """A bundled test photograph a row under three rains, rainy and derained by the shipped models."""
    scenes, names = open_split("photos").test[:3], sorted(path.parent.name for path in MODELS.glob("*/card.json"))
    if not names:
        raise FileNotFoundError(MODELS)
    nets = {name: load(name) for name in names}
    figure = Drawing(figsize=(1.7 * (len(names) + 2), 1.35 * len(scenes)), layout="constrained")
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


FIGURE: dict[str, Callable[[], Figure]] = {
    "complexity": complexity,
    "arms": arms,
    "parameters": parameters,
    "published": published,
    "micro_bench": table,
    "searches": searches,
    "gallery": gallery,
}


def everything() -> Iterator[tuple[str, Figure]]:
    """Each figure that has its files, by name."""
    for name, make in FIGURE.items():
        try:
            yield name, make()
        except FileNotFoundError as error:
            print(f"{name}: left out: {error}")
    yield from ablations()


def main() -> None:
    for name, figure in everything():
        for path in draw.save(figure, FIGURES / f"{name}.png", also=() if name == "gallery" else ("pdf",)):
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
