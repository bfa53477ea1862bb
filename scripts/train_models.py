"""Search, train and ship a model of the package: python scripts/train_models.py rain-lite --data FOLDER.

FOLDER holds Rain100L (train/, test_sample/ or test/) and, for rain-any, Rain800_groups and Rain100H beside it. Every
step continues where it was cut, and is done already when the command is given again:
    search   -> RUNS/NAME-search     retrain -> RUNS/NAME     ship -> manas_lite/assets/models/NAME, results/models/NAME
Test pictures are opened by `ship` alone.
"""

import argparse
import itertools
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from experiments import append, rows
from model_card import card_text, pictures, symmetries

from manas_lite import (
    DerainNet,
    RetrainResult,
    RetrainSettings,
    SearchSettings,
    SearchSpace,
    derain,
    evaluate,
    load,
    open_split,
    retrain,
    search,
)
from manas_lite.compute.runtime import ComputeSettings
from manas_lite.data import Scene, Split
from manas_lite.data.opening import photo_scene
from manas_lite.losses import LossSettings
from manas_lite.photos.zoo import save_network
from manas_lite.rain import LEVELS, add_rain
from manas_lite.runs.checkpoint import sha256_of, write_atomic
from manas_lite.runs.record import read_json, read_log, write_json
from manas_lite.runs.settings import override
from manas_lite.training.evaluation import EvaluationResult

ROOT = Path(__file__).resolve().parents[1]
WORDS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
MODELS, RESULTS = ROOT / "manas_lite" / "assets" / "models", ROOT / "results" / "models"


def rain100l(folder: Path) -> Split:
    return open_split(folder / "Rain100L")


def everything(folder: Path) -> tuple[Scene, ...]:
    """All scenes of a set that no recipe trains on."""
    split = open_split(folder)
    return split.train + split.val + split.test


def mixed(folder: Path) -> Split:
    """Rain100L's pictures and Rain800's groups of one background; validation also sees rain of no set, and none at all.

    The test scenes are the groups'.
    """
    light, groups = rain100l(folder), open_split(folder / "Rain800_groups")
    levels = ("wild", "light", "medium", "heavy", 0.0)
    synthetic = tuple(photo_scene(scene.clean, scene.name, levels, seed=0) for scene in light.val[6:10])
    return Split(light.train + groups.train, light.val[:6] + groups.val[:6] + synthetic, groups.test)


LITE = SearchSpace.preset("lite")


@dataclass(frozen=True)
class Recipe:
    """about, data_note: what the card says of its use and of its data. data: opens the training and validation scenes.
    tests: what `ship` reports on, by name. space, budget: where the genotype is searched, and the FLOPs that it may
    cost on 256 x 256 pixels. searched: whose search gave the genotype. start: the shipped model whose weights the
    training goes on from. seen: what a person saw on real photographs. tunes: further trainings, each of which goes on
    from the weights of the one before."""

    about: str
    data_note: str
    data: Callable[[Path], Split]
    retrain: RetrainSettings
    tests: dict[str, Callable[[Path], tuple[Scene, ...]]]
    space: SearchSpace = LITE
    budget: float = 10e9
    searched: str = "rain-lite"
    start: str | None = None
    seen: str = ""
    tunes: tuple[RetrainSettings, ...] = ()


