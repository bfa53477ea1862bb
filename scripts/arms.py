"""Does the search help, at equal FLOPs? python scripts/arms.py --data FOLDER [--seeds 10]

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

A row per trained network in results/arms/runs.csv, a row per picture in images.csv; the same command continues
where it was cut, refuses rows of another protocol (protocol.json), and writes summary.json of all seeds that are done.
"""

import argparse
import itertools
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from experiments import ONE_THREAD, append, check_protocol, rows, timed_search, train
from torch import Tensor, nn
from torch.nn import functional as F

from manas_course.differences import compare
from manas_lite import DerainNet, Genotype, RetrainSettings, SearchResult, SearchSettings, SearchSpace, evaluate
from manas_lite.compute.runtime import Compute
from manas_lite.data import Scene, SceneBatch, Split, open_split, scene_loader, split_scenes
from manas_lite.metrics import psnr
from manas_lite.networks.budget import random_within
from manas_lite.networks.costs import count_flops, count_parameters, measure_costs
from manas_lite.runs.progress import Progress
from manas_lite.runs.record import write_json
from manas_lite.runs.settings import to_dict
from manas_lite.training.evaluation import validation_psnr
from manas_lite.training.loop import training_batches

RESULTS = Path(__file__).resolve().parents[1] / "results" / "arms"
SPACE = SearchSpace.preset("lite", modules_per_cell=10)
BUDGET = 4.25e9  # FLOPs on 256 x 256 pixels: so that modules and gates both stay free
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


class Plain(nn.Module):
    """Residual blocks of two convolutions at half resolution, and nothing else; predicts the rain layer."""

    def __init__(self, blocks: int, width: int = 32, *, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.enter = nn.Conv2d(12, width, 3, padding=1)
            self.blocks = nn.ModuleList(
                nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1))
                for _ in range(blocks)
            )
            self.leave = nn.Conv2d(width, 12, 3, padding=1)
        with torch.no_grad():
            for name, parameter in self.blocks.named_parameters():
                parameter.mul_(0.2 if name.endswith("2.weight") else 1.0)
            for parameter in self.leave.parameters():
                parameter.zero_()

    def forward(self, rainy: Tensor) -> Tensor:
        height, width = rainy.shape[2:]
        x = self.enter(F.pixel_unshuffle(F.pad(rainy, (0, width % 2, 0, height % 2), "replicate"), 2))
        for block in self.blocks:
            x = x + block(x)
        return rainy - F.pixel_shuffle(self.leave(x), 2)[..., :height, :width]

    @classmethod
    def of_cost(cls, flops: float, *, seed: int) -> "Plain":
        """With as many blocks as come nearest to `flops` on 256 x 256 pixels."""
        counts = {n: count_flops(cls(n).eval(), torch.zeros(1, 3, 256, 256)) for n in (1, 2)}
        block = counts[2] - counts[1]
        return cls(max(1, round((flops - counts[1]) / block) + 1), seed=seed)


