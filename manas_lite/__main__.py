"""Command line: python -m manas_lite COMMAND --help. Thin over the functions."""

import argparse
import io
import os
import sys
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from manas_lite.compute.footprint import OutOfMemoryError, is_out_of_memory
from manas_lite.compute.processes import leave
from manas_lite.compute.runtime import ComputeSettings, pick_device
from manas_lite.data import LeakError, open_split
from manas_lite.networks.genotype import Genotype
from manas_lite.networks.space import PRESETS, SearchSpace
from manas_lite.networks.zoo import load
from manas_lite.photos.folders import derain_folder, warn_if_long
from manas_lite.photos.inference import derain
from manas_lite.photos.onnx_export import ExportError, export_onnx
from manas_lite.photos.video import VIDEOS, derain_video
from manas_lite.runs.record import BusyError, write_json
from manas_lite.runs.settings import override
from manas_lite.training.demo import DemoSettings, run_demo
from manas_lite.training.evaluation import evaluate, table
from manas_lite.training.loop import DivergedError
from manas_lite.training.retraining import retrain
from manas_lite.training.schedules import RETRAIN_PRESETS, SEARCH_PRESETS, RetrainSettings, SearchSettings
from manas_lite.training.searching import search

_USER_ERRORS = (
    ValueError,
    OSError,
    LeakError,
    DivergedError,
    BusyError,
    ExportError,
    ModuleNotFoundError,
    OutOfMemoryError,  # of a run, which knows what to lower
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse and run; user errors are printed in one line and return 2, without a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name that the terminal cannot show is no error
    options = parser().parse_args(arguments)
    try:
        if options.run not in (_search, _retrain) and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ValueError("this command works in one process: start it without a launcher, or with one process")
        options.run(options)
    except KeyboardInterrupt:
        resumable = options.run in (_search, _retrain, _demo)
        print("stopped" + "; the same command continues from the last checkpoint" * resumable, file=sys.stderr)
        return 130
    except Exception as error:
        if not isinstance(error, _USER_ERRORS) and not is_out_of_memory(error):
            raise
        print(f"error: {str(error) or 'memory ran out'}", file=sys.stderr)
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m manas_lite", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="command")

    p = _command(commands, "search", _search, "search an architecture")
    p.add_argument("--space", choices=PRESETS, default="teach", help="search space (default: %(default)s)")
    _training_options(p, "search", SEARCH_PRESETS, "the space's name")

    p = _command(commands, "retrain", _retrain, "train a genotype's network from scratch, or tune a trained one")
    what = p.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--start", metavar="NETWORK", help="a run directory or shipped model to tune: on other data, with another loss"
    )
    what.add_argument(
        "--genotype",
        help="genotype.json, a search's run directory, or NAME:SPACE with "
        "NAME one of hand_made, all_parallel, all_fusion, no_attention, random, random-SEED",
    )
    _training_options(p, "retrain", RETRAIN_PRESETS, "teach")

    p = _command(commands, "evaluate", _evaluate, "PSNR and SSIM of a network on test pictures")
    p.add_argument("--weights", required=True, help="run directory, weights.safetensors, or a shipped model's name")
    _data_option(p)
    p.add_argument(
        "--part",
        choices=("train", "val", "test", "all"),
        default="test",
        help="scenes to score (default: test; of a folder that states no parts, the tenth that is kept apart when a "
        "network is trained on it. `all`: the whole folder, for a network that was not)",
    )
    p.add_argument("--json", type=Path, help="also write every picture's row to this file")
    _compute_options(p)

    p = _command(commands, "derain", _derain, "derain a photograph, every photograph of a folder, or a video")
    p.add_argument("input", type=Path, help="an image file, a folder, or a video (the latter needs the extra `video`)")
    p.add_argument("output", type=Path, help="the file or folder to write")
    p.add_argument("--weights", default="rain-any", help="run directory, weights file, or shipped model (%(default)s)")
    p.add_argument("--overwrite", action="store_true", help="replace existing files")
    p.add_argument("--strength", type=float, default=1.0, help="0: leave it alone, 1: derain (default), 2: exaggerate")
    p.add_argument(
        "--scale",
        type=float,
        default=1.0,
        help="look at a smaller copy, for the large streaks of large pictures: 0.2 for 12 megapixels (default: 1)",
    )
    p.add_argument("--no-location", action="store_true", help="leave out where a photograph was taken")
    p.add_argument("--sheet", type=Path, help="of a folder: also write a contact sheet, before and after, to this file")
    _compute_options(p)

    p = _command(commands, "downstream", _downstream, "what a detector, a segmenter and no-reference scores make of it")
    p.add_argument("--weights", default="rain-any", help="run directory, weights file, or shipped model (%(default)s)")
    p.add_argument("--out", type=Path, default=Path("runs/downstream"), help="folder of the table (%(default)s)")
    p.add_argument("--tasks", default="detection,segmentation,quality", help="default: all three, %(default)s")
    p.add_argument("--boxes", type=Path, help="folder with images/ and labels/ in YOLO's layout (default: bundled)")
    p.add_argument("--street", type=Path, help="also a folder in CamVid's layout, to train a segmenter on")
    p.add_argument("--real", type=Path, help="folder of photographs of real rain (default: none)")
    p.add_argument("--detector", type=Path, help="its ONNX file (default: where data_scripts/coco_ssd/make.py puts it)")
    p.add_argument("--draws", type=int, default=200, help="resamples of the intervals (default: %(default)s)")
    p.add_argument("--most", type=int, default=0, help="at most so many photographs a task (default: all)")
    _compute_options(p)

    p = _command(commands, "export", _export, "write a network as ONNX, for programs without PyTorch")
    p.add_argument("weights", help="run directory, weights file, or shipped model")
    p.add_argument("--onnx", type=Path, required=True, metavar="FILE", help="the file to write: any batch, any size")
    p.add_argument("--overwrite", action="store_true", help="replace an existing file")

    p = _command(commands, "demo", _demo, "search, retrain, evaluate and draw, in minutes")
    _data_option(p)
    p.add_argument("--runs-dir", default="runs", help="where runs are kept (default: %(default)s)")
    p.add_argument("--name", help="name of this run (default: demo, with the data's name behind it when it is yours)")
    _compute_options(p)
    return top


