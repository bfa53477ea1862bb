"""Does the search help, at equal FLOPs? python scripts/equal_flops.py --data FOLDER [--seeds 10]

FOLDER holds Rain100L, whose training pairs are divided into those that train, choose (20) and report (30): no test
picture of the set is opened. Every network is trained alike: same pictures, crops, order, initial seed, steps. All have
the same FLOPs within a few percent and the same 3x3 head, so that what is compared is the kind of network.

    searched         gradient search within the budget, a search per seed
    sampled paths    a supernet trained by sampled paths, and evolution within the budget
    random           one architecture of the budget, drawn at random
    random search    more such draws, till their trainings cost what search and training of the searched one do, the
                     last brought to its end; the best on the choosing pictures
    hand_made        HRNet's pattern with squeeze-and-excitation, as many modules as come nearest to the budget
    plain            residual blocks at half resolution, no branch, no gate, as many as come nearest to the budget

A row per trained network in results/equal_flops/runs.csv, a row per picture in images.csv; the same command continues
where it was cut, refuses rows of another protocol (protocol.json), and writes summary.json of all seeds that are done.
"""

import argparse
import itertools
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import arms
import torch
from experiments import ONE_THREAD, check_protocol
from torch import nn

from manas_lite import DerainNet, Genotype, RetrainSettings, SearchSettings, SearchSpace
from manas_lite.networks.budget import random_within
from manas_lite.networks.costs import measure_costs
from manas_lite.runs.progress import Progress
from manas_lite.runs.record import write_json
from manas_lite.runs.settings import to_dict
from manas_lite.training.evaluation import validation_psnr

RESULTS = Path(__file__).resolve().parents[1] / "results" / "equal_flops"
SPACE = SearchSpace.preset("lite", modules_per_cell=10)
BUDGET = 4.5e9  # FLOPs on 256 x 256 pixels: in the middle of what the space offers
SEARCH = SearchSettings.preset(
    "lite",
    epochs=12,
    steps=30,
    batch=2,
    warmup=3,
    eigenvalue_every=0,
    mask_barred=True,
    head_gain=0.1,
    budget=BUDGET,
    compute=ONE_THREAD,
)
SEARCH = replace(SEARCH, loss=replace(SEARCH.loss, complexity_weight=0.0))  # the budget stands in for the price
SEARCHES = {
    "searched": SEARCH,
    "sampled paths": replace(SEARCH, strategy="fair-paths", steps=80, evaluations=60, score_batches=2),
}
LEAST_GAIN = 3.0
RECIPE = RetrainSettings.preset(
    "lite", epochs=1, steps=1000, warmup=50, ema=0.99, compute=replace(ONE_THREAD, precision="bf16")
)
BEST = "random search"
ARMS = (*SEARCHES, "random", BEST, "hand_made", "plain")
PROTOCOL = {
    "data": "Rain100L, training pairs in three parts",
    "space": to_dict(SPACE),
    "searches": {arm: to_dict(settings) for arm, settings in SEARCHES.items()},
    "recipe": to_dict(RECIPE),
    "precision": RECIPE.compute.precision,
}


class Study(arms.Study):
    """One seed of every arm of equal FLOPs."""

    folder, arms, best = RESULTS, ARMS, BEST
    space, settings, recipe = SPACE, SEARCHES, RECIPE

    def networks(self, arm: str) -> Iterator[nn.Module]:
        """What an arm trains, in turn: one network, or the k candidates of random search."""
        if arm in SEARCHES:
            yield DerainNet(self.searches[arm][0].genotype, seed=self.seed)
        elif arm == "random":
            costs = measure_costs(SPACE, "flops")
            for candidate in itertools.count():
                yield DerainNet(random_within(SPACE, costs, BUDGET, 1000 * self.seed + candidate), seed=self.seed)
        elif arm == "plain":
            yield arms.Plain.of_cost(BUDGET, seed=self.seed)
        else:
            yield DerainNet(hand_made(BUDGET), seed=self.seed)

    def further(self, arm: str, net: nn.Module, trained: nn.Module, val: dict[str, float]) -> dict[str, Any]:
        """The columns of this study alone."""
        return {
            "val_psnr_rgb": val["psnr_rgb"],
            # Of the gains: a mean of PSNR over crops is above that over whole pictures for any input (Jensen).
            "crop_gain_less_whole": self.on_crops(trained) - self.rainy_crops - val["psnr_rgb"] + val["rainy_psnr_rgb"],
            **self.searching(arm),
        }

    def searching(self, arm: str) -> dict[str, Any]:
        """The CPU seconds of an arm's search, and the validation PSNR (RGB) of its supernet and of the network derived
        with its weights; nothing for an arm without a search."""
        names = ("search_seconds", "supernet_val_psnr_rgb", "inherited_val_psnr_rgb")
        if arm not in SEARCHES:
            return dict.fromkeys(names, "")
        found, seconds = self.searches[arm]
        nets = (found.supernet.eval(), DerainNet(found.genotype).inherit(found.supernet))
        return dict(
            zip(names, (seconds, *(validation_psnr(n, self.split.val, self.compute) for n in nets)), strict=True)
        )

    @cached_property
    def rainy_crops(self) -> float:
        return self.on_crops(nn.Identity())


def hand_made(flops: float) -> Genotype:
    """HRNet's pattern with as many modules per cell as come nearest to `flops` on 256 x 256 pixels."""
    depths = range(2, 2 * SPACE.modules_per_cell)
    candidates = (Genotype.hand_made(replace(SPACE, modules_per_cell=depth)) for depth in depths)
    return min(candidates, key=lambda genotype: abs(genotype.cost("flops") - flops))


def summarise(seeds: int) -> dict[str, Any]:
    """Means per arm, of all seeds that are done."""
    found = arms.results(seeds, Study)
    means: dict[str, dict[str, Any]] = {}
    for arm in ARMS:
        own = [r for r in found if r["arm"] == arm]
        mine, trained = [r["row"] for r in own], [row for r in own for row in r["trained"]]
        values = torch.tensor([float(row["psnr_y"]) for row in mine])
        columns = ("parameters", "flops_256", "seconds", "crop_gain_less_whole")
        spent = [float(row["seconds"]) + float(row["search_seconds"] or 0) for row in trained]
        means[arm] = {
            "n": len(mine),
            "psnr_y": float(values.mean()),
            "deviation": float(values.std(correction=1)) if len(mine) > 1 else None,
            "gain": float(values.mean()) - fmean(float(row["rainy_psnr_y"]) for row in mine),
            **{key: fmean(float(row[key]) for row in mine) for key in columns},
            "trainings": len(trained) / len(own),
            # CPU seconds of all trainings and the search that the arm needed.
            "seconds_in_all": sum(spent) / len(own),
            "networks": len({row["genotype"] for row in mine}),
        }
        if arm in SEARCHES:
            columns = ("search_seconds", "supernet_val_psnr_rgb", "inherited_val_psnr_rgb", "val_psnr_rgb")
            means[arm] |= {key: fmean(float(row[key]) for row in mine) for key in columns}
    return {"seeds": seeds, "arms": means}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds Rain100L")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    options = parser.parse_args()
    check_protocol(RESULTS / "protocol.json", PROTOCOL)
    split = arms.three_parts(options.data)
    studies = [Study(split, seed, options.runs_dir) for seed in range(options.seeds)]
    with Progress(options.seeds * len(ARMS), "networks") as bar:
        for seed, study in enumerate(studies, 1):
            with study.compute.session():
                arms.run_seed(study, bar)
            del study.batches
            write_json(RESULTS / "summary.json", summarise(seed))


if __name__ == "__main__":
    main()
