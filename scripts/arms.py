"""Does the search help? Arms under one protocol: python scripts/arms.py --data FOLDER [--seeds 3]

FOLDER holds Rain100L, whose training pairs are divided into those that train, choose (20) and report (30): no test
picture of the set is opened. Every network is trained alike: same pictures, crops, order, initial seed, steps.

    searched                   the lite space's search, seed by seed, with the preset's price on parameters
    free search                the same without that price
    random                     one architecture drawn uniformly
    random, best of k          draws till their trainings cost what search and training of the searched one do, the last
                               brought to its end; the best on the choosing pictures
    random, same size          drawn until its parameters are within 3 % of the searched one's
    random, free search's size drawn until they are within 3 % of those of the free search
    all_parallel, all_fusion, no_attention   hand-made
    plain                      residual blocks at half resolution, no branch, no gate, as many as come nearest to the
                               searched one's FLOPs

A row a trained network in results/arms/runs.csv, a row a picture in images.csv; the same command continues where it was
cut, refuses rows of another protocol (protocol.json), and writes summary.json when all is done. An arm whose mean gain
stays below 3 dB is then trained once more with LONGER times the steps (longer.csv): whether it needs more training or
cannot do better is seen there.
"""

import argparse
import itertools
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from experiments import ONE_THREAD, append, check_protocol, rows, timed_search, train
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional as F

from manas_course.differences import compare
from manas_lite import DerainNet, Genotype, RetrainSettings, SearchResult, SearchSettings, SearchSpace, evaluate
from manas_lite.compute.runtime import Compute
from manas_lite.data import Scene, SceneBatch, Split, open_split, scene_loader, split_scenes
from manas_lite.metrics import psnr
from manas_lite.networks.costs import count_flops, count_parameters
from manas_lite.runs.progress import Progress
from manas_lite.runs.record import write_json
from manas_lite.runs.settings import to_dict
from manas_lite.training.evaluation import validation_psnr
from manas_lite.training.loop import training_batches

RESULTS = Path(__file__).resolve().parents[1] / "results" / "arms"
SPACE = SearchSpace.preset("lite", modules_per_cell=10, head=1)  # the first version of `lite`
SEARCH = SearchSettings.preset("lite", epochs=15, steps=30, warmup=3, eigenvalue_every=0, compute=ONE_THREAD)
FREE = replace(SEARCH, loss=replace(SEARCH.loss, complexity_weight=0.0))
SEARCHES = {"searched": SEARCH, "free search": FREE}
LEAST_GAIN, LONGER = 3.0, 4
RECIPE = RetrainSettings.preset("lite", epochs=1, steps=1500, warmup=50, ema=0.995, compute=ONE_THREAD)
HAND_MADE = ("all_parallel", "all_fusion", "no_attention")
BEST = "random, best of k"
SAME_SIZE = {"random, same size": "searched", "random, free search's size": "free search"}
ARMS = (*SEARCHES, "random", BEST, *SAME_SIZE, *HAND_MADE, "plain")
PROTOCOL = {
    "data": "Rain100L, training pairs in three parts",
    "space": to_dict(SPACE),
    "searches": {arm: to_dict(settings) for arm, settings in SEARCHES.items()},
    "recipe": to_dict(RECIPE),
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
    """One seed of every arm: its searches, its batches, its networks. A study of other arms derives from this one."""

    folder, arms, best = RESULTS, ARMS, BEST
    space, settings, recipe = SPACE, SEARCHES, RECIPE

    def __init__(self, split: Split, seed: int, runs: Path) -> None:
        self.split, self.seed, self.runs = split, seed, runs
        self.compute = Compute(self.recipe.compute)

    @cached_property
    def searches(self) -> dict[str, tuple[SearchResult, float]]:
        """What this seed's searches found, and their CPU seconds."""
        return {
            arm: timed_search(
                self.space,
                self.split,
                replace(settings, seed=self.seed),
                runs=self.runs,
                name=f"{self.folder.name}_{arm.replace(' ', '_')}_{self.seed}",
            )
            for arm, settings in self.settings.items()
        }

    @cached_property
    def batches(self) -> list[SceneBatch]:
        return list(training_batches(self.split.train, self.recipe, seed=self.seed, start=0))

    def candidates(self) -> Iterator[Genotype]:
        return (Genotype.random(SPACE, 1000 * self.seed + k) for k in itertools.count())

    def networks(self, arm: str) -> Iterator[nn.Module]:
        """What an arm trains, in turn: one network, or the k candidates of random search."""
        if arm in SEARCHES:
            yield DerainNet(self.searches[arm][0].genotype, seed=self.seed)
        elif arm in SAME_SIZE:
            genotype = self.searches[SAME_SIZE[arm]][0].genotype
            near = (c for c in self.candidates() if abs(c.cost() / genotype.cost() - 1) <= 0.03 and c != genotype)
            yield DerainNet(next(near), seed=self.seed)
        elif arm.startswith("random"):
            for candidate in self.candidates():
                yield DerainNet(candidate, seed=self.seed)
        elif arm == "plain":
            yield Plain.of_cost(self.searches["searched"][0].genotype.cost("flops"), seed=self.seed)
        else:
            yield DerainNet(getattr(Genotype, arm)(SPACE), seed=self.seed)

    def train(self, arm: str, net: nn.Module, candidate: int) -> dict[str, Any]:
        """Train and score one network: a row of runs.csv, with `images` for images.csv."""
        start = time.process_time()
        trained = train(net, self.batches, self.recipe, self.compute)
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
            **self.further(arm, net, trained, means["val"]),
        }
        rounded = {key: round(value, 5) if isinstance(value, float) else value for key, value in row.items()}
        return rounded | {"images": {r["scene"]: r["psnr_y"] for r in scores["test"].rows}}

    def further(self, arm: str, net: nn.Module, trained: nn.Module, val: dict[str, float]) -> dict[str, Any]:
        """The columns of this study alone."""
        return {
            **{f"inherited, {searched}": self.inherited(net, searched) for searched in self.settings},
            "val_psnr_rgb": val["psnr_rgb"],
            "crop_val_psnr_rgb": self.on_crops(trained),
        }

    def inherited(self, net: nn.Module, arm: str) -> float | str:
        """Validation PSNR (RGB) with the weights of that search's supernet, untrained: what the search could know of
        it."""
        if not isinstance(net, DerainNet) or net.space != SPACE:
            return ""
        supernet = self.searches[arm][0].supernet
        return validation_psnr(DerainNet(net.genotype).inherit(supernet), self.split.val, self.compute)

    @torch.inference_mode()
    def on_crops(self, net: nn.Module) -> float:
        """PSNR (RGB) on random crops of the validation pictures, of the training's size."""
        loader = scene_loader(self.split.val, batch=20, patch=self.recipe.patch, seed=0, steps=8, augment=False)
        parts = (batch.to("cpu") for batch in loader)
        return fmean(float(psnr(net(p.rainy.flatten(0, 1)).clamp(0, 1), p.clean, "rgb").mean()) for p in parts)