def _command(commands: argparse._SubParsersAction, name: str, run: object, text: str) -> argparse.ArgumentParser:
    p = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    p.set_defaults(run=run)
    return p


def _data_option(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--data",
        default="photos",
        help="a folder of pairs or photographs, a set's name, or `photos`: the "
        "bundled photographs under synthetic rain (default)",
    )


def _compute_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (default: %(default)s)")
    p.add_argument("--threads", type=int, default=0, help="CPU threads (default: chosen by size)")


def _training_options(p: argparse.ArgumentParser, name: str, presets: Collection[str], default: str) -> None:
    _data_option(p)
    p.add_argument("--preset", choices=presets, help=f"settings to start from (default: {default})")
    p.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="changes",
        help="change a setting, e.g. --set epochs=5 --set loss.complexity_weight=0.1; may be repeated",
    )
    p.add_argument("--runs-dir", default="runs", help="where runs are kept (default: %(default)s)")
    p.add_argument("--name", default=name, help="name of this run: the same name continues it (default: %(default)s)")
    _compute_options(p)


def _compute(options: argparse.Namespace) -> ComputeSettings:
    return ComputeSettings(device=options.device, threads=options.threads)


def _settings(options: argparse.Namespace, kind: type, default: str) -> object:
    settings = kind.preset(options.preset or default, compute=_compute(options))  # type: ignore[attr-defined]
    return override(settings, options.changes)


def _search(options: argparse.Namespace) -> None:
    settings = _settings(options, SearchSettings, options.space)
    result = search(options.space, options.data, settings, runs_dir=options.runs_dir, name=options.name)  # type: ignore[arg-type]
    if _first_process():
        print(f"genotype {result.genotype.id}: {result.path / 'genotype.json'}")
        print("modules:", " ".join(result.genotype.modules))
        print("edges:  ", " ".join(result.genotype.edges))


def _retrain(options: argparse.Namespace) -> None:
    start = load(options.start) if options.start else None
    genotype = start.genotype if start else find_genotype(options.genotype)
    settings = _settings(options, RetrainSettings, "teach")
    result = retrain(genotype, options.data, settings, start=start, runs_dir=options.runs_dir, name=options.name)  # type: ignore[arg-type]
    if _first_process():
        print(f"best validation PSNR (RGB) {result.best_psnr:.2f} dB in epoch {result.best_epoch}: {result.path}")