class Study:
    """One seed of every arm: its searches, its batches, its networks."""

    def __init__(self, split: Split, seed: int, runs: Path) -> None:
        self.split, self.seed, self.runs = split, seed, runs
        self.compute = Compute(RECIPE.compute)

    def search(self, arm: str) -> tuple[SearchResult, float]:
        """What this seed's search found, and its CPU seconds."""
        settings, name = replace(SEARCHES[arm], seed=self.seed), f"arms_{arm.replace(' ', '_')}_{self.seed}"
        return timed_search(SPACE, self.split, settings, runs=self.runs, name=name)

    @cached_property
    def batches(self) -> list[SceneBatch]:
        return list(training_batches(self.split.train, RECIPE, seed=self.seed, start=0))

    def networks(self, arm: str) -> Iterator[nn.Module]:
        """What an arm trains, in turn: one network, or the candidates of random search."""
        if arm in SEARCHES:
            yield DerainNet(self.search(arm)[0].genotype, seed=self.seed)
        elif arm == "random":
            costs = measure_costs(SPACE, "flops")
            for candidate in itertools.count():
                yield DerainNet(random_within(SPACE, costs, BUDGET, 1000 * self.seed + candidate), seed=self.seed)
        elif arm == "plain":
            yield Plain.of_cost(BUDGET, seed=self.seed)
        else:
            yield DerainNet(hand_made(BUDGET), seed=self.seed)

    def train(self, arm: str, net: nn.Module, candidate: int) -> dict[str, Any]:
        """Train and score one network: a row of runs.csv, with `images` for images.csv."""
        start = time.process_time()
        trained = train(net, self.batches, RECIPE, self.compute)
        seconds = time.process_time() - start
        measures = {"val": ("psnr",), "test": ("psnr", "ssim")}
        scores = {
            part: evaluate(trained, getattr(self.split, part), measures=each, compute=ONE_THREAD)
            for part, each in measures.items()
        }
        means = {part: result.means() for part, result in scores.items()}
        row = {
            "arm": arm,
            "seed": self.seed,
            "candidate": candidate,
            "genotype": net.genotype.id if isinstance(net, DerainNet) else "",
            "val_psnr_y": means["val"]["psnr_y"],
            "psnr_y": means["test"]["psnr_y"],
            "ssim_y": means["test"]["ssim_y"],
            "psnr_rgb": means["test"]["psnr_rgb"],
            "rainy_psnr_y": means["test"]["rainy_psnr_y"],
            "parameters": count_parameters(net),
            "flops_256": count_flops(trained, torch.zeros(1, 3, 256, 256)),
            "seconds": seconds,
            "val_psnr_rgb": means["val"]["psnr_rgb"],
            # Of the gains: a mean of PSNR over crops is above that over whole pictures for any input (Jensen).
            "crop_gain_less_whole": self.on_crops(trained)
            - self.rainy_crops
            - means["val"]["psnr_rgb"]
            + means["val"]["rainy_psnr_rgb"],
            **self.searching(arm),
        }
        rounded = {key: round(value, 5) if isinstance(value, float) else value for key, value in row.items()}
        return rounded | {"images": {r["scene"]: r["psnr_y"] for r in scores["test"].rows}}

    def searching(self, arm: str) -> dict[str, Any]:
        """The CPU seconds of an arm's search, and the validation PSNR (RGB) of its supernet and of the network derived
        with its weights; nothing for an arm without a search."""
        names = ("search_seconds", "supernet_val_psnr_rgb", "inherited_val_psnr_rgb")
        if arm not in SEARCHES:
            return dict.fromkeys(names, "")
        found, seconds = self.search(arm)
        nets = (found.supernet.eval(), DerainNet(found.genotype).inherit(found.supernet))
        return dict(
            zip(names, (seconds, *(validation_psnr(n, self.split.val, self.compute) for n in nets)), strict=True)
        )

    @cached_property
    def rainy_crops(self) -> float:
        return self.on_crops(nn.Identity())

    @torch.inference_mode()
    def on_crops(self, net: nn.Module) -> float:
        """PSNR (RGB) on random crops of the validation pictures, of the training's size."""
        loader = scene_loader(self.split.val, batch=20, patch=RECIPE.patch, seed=0, steps=8, symmetries=1)
        parts = (batch.to("cpu") for batch in loader)
        return fmean(float(psnr(net(p.rainy.flatten(0, 1)).clamp(0, 1), p.clean, "rgb").mean()) for p in parts)


def three_parts(folder: Path) -> Split:
    """Rain100L's own training pairs alone, in three."""
    own = open_split(folder / "Rain100L")
    scenes: tuple[Scene, ...] = own.train + own.val
    return split_scenes(scenes, seed=0, val=0.1, test=0.15)


def hand_made(flops: float) -> Genotype:
    """HRNet's pattern with as many modules per cell as come nearest to `flops` on 256 x 256 pixels."""
    depths = range(2, 2 * SPACE.modules_per_cell)
    candidates = (Genotype.hand_made(replace(SPACE, modules_per_cell=depth)) for depth in depths)
    return min(candidates, key=lambda genotype: abs(genotype.cost("flops") - flops))


