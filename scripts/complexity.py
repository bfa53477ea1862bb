"""Does the complexity weight steer the result? python scripts/complexity.py [--seeds 3]

Searches of the micro_bench space on the bundled photographs, everything the same but the weight (lambda) and the seed;
a row each in results/complexity/searches.csv, costs as shares of the largest architecture's parameters. The same
command continues where it was cut; when all is done, it writes summary.json.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments import ONE_THREAD, append, check_protocol, rows
from scipy import stats

from manas_course.micro_bench import SPACE
from manas_lite import SearchSettings, search
from manas_lite.networks.costs import measure_costs
from manas_lite.runs.progress import Progress
from manas_lite.runs.record import write_json
from manas_lite.runs.settings import to_dict

RESULTS = Path(__file__).resolve().parents[1] / "results" / "complexity"
WEIGHTS = (0.0, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
SETTINGS = SearchSettings.preset("smoke", epochs=8, steps=20, warmup=2, patch=32, compute=ONE_THREAD)
COSTS = ("expected_cost", "derived_cost")


def run(weight: float, seed: int, runs: Path) -> dict[str, Any]:
    """One search; what its architecture costs."""
    settings = replace(SETTINGS, seed=seed, loss=replace(SETTINGS.loss, complexity_weight=weight))
    found = search(SPACE, "photos", settings, runs_dir=runs, name=f"complexity_{weight:g}_{seed}", progress=False)
    return {
        "weight": weight,
        "seed": seed,
        "genotype": found.genotype.id,
        "expected_cost": f"{found.epochs[-1]['expected_cost']:.5f}",
        "derived_cost": f"{found.genotype.cost() / measure_costs(SPACE).largest:.5f}",
        "parallel_modules": found.genotype.modules.count("parallel"),
        "seconds": f"{found.seconds:.1f}",
    }


def summarise(found: list[dict[str, str]]) -> dict[str, Any]:
    """Mean costs a weight, Spearman's correlation of weight and mean cost, and how far the ends lie apart."""
    weights = sorted({float(row["weight"]) for row in found})
    summary: dict[str, Any] = {"weights": weights, "searches": len(found), "space": SPACE.id}
    for cost in COSTS:
        means = [fmean(float(row[cost]) for row in found if float(row["weight"]) == weight) for weight in weights]
        spearman = float(stats.spearmanr(weights, means).statistic)
        summary[cost] = {"means": means, "spearman": spearman, "fall": 1 - means[-1] / means[0]}
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    options = parser.parse_args()
    check_protocol(RESULTS / "protocol.json", {"space": to_dict(SPACE), "search": to_dict(SETTINGS), "data": "photos"})
    table = RESULTS / "searches.csv"
    done = {(float(row["weight"]), int(row["seed"])) for row in rows(table)}
    todo = [(w, seed) for seed in range(options.seeds) for w in WEIGHTS if (w, seed) not in done]
    with Progress(len(todo), "searches") as bar:
        for weight, seed in todo:
            append(table, run(weight, seed, options.runs_dir))
            bar.step()
    write_json(RESULTS / "summary.json", summarise(rows(table)))


if __name__ == "__main__":
    main()