def _first_process() -> bool:
    """Launched processes (see docs/scaling.md) all come here; one of them tells the result. They part then."""
    leave()
    return int(os.environ.get("RANK", "0")) == 0


def find_genotype(text: str) -> Genotype:
    """A genotype from a file, a run directory, or NAME:SPACE."""
    name, colon, space = text.partition(":")
    kinds = ("hand_made", "all_parallel", "all_fusion", "no_attention")
    if colon and space in PRESETS:
        if name in kinds:
            return getattr(Genotype, name)(SearchSpace.preset(space))
        kind, _, seed = name.partition("-")
        if kind == "random" and (not seed or seed.isdecimal()):
            return Genotype.random(SearchSpace.preset(space), int(seed or 0))
        raise ValueError(f"unknown genotype {name!r}: choose {', '.join(kinds)}, random or random-SEED")
    path = Path(text)
    if not path.exists() and colon:
        raise ValueError(f"unknown space {space!r} in {text!r}: choose one of {', '.join(PRESETS)}")
    return Genotype.load(path / "genotype.json" if path.is_dir() else path)


def _evaluate(options: argparse.Namespace) -> None:
    net = load(options.weights)
    split = open_split(options.data)
    everything = split.train + split.val + split.test
    scenes = everything if options.part == "all" else getattr(split, options.part)
    result = evaluate(net, scenes, compute=_compute(options), progress=True)
    more = "; --part all scores every scene" if len(scenes) < len(everything) else ""
    count = f"{len(scenes)} of {len(everything)} scenes, {len(result.rows)} picture(s)"
    print(f"{options.data}, {options.part}: {count}{more}")
    print(table({"derained": result}))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        where = {"device": result.device, "precision": result.precision}
        write_json(options.json, {**where, "means": result.means(), "rows": result.rows})


def _derain(options: argparse.Namespace) -> None:
    net, compute = load(options.weights), _compute(options)
    choices: dict[str, Any] = {name: getattr(options, name) for name in ("overwrite", "strength", "scale")}
    choices["compute"] = compute
    if options.sheet and not options.input.is_dir():
        raise ValueError(f"--sheet is for a folder of pictures, and {options.input} is none")
    if options.input.suffix.lower() in VIDEOS:
        print(derain_video(options.input, net, options.output, **choices))
        return
    choices["keep_location"] = not options.no_location
    if not options.input.is_dir():
        warn_if_long([options.input], net, scale=options.scale, compute=compute)
        print(derain(options.input, net, output=options.output, **choices))
        return
    result = derain_folder(options.input, options.output, net, sheet=options.sheet, **choices)
    print(result)
    if result.failed:
        total = len(result.written) + len(result.failed)
        raise ValueError(f"{len(result.failed)} of {total} pictures were skipped, for the reasons above")


def _downstream(options: argparse.Namespace) -> None:
    from manas_lite.downstream.report import DownstreamSettings, run_downstream

    chosen = {k: getattr(options, k) for k in ("boxes", "street", "real", "detector", "draws", "most")}
    settings = DownstreamSettings(tasks=tuple(options.tasks.split(",")), **chosen)
    name = Path(options.weights).name
    run_downstream(load(options.weights), options.out, settings, name=f"`{name}`", compute=_compute(options))
    print((options.out / "README.md").read_text(encoding="utf-8"))


def _export(options: argparse.Namespace) -> None:
    print(export_onnx(load(options.weights), options.onnx, overwrite=options.overwrite))


def _demo(options: argparse.Namespace) -> None:
    compute = _compute(options)
    settings = DemoSettings()
    settings = replace(
        settings,
        search=replace(settings.search, compute=compute),
        retrain=replace(settings.retrain, compute=compute),
    )
    own = "demo" if options.data == "photos" else f"demo-{Path(options.data).name}"
    parallel = pick_device(options.device).type == "cpu" and (os.cpu_count() or 1) > 1
    run_demo(options.data, settings, runs_dir=options.runs_dir, name=options.name or own, parallel=parallel)


if __name__ == "__main__":
    sys.exit(main())