def run_seed(study: Study, bar: Progress) -> None:
    """Train what is not trained yet of every arm."""
    table = RESULTS / "runs.csv"
    for arm in ARMS:
        done = rows(table)
        mine = [row for row in done if row["arm"] == arm and int(row["seed"]) == study.seed]
        enough = bool(mine) and (arm != "random" or paid(mine) >= budget(done, study.seed))
        if arm == BEST or enough:  # the candidates of random search are trained as the arm `random`, its first one
            bar.step()
            continue
        for candidate, net in enumerate(study.networks(arm)):
            if candidate < len(mine):
                continue
            row = study.train(arm, net, candidate)
            for scene, value in row.pop("images").items():
                image = {"arm": arm, "seed": study.seed, "candidate": candidate, "scene": scene}
                append(RESULTS / "images.csv", image | {"psnr_y": round(value, 5)})
            append(table, row)
            mine.append(row)
            if arm != "random" or paid(mine) >= budget(done, study.seed):
                break
        bar.step()


def paid(runs: list[dict[str, Any]]) -> float:
    """CPU seconds of these trainings, and of the searches before them."""
    return sum(float(row["seconds"]) + float(row["search_seconds"] or 0) for row in runs)


def budget(runs: list[dict[str, str]], seed: int) -> float:
    """CPU seconds of this seed's search and the training of what it found."""
    return paid([row for row in runs if row["arm"] == "searched" and int(row["seed"]) == seed])


def results(seeds: int) -> list[dict[str, Any]]:
    """One result an arm and seed, as `manas_course.differences.compare` takes them; best-of-k chosen on validation."""
    runs, images = rows(RESULTS / "runs.csv"), rows(RESULTS / "images.csv")
    found = []
    for arm, seed in itertools.product(ARMS, range(seeds)):
        name = "random" if arm == BEST else arm
        mine = [row for row in runs if row["arm"] == name and int(row["seed"]) == seed]
        trained = mine if arm == BEST else mine[:1]
        chosen = max(trained, key=lambda row: float(row["val_psnr_y"]))
        keys = ("arm", "seed", "candidate")
        scored = {i["scene"]: float(i["psnr_y"]) for i in images if all(i[k] == chosen[k] for k in keys)}
        one = {"arm": arm, "search_seed": seed, "retrain_seed": seed, "parameters": float(chosen["parameters"])}
        found.append(one | {"images": scored, "row": chosen, "trained": trained})
    return found


def against_searched(seeds: int) -> list[dict[str, Any]]:
    """Every arm against the searched one."""
    return compare(results(seeds), "searched")


def summarise(seeds: int) -> dict[str, Any]:
    """Means per arm, of all seeds that are done."""
    found = results(seeds)
    means: dict[str, dict[str, Any]] = {}
    for arm in ARMS:
        own = [r for r in found if r["arm"] == arm]
        mine, trained = [r["row"] for r in own], [row for r in own for row in r["trained"]]
        values = torch.tensor([float(row["psnr_y"]) for row in mine])
        columns = ("parameters", "flops_256", "seconds", "crop_gain_less_whole")
        means[arm] = {
            "n": len(mine),
            "psnr_y": float(values.mean()),
            "deviation": float(values.std(correction=1)) if len(mine) > 1 else None,
            "gain": float(values.mean()) - fmean(float(row["rainy_psnr_y"]) for row in mine),
            **{key: fmean(float(row[key]) for row in mine) for key in columns},
            "trainings": len(trained) / len(own),
            # CPU seconds of all trainings and the search that the arm needed.
            "seconds_in_all": paid(trained) / len(own),
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
    split = three_parts(options.data)
    studies = [Study(split, seed, options.runs_dir) for seed in range(options.seeds)]
    with Progress(options.seeds * len(ARMS), "networks") as bar:
        for seed, study in enumerate(studies, 1):
            with study.compute.session():
                run_seed(study, bar)
            del study.batches
            write_json(RESULTS / "summary.json", summarise(seed))


if __name__ == "__main__":
    main()