def three_parts(folder: Path) -> Split:
    """Rain100L's own training pairs alone, in three."""
    own = open_split(folder / "Rain100L")
    scenes: tuple[Scene, ...] = own.train + own.val
    return split_scenes(scenes, seed=0, val=0.1, test=0.15)


def run_seed(study: Study, bar: Progress) -> None:
    table, done = study.folder / "runs.csv", rows(study.folder / "runs.csv")
    for arm in study.arms:
        mine = [row for row in done if row["arm"] == arm and int(row["seed"]) == study.seed]
        if arm == study.best:  # its candidates are trained as the arm `random`, its first one
            bar.step()
            continue
        for candidate, net in enumerate(study.networks(arm)):
            if candidate and (arm != "random" or paid(done, arm, study.seed) >= budget(study, done)):
                break
            if candidate < len(mine):
                continue
            row = study.train(arm, net, candidate)
            for scene, value in row.pop("images").items():
                image = {"arm": arm, "seed": study.seed, "candidate": candidate, "scene": scene}
                append(study.folder / "images.csv", image | {"psnr_y": round(value, 5)})
            append(table, row)
            done = rows(table)
        bar.step()


def paid(runs: list[dict[str, str]], arm: str, seed: int) -> float:
    """CPU seconds of the arm's trainings with this seed."""
    return sum(float(row["seconds"]) for row in runs if row["arm"] == arm and int(row["seed"]) == seed)


def budget(study: Study, runs: list[dict[str, str]]) -> float:
    """CPU seconds of this seed's search and the training of what it found."""
    return study.searches["searched"][1] + paid(runs, "searched", study.seed)


def results(seeds: int, study: type[Study] = Study) -> list[dict[str, Any]]:
    """One result an arm and seed, as `manas_course.differences.compare` takes them; best-of-k chosen on validation."""
    runs, images = rows(study.folder / "runs.csv"), rows(study.folder / "images.csv")
    found = []
    for arm, seed in itertools.product(study.arms, range(seeds)):
        name = "random" if arm == study.best else arm
        mine = [row for row in runs if row["arm"] == name and int(row["seed"]) == seed]
        trained = mine if arm == study.best else mine[:1]
        chosen = max(trained, key=lambda row: float(row["val_psnr_y"]))
        keys = ("arm", "seed", "candidate")
        scored = {i["scene"]: float(i["psnr_y"]) for i in images if all(i[k] == chosen[k] for k in keys)}
        one = {"arm": arm, "search_seed": seed, "retrain_seed": seed, "parameters": float(chosen["parameters"])}
        found.append(one | {"images": scored, "row": chosen, "trained": trained})
    return found


def against_searched(seeds: int, study: type[Study] = Study) -> list[dict[str, Any]]:
    """Every arm against the searched one."""
    return compare(results(seeds, study), "searched")


def question(seeds: int) -> dict[str, list[dict[str, Any]]]:
    """The study's question, corrected for its own comparisons and not for every arm of the table."""
    found = results(seeds)
    return {
        searched: compare([r for r in found if r["arm"] in ("random", BEST, same_size, searched)], searched)
        for same_size, searched in SAME_SIZE.items()
    }