SEARCH = SearchSettings.preset(
    "lite", fresh_rain=("light",), eigenvalue_every=0, batch=2, steps=30, mask_barred=True, head_gain=0.1
)
TUNE = RetrainSettings.preset(
    "lite",
    epochs=16,
    steps=250,
    rate=3e-4,
    warmup=50,
    val_scenes=8,
    validate_every=2,
    loss=LossSettings(external="mse", internal_weight=0.0),
)
# The mean of PSNR itself is what is trained on, and patches see more of their surroundings.
PSNR = RetrainSettings.preset(
    "lite",
    steps=250,
    patch=96,
    warmup=100,
    validate_every=4,
    loss=LossSettings(external="log_mse", internal_weight=0.0, tv=0.0),
)
UPRIGHT = replace(PSNR, epochs=160, batch=4, symmetries=2, rate=6e-4, val_scenes=8)  # no rain is laid sideways
RECIPES = {
    "rain-lite": Recipe(
        "Thin, light streaks over pictures of about 481 x 321 pixels, as in Rain100L.",
        "Trained on the 200 pairs of Rain100L/train less the validation scenes (JORDER, Yang et al., CVPR 2017).",
        rain100l,
        RetrainSettings.preset("lite", epochs=240, steps=250, val_scenes=8, validate_every=8),
        {"Rain100L": lambda folder: rain100l(folder).test},
        tunes=(TUNE, UPRIGHT),
    ),
    "rain-nano": Recipe(
        "Thin, light streaks where every millisecond counts: half a billion multiply-adds on 256 x 256 pixels.",
        "Trained on the 200 pairs of Rain100L/train less the validation scenes (JORDER, Yang et al., CVPR 2017).",
        rain100l,
        replace(UPRIGHT, rate=1e-3, warmup=200),
        {"Rain100L": lambda folder: rain100l(folder).test},
        space=replace(LITE, channels=(16, 12), modules_per_cell=6),
        budget=1e9,
        searched="rain-nano",
    ),
    "rain-any": Recipe(
        "Rain of any strength, for photographs that are no test picture of a set.",
        "Trained on Rain100L/train and Rain800's groups of one background, with rain of any kind (`rain.wild_rain`) "
        "laid over the clean patches; one in four of those stays dry (one in ten in the first training).",
        mixed,
        RetrainSettings.preset(
            "lite",
            epochs=130,
            steps=250,
            rains=1,
            fresh_rain=("wild", "wild"),
            batch=2,
            patch=80,
            val_scenes=16,
            validate_every=10,
        ),
        {
            "Rain800_groups": lambda folder: open_split(folder / "Rain800_groups").test,
            "Rain100H": lambda folder: everything(folder / "Rain100H"),
            "Rain100L": lambda folder: rain100l(folder).test,
        },
        start="rain-lite",
        seen="Twenty real photographs of two public collections were looked at one by one (their licence is not "
        "stated, so none is shown). In 7 of them rain visibly goes: thin bright streaks before a dark or even ground. "
        "In 13 little or nothing changes: dense or blurred rain, white drops near the camera, jets and spray stay. "
        "None looks worse than it came.",
        tunes=(
            replace(PSNR, epochs=40, rains=1, fresh_rain=("wild", "wild", "light"), batch=2, rate=4e-4, val_scenes=16),
        ),
    ),
}


def train(name: str, folder: Path, runs: Path, changes: list[str], compute: ComputeSettings) -> Path:
    """Search, retrain and tune, or whatever of it is not done; returns the run directory."""
    recipe = RECIPES[name]
    settings = replace(SEARCH, budget=recipe.budget, compute=replace(compute, precision="auto"))
    found = search(recipe.space, rain100l(folder), settings, runs_dir=runs, name=f"{recipe.searched}-search")
    own, data = override(replace(recipe.retrain, compute=compute), changes), recipe.data(folder)
    first = load(recipe.start) if recipe.start else None
    trained = retrain(found.genotype, data, own, start=first, runs_dir=runs, name=name)
    for number in range(len(recipe.tunes)):
        trained = tuned(name, number, trained.net, data, runs, compute)
    return trained.path


def tuned(name: str, number: int, net: DerainNet, data: Split, runs: Path, compute: ComputeSettings) -> RetrainResult:
    """A further training of a recipe, from the network of the one before."""
    settings, run = replace(RECIPES[name].tunes[number], compute=compute), stages(name)[1 + number]
    return retrain(net.genotype, data, settings, start=net, runs_dir=runs, name=run)


def stages(name: str) -> list[str]:
    """The names of a recipe's trainings in turn, which are those of their run directories."""
    return [name, *(f"{name}-tuned{f'-{n}' if n > 1 else ''}" for n in range(1, 1 + len(RECIPES[name].tunes)))]


# --- what is shipped, and what is said of it ---


