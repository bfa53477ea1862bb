"""Make the table of a whole small search space: python scripts/micro_bench.py table|search --seeds 0 1 2.

`table` trains every architecture of SPACE that has one gate everywhere, all alike, seed by seed, and appends a row each
to table.csv; the same command continues where it was cut. `search` runs gradient searches in the same space
(searches.csv: an architecture an epoch) and scores every architecture with each supernet's weights (one_shot.csv).
"""

import argparse
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from experiments import ONE_THREAD, append, check_protocol, rewrite, rows, timed_search, train

from manas_course.micro_bench import ARCHITECTURES, GATES, SPACE, TABLE_FOLDER, genotype_of
from manas_lite import DerainNet, RetrainSettings, SearchSettings, SuperNet
from manas_lite.compute.runtime import Compute
from manas_lite.data import SceneBatch, open_split
from manas_lite.networks.costs import count_parameters
from manas_lite.runs.environment import describe_environment
from manas_lite.runs.progress import Progress
from manas_lite.runs.record import write_json
from manas_lite.runs.settings import to_dict
from manas_lite.training.evaluation import evaluate, mean_scores, validation_psnr
from manas_lite.training.loop import training_batches

# So short a training does without the internal loss. Nor has cost a price, as searches are compared by PSNR alone; what
# the preset's 0.01 led to lies in results/micro_bench.
LOSS = replace(RetrainSettings.preset("teach").loss, internal_weight=0.0, complexity_weight=0.0)
RECIPE = RetrainSettings.preset("teach", epochs=1, steps=400, batch=2, patch=48, loss=LOSS, compute=ONE_THREAD)
SEARCH = SearchSettings.preset("teach", epochs=12, warmup=2, batch=2, patch=48, loss=LOSS, compute=ONE_THREAD)
PROTOCOL = {"data": "photos", "space": to_dict(SPACE), "recipe": to_dict(RECIPE), "search": to_dict(SEARCH)}


def make_table(seeds: list[int], target: Path) -> None:
    split, compute = open_split("photos"), Compute(ONE_THREAD)
    done = {(row["modules"], row["gate"], int(row["seed"])) for row in rows(target / "table.csv")}
    todo = [(*names, seed) for seed in seeds for names in ARCHITECTURES if (*names, seed) not in done]
    batches: tuple[int, list[SceneBatch]] = (-1, [])
    with compute.session(), Progress(len(todo), "table") as bar:
        for pattern, gate, seed in todo:
            if batches[0] != seed:  # all architectures of a seed see the same patches in the same order
                batches = seed, list(training_batches(split.train, RECIPE, seed=seed, start=0))
            genotype, start = genotype_of(pattern, gate), time.process_time()
            net = train(DerainNet(genotype, seed=seed), batches[1], RECIPE, compute)
            row: dict[str, Any] = {"modules": pattern, "gate": gate, "seed": seed}
            seconds = time.process_time() - start
            for part, scenes in {"val": split.val, "test": split.test}.items():
                row |= {
                    f"{part}_{measure}": f"{value:.5f}" for measure, value in mean_scores(net, scenes, compute).items()
                }
            row |= {"parameters": count_parameters(net), "flops": int(genotype.cost("flops"))}
            append(target / "table.csv", row | {"seconds": f"{seconds:.2f}"})
            bar.step()
    write_manifest(target, evaluate(torch.nn.Identity(), split.val, conventions=("rgb",), compute=ONE_THREAD).means())


def write_manifest(target: Path, rainy: Mapping[str, float]) -> None:
    facts = describe_environment()
    write_json(
        target / "manifest.json",
        {
            **PROTOCOL,
            "split": open_split("photos").sha256,
            "rainy_val": {name.removeprefix("rainy_"): value for name, value in rainy.items() if "rainy" in name},
            "seeds": sorted({int(row["seed"]) for row in rows(target / "table.csv")}),
            "versions": facts["versions"],
            "cpu": facts["cpu"],
            "threads": ONE_THREAD.threads,
            "date": time.strftime("%Y-%m-%d"),
            "command": "python scripts/micro_bench.py",
        },
    )


def make_searches(seeds: list[int], target: Path, runs: Path) -> None:
    """A search's architecture after each epoch; edges are tied afterwards, to the gate of the largest mean weight."""
    split, searched, scored = open_split("photos"), target / "searches.csv", target / "one_shot.csv"
    counts = Counter(int(row["seed"]) for row in rows(scored))
    for seed in seeds:
        if counts[seed] == len(ARCHITECTURES):
            continue
        found, seconds = timed_search(SPACE, split, replace(SEARCH, seed=seed), runs=runs, name=f"micro_search_{seed}")
        epochs: list[dict[str, Any]] = []
        for record in found.epochs:
            gates = dict(zip(SPACE.operations, map(fmean, zip(*record["beta"], strict=True)), strict=True))
            epochs.append(
                {
                    "seed": seed,
                    "epoch": record["epoch"],
                    "modules": "".join("pf"[int(f > p)] for p, f in record["alpha"]),
                    "gate": max(GATES, key=gates.__getitem__),
                    "seconds": f"{seconds * (record['epoch'] + 1) / len(found.epochs):.2f}",
                }
            )
        scores = [
            {
                "seed": seed,
                "modules": pattern,
                "gate": gate,
                "val_psnr": f"{one_shot(found.supernet, pattern, gate):.5f}",
            }
            for pattern, gate in ARCHITECTURES
        ]
        # Scores last: a seed counts as done by them, and a cut leaves no half of it behind.
        for path, new in ((searched, epochs), (scored, scores)):
            rewrite(path, [*(row for row in rows(path) if int(row["seed"]) != seed), *new])


def one_shot(supernet: SuperNet, pattern: str, gate: str) -> float:
    """Validation PSNR of an architecture with weights inherited from the supernet, untrained."""
    net = DerainNet(genotype_of(pattern, gate)).inherit(supernet).eval()
    return validation_psnr(net, open_split("photos").val, Compute(ONE_THREAD))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("table", "search"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=TABLE_FOLDER)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    check_protocol(arguments.out / "manifest.json", PROTOCOL)
    if arguments.what == "table":
        make_table(arguments.seeds, arguments.out)
    else:
        make_searches(arguments.seeds, arguments.out, arguments.runs_dir)


if __name__ == "__main__":
    main()
