"""Make the table of a whole small search space: python scripts/micro_bench.py table|search --seeds 0 1 2.

`table` trains every architecture of SPACE that has one gate everywhere, all alike, seed by seed, and appends a row each
to table.csv. `search` runs the searches of ARMS in the same space (searches.csv: an architecture an epoch) and scores
every architecture with each supernet's weights (one_shot.csv). The same command continues where it was cut.

    gradient         the published way; cost has no price
    no entropy       the same without the entropy terms
    price            the preset's price on parameters, 0.01
    longer warm-up   half of the epochs before the architecture moves, in place of two
    masked none      what may not win carries no weight, and the head speaks from the start
    fair paths       a supernet trained by sampled paths; its best architecture on the validation scenes is taken
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
ARMS = {
    "gradient": SEARCH,
    "no entropy": replace(SEARCH, loss=replace(LOSS, alpha_entropy_weight=0.0, beta_entropy_weight=0.0)),
    "price": replace(SEARCH, loss=replace(LOSS, complexity_weight=0.01)),
    "longer warm-up": replace(SEARCH, warmup=6),
    "masked none": replace(SEARCH, mask_barred=True, head_gain=0.1),
    "fair paths": replace(SEARCH, strategy="fair-paths", mask_barred=True, head_gain=0.1, evaluations=16),
}
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


def make_searches(arm: str, seeds: list[int], target: Path, runs: Path) -> None:
    """A search's architecture after each epoch; edges are tied afterwards, to the gate of the largest mean weight.

    Sampled paths have no weights of choices. Their architecture is the best of all by the supernet's weights, once, at
    the end, and the scoring of all is part of its seconds.
    """
    split, searched, scored = open_split("photos"), target / "searches.csv", target / "one_shot.csv"
    counts = Counter(int(row["seed"]) for row in rows(scored) if row["arm"] == arm)
    for seed in seeds:
        if counts[seed] == len(ARCHITECTURES):
            continue
        name = f"micro_{arm.replace(' ', '_')}_{seed}"
        found, seconds = timed_search(SPACE, split, replace(ARMS[arm], seed=seed), runs=runs, name=name)
        start, own = time.process_time(), {"arm": arm, "seed": seed}
        scores = [one_shot(found.supernet, *each) for each in ARCHITECTURES]
        scoring = time.process_time() - start
        epochs: list[dict[str, Any]] = []
        if ARMS[arm].strategy == "gradient":
            for record in found.epochs:
                gates = dict(zip(SPACE.operations, map(fmean, zip(*record["beta"], strict=True)), strict=True))
                pattern = "".join("pf"[int(f > p)] for p, f in record["alpha"])
                gate = max(GATES, key=gates.__getitem__)
                spent = seconds * (record["epoch"] + 1) / len(found.epochs)
                epochs.append(
                    own | {"epoch": record["epoch"], "modules": pattern, "gate": gate, "seconds": f"{spent:.2f}"}
                )
        else:
            pattern, gate = ARCHITECTURES[scores.index(max(scores))]
            last = {"epoch": len(found.epochs) - 1, "modules": pattern, "gate": gate}
            epochs.append(own | last | {"seconds": f"{seconds + scoring:.2f}"})
        inherited = [
            own | {"modules": pattern, "gate": gate, "val_psnr": f"{score:.5f}"}
            for (pattern, gate), score in zip(ARCHITECTURES, scores, strict=True)
        ]
        # Scores last: a seed counts as done by them, and a cut leaves no half of it behind.
        for path, new in ((searched, epochs), (scored, inherited)):
            others = (row for row in rows(path) if (row["arm"], int(row["seed"])) != (arm, seed))
            rewrite(path, [*others, *new])


def one_shot(supernet: SuperNet, pattern: str, gate: str) -> float:
    """Validation PSNR of an architecture with weights inherited from the supernet, untrained."""
    net = DerainNet(genotype_of(pattern, gate)).inherit(supernet).eval()
    return validation_psnr(net, open_split("photos").val, Compute(ONE_THREAD))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("table", "search"))
    parser.add_argument("--arm", choices=ARMS, default="gradient", help="which kind of search")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=TABLE_FOLDER)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    check_protocol(arguments.out / "manifest.json", PROTOCOL)
    if arguments.what == "table":
        make_table(arguments.seeds, arguments.out)
    else:
        make_searches(arguments.arm, arguments.seeds, arguments.out, arguments.runs_dir)


if __name__ == "__main__":
    main()