def ship(name: str, folder: Path, runs: Path) -> None:
    """Put a finished model into the package, evaluate it on its tests, and write its result files and card.

    What has no run under `runs` is taken from the model as it was shipped: so it can be tuned, or its card be written
    anew.
    """
    recipe, target, results = RECIPES[name], MODELS / name, RESULTS / name
    for folder_of in (target, results):
        folder_of.mkdir(parents=True, exist_ok=True)
    net, trainings = trained(name, runs)
    save_network(target, net, half=True)
    write_atomic(target / "genotype.json", net.genotype.to_json().encode())
    net, sha256 = load(target), sha256_of(target / "weights.safetensors")
    scores = {test: evaluate_twice(net, scenes(folder), symmetries(trainings)) for test, scenes in recipe.tests.items()}
    for test, found in scores.items():
        for kind, result in found.items():
            facts = {"device": result.device, "precision": result.precision}
            write_json(results / f"{test}-{kind}.json", {**facts, "means": result.means(), "rows": result.rows})
    steps = sum(training["steps"] for training in (trainings["retrain"], *trainings["tunes"]))
    card = {
        "name": name,
        "about": recipe.about,
        "sha256": sha256,
        "genotype": net.genotype.id,
        "parameters": net.genotype.cost(),
        "flops_256": net.genotype.cost("flops"),
        **trainings,
        "tests": {test: {kind: result.means() for kind, result in found.items()} for test, found in scores.items()},
        "openings": openings(results / "openings.csv", sha256, steps, scores),
        "photographs": on_photographs(net),
        "speed": beside_prenet(net),
        "start": recipe.start,
        "data_note": recipe.data_note,
        "seen": recipe.seen,
    }
    write_json(target / "card.json", card)
    pictures(net, target / "pictures.jpg")
    (target / "README.md").write_text(card_text(card), encoding="utf-8")


def trained(name: str, runs: Path) -> tuple[DerainNet, dict[str, Any]]:
    """The network to ship, and what its card says of its search, trainings and machine."""
    every = stages(name)
    here = [stage for stage in every if (runs / stage).exists()]
    shipped = len(here) < len(every) and (MODELS / name / "card.json").exists()
    facts: dict[str, Any] = read_json(MODELS / name / "card.json") if shipped else {}
    done = [facts["retrain"], *facts["tunes"]] if shipped else []
    for number, stage in enumerate(every):
        if stage not in here:
            continue
        run = runs / stage
        manifest, log = read_json(run / "manifest.json"), read_log(run)
        if not manifest["finished"] or every[-1] not in here:
            raise ValueError(f"{name} is not trained to its end: give the command without --ship first")
        steps = [record["train"] for record in log if record["kind"] == "step"]
        curve = [[r["epoch"], round(r["val_psnr_rgb"], 4)] for r in log if r["kind"] == "epoch"]
        named = {key: manifest[key] for key in ("settings", "seconds")}
        done[number : number + 1] = [named | {"steps": len(steps), "validation": curve}]
        facts["best"], facts["threads"] = read_json(run / "metrics.json"), manifest["threads"]
        facts["precision"] = WORDS[manifest["notes"]["compute"]["precision"]]
        facts["machine"] = {key: manifest[key] for key in ("cpu", "gpus", "versions")}
        facts["machine"]["date"] = time.strftime("%Y-%m-%d")
        if number == 0:
            write_json(RESULTS / name / "first_steps.json", steps[:100])
            searching = read_json(runs / f"{RECIPES[name].searched}-search" / "manifest.json")
            facts["search"] = {key: searching[key] for key in ("settings", "seconds")}
    facts["retrain"], *facts["tunes"] = done
    keys = ("search", "retrain", "tunes", "best", "precision", "threads", "machine")
    return load(runs / here[-1] if here else name), {key: facts[key] for key in keys}


def openings(
    file: Path, sha256: str, steps: int, scores: dict[str, dict[str, EvaluationResult]]
) -> list[dict[str, str]]:
    """Every weights file that has ever been scored on the tests of its model, this one the last: a test that is opened
    often is a validation set."""
    if not any(row["sha256"] == sha256 for row in rows(file)):
        facts = {"date": time.strftime("%Y-%m-%d"), "sha256": sha256, "steps": steps}
        append(file, facts | {name: f"{found['single'].means()['psnr_y']:.3f}" for name, found in scores.items()})
    return rows(file)