def train_longer(study: Study, arms: Iterable[str]) -> None:
    """The first network of each of these arms, with LONGER times the steps: a row each in longer.csv."""
    recipe = replace(RECIPE, steps=LONGER * RECIPE.steps)
    for arm in set(arms) - {row["arm"] for row in rows(RESULTS / "longer.csv")}:
        batches = training_batches(study.split.train, recipe, seed=study.seed, start=0)
        trained = train(next(study.networks(arm)), batches, recipe, study.compute)
        means = evaluate(trained, study.split.test, compute=ONE_THREAD).means()
        scores = {key: round(means[key], 5) for key in ("psnr_y", "rainy_psnr_y")}
        append(RESULTS / "longer.csv", {"arm": arm, "seed": study.seed, "steps": recipe.steps, **scores})


def summarise(studies: list[Study]) -> dict[str, Any]:
    found, runs = results(len(studies)), rows(RESULTS / "runs.csv")
    with studies[0].compute.session():
        own_crops = fmean(study.on_crops(nn.Identity()) for study in studies)
        own_whole = validation_psnr(nn.Identity(), studies[0].split.val, studies[0].compute)
    arms: dict[str, dict[str, Any]] = {}
    for arm in ARMS:
        own = [r for r in found if r["arm"] == arm]
        mine, trained = [r["row"] for r in own], [row for r in own for row in r["trained"]]
        searching = sum(study.searches[arm][1] for study in studies) if arm in SEARCHES else 0.0
        values = torch.tensor([float(row["psnr_y"]) for row in mine])
        arms[arm] = {
            "n": len(mine),
            "psnr_y": float(values.mean()),
            "deviation": float(values.std(correction=1)) if len(mine) > 1 else None,
            "gain": float(values.mean()) - fmean(float(row["rainy_psnr_y"]) for row in mine),
            **{key: fmean(float(row[key]) for row in mine) for key in ("parameters", "flops_256", "seconds")},
            "trainings": len(trained) / len(own),
            # CPU seconds of all trainings and the search that the arm needed.
            "seconds_in_all": (sum(float(row["seconds"]) for row in trained) + searching) / len(own),
            # Of the gains: a mean of PSNR over crops is above that over whole pictures for any input (Jensen).
            "crop_gain_less_whole": fmean(
                float(row["crop_val_psnr_rgb"]) - own_crops - float(row["val_psnr_rgb"]) + own_whole for row in mine
            ),
        }
    searched = [r["row"] for r in found if r["arm"] == "searched"]
    mine = [study.searches["searched"] for study in studies]
    supernets = [
        validation_psnr(own.supernet.eval(), s.split.val, s.compute) for s, (own, _) in zip(studies, mine, strict=True)
    ]
    spent = [(seconds, float(row["seconds"])) for (_, seconds), row in zip(mine, searched, strict=True)]
    return {
        "seeds": len(studies),
        "arms": arms,
        "relative_to_random": arms["searched"]["psnr_y"] / arms["random"]["psnr_y"] - 1,
        "kendall_tau": {arm: rank_agreement(runs, arm) for arm in SEARCHES},
        "searches": [
            {"arm": arm, "seed": s.seed, "genotype": own.genotype.id, "cpu_seconds": seconds}
            for s in studies
            for arm, (own, seconds) in s.searches.items()
        ],
        "discretisation": {
            "supernet": fmean(supernets),
            "inherited": fmean(float(row["inherited, searched"]) for row in searched),
            "retrained": fmean(float(row["val_psnr_rgb"]) for row in searched),
        },
        "share_of_search": fmean(search / (search + training) for search, training in spent),
    }


def rank_agreement(runs: list[dict[str, str]], arm: str) -> dict[str, Any]:
    """Kendall's tau between scores with the weights of that search's supernet and after training, seed by seed:
    supernets and trainings of different seeds are shifted against each other, which is no ranking of architectures."""
    taus, networks = [], []
    runs = [row for row in runs if row[f"inherited, {arm}"]]
    for _, group in itertools.groupby(sorted(runs, key=lambda row: row["seed"]), key=lambda row: row["seed"]):
        columns = (f"inherited, {arm}", "val_psnr_rgb")
        pairs = [tuple(float(row[column]) for column in columns) for row in group]
        networks.append(len(pairs))
        taus.append(float(stats.kendalltau(*zip(*pairs, strict=True)).statistic))
    return {"mean": fmean(taus), "seeds": taus, "networks": networks}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds Rain100L")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    options = parser.parse_args()
    check_protocol(RESULTS / "protocol.json", PROTOCOL)
    split = three_parts(options.data)
    studies = [Study(split, seed, options.runs_dir) for seed in range(options.seeds)]
    with Progress(options.seeds * len(ARMS), "arms") as bar:
        for study in studies:
            with study.compute.session():
                run_seed(study, bar)
    summary = summarise(studies)
    low = [arm for arm, facts in summary["arms"].items() if facts["gain"] < LEAST_GAIN and arm != BEST]
    with studies[0].compute.session():
        train_longer(studies[0], low)
    write_json(RESULTS / "summary.json", summary)


if __name__ == "__main__":
    main()
