"""The main job, end to end: search -> derive -> retrain -> evaluate, on photographs or on the user's own pairs."""

import multiprocessing
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manas_lite import draw
from manas_lite.compute.runtime import ComputeSettings
from manas_lite.data import Scene, Split, open_split
from manas_lite.networks.genotype import Genotype
from manas_lite.networks.nets import DerainNet
from manas_lite.networks.space import SearchSpace
from manas_lite.photos.inference import derain
from manas_lite.photos.zoo import save_network
from manas_lite.runs.record import RunDirectory, read_log, run_path, to_json
from manas_lite.runs.settings import to_dict
from manas_lite.training.evaluation import EvaluationResult, evaluate, table
from manas_lite.training.loop import settings_record
from manas_lite.training.retraining import retrain
from manas_lite.training.schedules import RetrainSettings, SearchSettings
from manas_lite.training.searching import SearchResult, search

if TYPE_CHECKING:
    from matplotlib.figure import Figure  # commands that draw nothing do not wait for it


@dataclass(frozen=True)
class DemoSettings:
    """The settings of the whole job."""

    space: SearchSpace = field(default_factory=lambda: SearchSpace.preset("teach"))
    """The space that is searched."""
    search: SearchSettings = field(
        default_factory=lambda: SearchSettings.preset("teach", epochs=6, steps=30, warmup=2, eigenvalue_every=1)
    )
    """The schedule of the search."""
    retrain: RetrainSettings = field(default_factory=lambda: RetrainSettings.preset("teach"))
    """The schedule that both genotypes are retrained with."""


@dataclass(frozen=True)
class DemoResult:
    """What the job leaves."""

    net: DerainNet = field(repr=False)
    """The searched network, retrained."""
    search: SearchResult
    """What the search found."""
    results: dict[str, EvaluationResult]
    """Evaluations on pictures never trained on, by network: `hand_made` and `searched`."""
    path: Path
    """The folder with the files."""
    seconds: float
    """What it took, over all calls."""


def run_demo(
    data: Split | str | Path = "photos",
    settings: DemoSettings | None = None,
    *,
    runs_dir: str | Path = "runs",
    name: str = "demo",
    progress: bool = True,
    parallel: bool = False,
) -> DemoResult:
    """Search, retrain the genotype found and a hand-made one alike, and compare them on the test pictures.

    Leaves in `runs_dir/name`: genotype.json, weights.safetensors (the searched network), metrics.json, manifest.json,
    log.jsonl, genotype.png, search.png and comparison-*.png; the three runs in its folders search, hand_made and
    searched. Calling it again continues: what is done is only evaluated and drawn, on another device or with other
    threads too. The networks are evaluated where they are trained.

    Args:
        data: see `data.open_split`.
        settings: the space and the schedules; None takes the defaults.
        runs_dir, name: the folder is `runs_dir/name`.
        progress: print what is done, and show progress bars.
        parallel: train the hand-made network in a second process meanwhile (from a script, call this under
            `if __name__ == "__main__"`).
    """
    settings = settings or DemoSettings()
    split = open_split(data)
    path = run_path(runs_dir, name)
    parts = {"search": settings_record(settings.search), "retrain": settings_record(settings.retrain)}
    record = {"settings": {"space": to_dict(settings.space), **parts}, "split": split.sha256}
    compute = settings.retrain.compute
    hand_made = Genotype.hand_made(settings.space)
    options: dict[str, Any] = {"data": split, "settings": settings.retrain, "runs_dir": path}

    with RunDirectory(path, record, kind="demo") as run, ExitStack() as stack:
        run.note(data="a Split" if isinstance(data, Split) else str(data))
        began = time.monotonic()
        say: Callable[[str], None] = print if progress else lambda line: None
        aside = stack.enter_context(_beside(hand_made, options)) if parallel else None
        scenes = f"{len(split.train)} training, {len(split.val)} validation and {len(split.test)} test scenes"
        say(f"1/4 search an architecture, one of {Decimal(settings.space.count()):.1e}, on {scenes}")
        found = search(settings.space, split, settings.search, runs_dir=path, name="search", progress=progress)
        say(f"2/4 train the searched network ({found.genotype.cost():,.0f} parameters)")
        searched = retrain(found.genotype, name="searched", progress=progress, **options)
        say(f"3/4 train a hand-made network alike ({hand_made.cost():,.0f} parameters)")
        if aside is not None:
            aside.join()
        by_hand = retrain(hand_made, name="hand_made", progress=progress, **options)  # done already, if it went well
        trained = {"hand_made": by_hand.net, "searched": searched.net}
        net = trained["searched"]
        save_network(run.path, net)
        run.write_text("genotype.json", net.genotype.to_json())
        records = ({"run": own, **record} for own in ("search", *trained) for record in read_log(path / own))
        run.write_text("log.jsonl", "".join(f"{to_json(record)}\n" for record in records))
        say("4/4 evaluate on pictures never trained on")
        results = {
            label: evaluate(net, split.test, compute=compute, progress=progress) for label, net in trained.items()
        }
        run.write_json("metrics.json", collect_metrics(results, trained))
        seconds = run.finish()
        draw_pictures(path, found, net, split.test, compute)
        say("\n" + table({f"derained, {label.replace('_', '-')}": r for label, r in results.items()}))
        say(f"\n{time.monotonic() - began:.0f} s. The files and pictures are in {path}")
    return DemoResult(net, found, results, path, seconds)


@contextmanager
def _beside(genotype: Genotype, options: dict[str, Any]) -> Iterator[BaseProcess]:
    """Train the hand-made network in a second process, on the second core. It is ended with this one."""
    process = multiprocessing.get_context("spawn").Process(target=_train_beside, args=(genotype, options), daemon=True)
    process.start()
    try:
        yield process
    finally:
        process.terminate()


def _train_beside(genotype: Genotype, options: dict[str, Any]) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:  # a killed parent cannot end its child, and an orphan would hold the run's lock
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    retrain(genotype, name="hand_made", progress=False, **options)


def collect_metrics(results: dict[str, EvaluationResult], nets: dict[str, DerainNet]) -> dict[str, Any]:
    """Return what metrics.json holds, by network: means over all test pictures and per rain level, and the costs."""
    return {
        label: {
            "genotype": nets[label].genotype.id,
            "parameters": nets[label].genotype.cost(),
            "flops_256": nets[label].genotype.cost("flops"),
            "all": result.means(),
            "levels": {level: result.means(level) for level in result.labels},
            "pictures": result.rows,
        }
        for label, result in results.items()
    }


def draw_pictures(
    path: Path, found: SearchResult, net: DerainNet, test: tuple[Scene, ...], compute: ComputeSettings
) -> None:
    """Draw the genotype, the search, and for the first test scene rainy / derained / clean at each rain level.

    A drawing that fails is a warning, whatever the fault: the work is done and written by then.
    """

    def comparison(version: int) -> "Figure":
        rainy, clean = test[0].read()
        return draw.comparison(rainy[version], derain(rainy[version], net, compute=compute), clean)

    drawings: dict[str, Callable[[], Figure]] = {
        "genotype.png": lambda: draw.architecture(found.genotype),
        "search.png": lambda: draw.search_curves(found.log, found.genotype.space),
        **{f"comparison-{label}.png": partial(comparison, i) for i, label in enumerate(test[0].labels)},
    }
    for name, drawing in drawings.items():
        try:
            draw.save(drawing(), path / name)
        except Exception as error:
            warnings.warn(f"{path / name} was not drawn: {type(error).__name__}: {error}", stacklevel=2)