class SelfEnsemble(torch.nn.Module):
    """The mean of a network's outputs on flips and quarter turns of a picture, each turned back.

    With all eight it takes eight times the work for up to half a dB (Timofte et al., CVPR 2016). A network sees the
    `symmetries` alone that it was trained in: to one that never saw rain fall sideways, such rain is none. Results
    compare only with others that use it.
    """

    def __init__(self, net: torch.nn.Module, symmetries: int = 8) -> None:
        super().__init__()
        self.net, self.turns = net, {8: (0, 1, 2, 3), 4: (0, 2), 2: (0,)}[symmetries]

    def forward(self, rainy: torch.Tensor) -> torch.Tensor:
        total = torch.zeros_like(rainy)
        for turns, flip in product(self.turns, (False, True)):
            turned = torch.rot90(rainy, turns, (2, 3))
            output = self.net(turned.flip(3) if flip else turned)
            total += torch.rot90(output.flip(3) if flip else output, -turns, (2, 3))
        return total / (2 * len(self.turns))


def evaluate_twice(net: DerainNet, scenes: tuple[Scene, ...], symmetries: int) -> dict[str, EvaluationResult]:
    return {"single": evaluate(net, scenes), "ensemble": evaluate(SelfEnsemble(net, symmetries), scenes)}


def on_photographs(net: DerainNet, draws: int = 2) -> dict[str, dict[str, float]]:
    """Gains on all bundled photographs under this kit's rain, in dB of PSNR (RGB), and what is left of dry ones: mean,
    worst, how many end worse than they came, and how many dry ones below 42 dB, where a change can be seen."""
    split = open_split("photos")
    found: dict[str, list[float]] = {level: [] for level in ("dry", *LEVELS)}
    for number, scene in enumerate(split.train + split.val + split.test):
        clean = scene.clean.read()
        found["dry"].append(decibels(derain(clean, net), clean))
        for level, draw in itertools.product(LEVELS, range(draws)):
            rainy = np.rint(add_rain(clean, level, (11, draw, number)) * 255).astype(np.uint8)
            found[level].append(decibels(derain(rainy, net), clean) - decibels(rainy, clean))
    return {
        level: {
            "n": len(values),
            "mean": statistics.fmean(values),
            "worst": min(values),
            "worse": sum(v < 0 for v in values),
            **({"below_42": sum(v < 42 for v in values)} if level == "dry" else {}),
        }
        for level, values in found.items()
    }


def decibels(picture: np.ndarray, clean: np.ndarray) -> float:
    """PSNR (RGB) of uint8 pictures; that of two equal ones is bounded by half a level of one channel."""
    error = np.square(picture.astype(float) - clean).mean()
    return 10 * math.log10(255**2 / max(error, 1e-9))


def beside_prenet(net: DerainNet, size: tuple[int, int] = (321, 481), repeats: int = 5) -> dict[str, float]:
    """Seconds for a picture, one thread, fp32, and the same for a network of PReNet's shape, measured in turns."""
    from benchmarks.prenet import PReNet

    picture, nets = torch.rand(1, 3, *size), {"seconds": net.eval(), "prenet_seconds": PReNet().eval()}
    times: dict[str, list[float]] = {name: [] for name in nets}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        for _ in range(repeats + 1):
            for name, one in nets.items():
                start = time.process_time()
                one(picture)
                times[name].append(time.process_time() - start)
    torch.set_num_threads(threads)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds Rain100L")
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a retraining setting")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument(
        "--only",
        choices=("tune", "ship"),
        help="go on from the model in the package: the last training alone, or no training and its card anew",
    )
    parser.add_argument("--ship", action="store_true", help="open the test pictures and put the model in the package")
    parser.add_argument("--precision", default="auto", help="of the training: bf16 halves the time on recent CPUs")
    options = parser.parse_args()
    compute = ComputeSettings(device=options.device, threads=options.threads, precision=options.precision)
    if options.only == "tune":
        data, last = RECIPES[options.name].data(options.data), len(RECIPES[options.name].tunes) - 1
        print(tuned(options.name, last, load(options.name), data, options.runs_dir, compute).path)
    elif options.only is None:
        print(train(options.name, options.data, options.runs_dir, options.set, compute))
    if options.ship or options.only == "ship":
        ship(options.name, options.data, options.runs_dir)


if __name__ == "__main__":
    main()
