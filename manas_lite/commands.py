"""The commands of the command line: the options of each, and what it does. Thin over the functions of the package."""

import io
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from manas_lite.compute.footprint import OutOfMemoryError, is_out_of_memory
from manas_lite.compute.processes import leave
from manas_lite.compute.runtime import ComputeSettings, PrecisionName, pick_device
from manas_lite.data import LeakError, open_split
from manas_lite.networks.budget import front
from manas_lite.networks.costs import measure_costs
from manas_lite.networks.genotype import Genotype
from manas_lite.networks.space import PRESETS, SearchSpace
from manas_lite.photos.folders import derain_folder, warn_if_long
from manas_lite.photos.inference import DivergedNetworkError, derain
from manas_lite.photos.onnx_export import ExportError, export_onnx
from manas_lite.photos.video import VIDEOS, derain_video
from manas_lite.photos.zoo import load
from manas_lite.runs.arguments import Parser, import_file, settings_help
from manas_lite.runs.checkpoint import write_atomic
from manas_lite.runs.record import BusyError, write_json
from manas_lite.runs.settings import check, override
from manas_lite.training.demo import DemoSettings, run_demo
from manas_lite.training.evaluation import evaluate, table
from manas_lite.training.loop import DivergedError
from manas_lite.training.retraining import retrain
from manas_lite.training.schedules import RETRAIN_PRESETS, SEARCH_PRESETS, RetrainSettings, SearchSettings
from manas_lite.training.searching import SearchResult, search

RUN_ERRORS = (LeakError, DivergedError, BusyError, OutOfMemoryError)  # the last one knows what to lower
USER_ERRORS = (ValueError, OSError, ModuleNotFoundError, ExportError, *RUN_ERRORS)


def run(command: str, text: str, arguments: Sequence[str]) -> int:
    """Parse the arguments of a command and run it; return the exit status."""
    return run_parsed(f"manas-lite {command}", text, *COMMANDS[command], arguments)


def run_parsed(
    prog: str,
    text: str,
    add_options: Callable[[Parser, Sequence[str]], None],
    work: Callable[[Namespace], None],
    arguments: Sequence[str],
) -> int:
    """Do `work` with the options that `add_options` declares; return the exit status.

    A user's error is printed in one line, without a traceback, and returns 2.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name that the terminal cannot show is no error
    parser = Parser(prog=prog, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument("--traceback", action="store_true", help="after an error, show where in the code it arose")
    add_options(parser, arguments)
    options = parser.parse_args(arguments)
    resumable = work in (_search, _retrain, _demo)
    try:
        if work not in (_search, _retrain) and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ValueError("this command works in one process: start it without a launcher, or with one process")
        for file in getattr(options, "import_files", ()):
            import_file(file)
        work(options)
    except KeyboardInterrupt as stop:
        print("stopped" + f"; {str(stop) or 'the same command continues'}" * resumable, file=sys.stderr)
        return 130
    except Exception as error:
        if options.traceback or not (isinstance(error, USER_ERRORS) or is_out_of_memory(error)):
            raise
        print(f"error: {str(error) or 'memory ran out'}", file=sys.stderr)
        return 2
    return 0


# --- options that several commands share ---


def _data_option(p: Parser) -> None:
    p.add_argument(
        "--data",
        default="photos",
        help="a folder of pairs or photographs, a set's name, or `photos`: the "
        "bundled photographs under synthetic rain (default)",
    )
    p.add_argument(
        "--layout",
        help="how the folder of --data is laid out, where its names and pictures do not say: clean-left or rain-left "
        "for two pictures side by side, RAINY:CLEAN (the names of two folders), photos, folders, ...",
    )


def _data(options: Namespace) -> Any:
    """Return the data that the options name: opened where they state its layout."""
    return open_split(options.data, layout=options.layout) if options.layout else options.data


def weights_option(p: Parser, default: str | None = "rain-any") -> None:
    text = "run directory, weights file, shipped model, or hub:OWNER/NAME@REVISION"
    shown = f"{text} (default: {default})" if default else text
    p.add_argument("--weights", required=default is None, default=default, help=shown)


def network_options(p: Parser) -> None:
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (default: %(default)s)")
    p.add_argument("--threads", type=int, default=0, help="CPU threads (default: chosen by size)")
    text = "a Python file of yours to run first: it registers operations, modules or loss terms; may be repeated"
    p.add_argument("--import", action="append", default=[], metavar="FILE", dest="import_files", help=text)


def _set_option(p: Parser, example: str) -> None:
    text = f"change a setting, e.g. {example}; may be repeated; all settings are listed below"
    p.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="changes", help=text)


def _training_options(p: Parser, name: str, presets: Collection[str], default: str) -> None:
    _data_option(p)
    p.add_argument("--preset", choices=presets, help=f"settings to start from (default: {default})")
    _set_option(p, "--set epochs=5 --set loss.complexity_weight=0.1")
    p.add_argument("--runs-dir", default="runs", help="where runs are kept (default: %(default)s)")
    p.add_argument("--name", default=name, help="name of this run: the same name continues it (default: %(default)s)")
    p.add_argument("--log-to", choices=["tensorboard"], help="show the run while it goes on; needs this extra")
    network_options(p)


def _kept(options: Namespace) -> dict[str, Any]:
    """Return where a run is kept, and who follows it."""
    return {"runs_dir": options.runs_dir, "name": options.name, "log_to": options.log_to}


def _named(arguments: Sequence[str], known: Collection[str], *options: str) -> str:
    """Return the preset that the arguments name with one of the options, or else teach: whose values the help shows."""
    for option in options:
        for given, value in zip(arguments, [*arguments[1:], ""], strict=True):
            name, equals, attached = given.partition("=")
            if name == option and (named := attached if equals else value) in known:
                return named
    return "teach"


def compute_settings(options: Namespace) -> ComputeSettings:
    return ComputeSettings(device=options.device, threads=options.threads)


def _settings(options: Namespace, kind: type, default: str) -> Any:
    settings = kind.preset(options.preset or default, compute=compute_settings(options))  # type: ignore[attr-defined]
    return override(settings, options.changes)


# --- search ---


def _search_options(p: Parser, arguments: Sequence[str]) -> None:
    p.add_argument("--space", choices=PRESETS, default="teach", help="search space (default: %(default)s)")
    p.add_argument(
        "--budget",
        metavar="UNIT=NUMBER",
        help="the most that the network may cost, such as flops=2.5e9 (of 256 x 256 pixels) or parameters=2e5; "
        "it uses 97 to 100 %% of that, where the space has such a network",
    )
    p.add_argument("--front", type=int, metavar="N", help="also list the best networks for N budgets, small to large")
    _training_options(p, "search", SEARCH_PRESETS, "the space's name")
    space, preset = _named(arguments, PRESETS, "--space"), _named(arguments, SEARCH_PRESETS, "--preset", "--space")
    p.epilog = settings_help(f"the preset {preset}", SEARCH_PRESETS[preset], space=PRESETS[space])


def _search(options: Namespace) -> None:
    changes = [change for change in options.changes if change.startswith("space.")]
    space = override(SearchSpace.preset(options.space), [change.removeprefix("space.") for change in changes])
    options.changes = [change for change in options.changes if change not in changes]
    if options.budget:
        unit, _, number = options.budget.partition("=")
        options.changes += [f"budget_unit={unit}", f"budget={number}"]
    settings = _settings(options, SearchSettings, options.space)
    result = search(space, _data(options), settings, **_kept(options))
    if _first_process():
        print(f"genotype {result.genotype.id}: {result.path / 'genotype.json'}")
        print("modules:", " ".join(result.genotype.modules))
        print("edges:  ", " ".join(result.genotype.edges))
        if options.front:
            _print_front(result, options.front, settings.budget_unit)


def _print_front(result: SearchResult, count: int, unit: str) -> None:
    """Print the most probable network of each budget, and write their genotypes beside the run's."""
    costs = measure_costs(result.genotype.space, unit)
    alpha, beta = (logits.detach() for logits in result.supernet.logits())
    print(f"{unit:>16}  genotype      file")
    for number, (cost, genotype) in enumerate(front(result.genotype.space, alpha, beta, costs, count)):
        path = result.path / "front" / f"{number}.json"
        path.parent.mkdir(exist_ok=True)
        write_atomic(path, genotype.to_json().encode())
        print(f"{cost:>16,.0f}  {genotype.id}  {path}")


# --- retrain ---


def _retrain_options(p: Parser, arguments: Sequence[str]) -> None:
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
    preset = _named(arguments, RETRAIN_PRESETS, "--preset")
    p.epilog = settings_help(f"the preset {preset}", RETRAIN_PRESETS[preset])


def _retrain(options: Namespace) -> None:
    start = load(options.start) if options.start else None
    genotype = start.genotype if start else find_genotype(options.genotype)
    settings = _settings(options, RetrainSettings, "teach")
    result = retrain(genotype, _data(options), settings, start=start, **_kept(options))
    if _first_process():
        print(f"best validation PSNR (RGB) {result.best_psnr:.2f} dB in epoch {result.best_epoch}: {result.path}")


def _first_process() -> bool:
    """Tell whether this process prints the result. Launched processes all come here, and part then."""
    leave()
    return int(os.environ.get("RANK", "0")) == 0


def find_genotype(text: str) -> Genotype:
    """Return a genotype from a file, a run directory, or NAME:SPACE."""
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


# --- evaluate ---


@dataclass(frozen=True)
class EvaluateSettings:
    """What an evaluation can be told beside its network and its pictures."""

    compute: ComputeSettings = field(default_factory=ComputeSettings)
    """The machine."""

    def __post_init__(self) -> None:
        check(self)


def _evaluate_options(p: Parser, arguments: Sequence[str]) -> None:
    weights_option(p, default=None)
    _data_option(p)
    text = (
        "scenes to score (default: test; of a folder that states no parts, the tenth that is kept apart when a "
        "network is trained on it. `all`: the whole folder, for a network that was not)"
    )
    p.add_argument("--part", choices=("train", "val", "test", "all"), default="test", help=text)
    p.add_argument("--json", type=Path, help="also write every picture's row to this file")
    _set_option(p, "--set compute.precision=bf16")
    network_options(p)
    p.epilog = settings_help("an evaluation", EvaluateSettings())


def _evaluate(options: Namespace) -> None:
    net = load(options.weights)
    split = open_split(_data(options))
    everything = split.train + split.val + split.test
    scenes = everything if options.part == "all" else getattr(split, options.part)
    settings = override(EvaluateSettings(compute_settings(options)), options.changes)
    result = evaluate(net, scenes, compute=settings.compute, progress=True)
    more = "; --part all scores every scene" if len(scenes) < len(everything) else ""
    count = f"{len(scenes)} of {len(everything)} scenes, {len(result.rows)} picture(s)"
    print(f"{options.data}, {options.part}: {count}{more}")
    print(table({"derained": result}))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        where = {"device": result.device, "precision": result.precision}
        write_json(options.json, {**where, "means": result.means(), "rows": result.rows})


# --- derain ---


def _derain_options(p: Parser, arguments: Sequence[str]) -> None:
    p.add_argument("input", type=Path, help="an image file, a folder, or a video (the latter needs the extra `video`)")
    p.add_argument("output", type=Path, help="the file or folder to write")
    weights_option(p)
    p.add_argument("--overwrite", action="store_true", help="replace existing files, the originals excepted")
    p.add_argument("--in-place", action="store_true", help="replace the originals, which cannot be undone")
    p.add_argument("--strength", type=float, default=1.0, help="0: leave it alone, 1: derain (default), 2: exaggerate")
    text = "look at a smaller copy, for the large streaks of large pictures: 0.2 for 12 megapixels (default: 1)"
    p.add_argument("--scale", type=float, default=1.0, help=text)
    p.add_argument("--no-location", action="store_true", help="leave out where a photograph was taken")
    text = (
        "onnx: by ONNX Runtime, 1.3 to 1.6 times as fast on a CPU; each network is exported once before, in about "
        "20 seconds: worth it from some 200 pictures on; needs the extra `onnx` (default: %(default)s)"
    )
    p.add_argument("--engine", choices=("torch", "onnx"), default="torch", help=text)
    text = "bf16: twice as fast on a CPU with AMX, and off by a level of 255 here and there (default: fp32)"
    p.add_argument("--precision", choices=get_args(PrecisionName), default="auto", help=text)
    p.add_argument("--sheet", type=Path, help="of a folder: also write a contact sheet, before and after, to this file")
    network_options(p)


def _derain(options: Namespace) -> None:
    try:
        _derain_input(options)
    except DivergedNetworkError as error:
        raise ValueError(f"{options.weights}: {error}") from error


def _asked(options: Namespace) -> bool:
    """Tell whether the originals may be replaced: by the option, or by an answer where somebody sits at a terminal."""
    target = options.output
    if target.is_dir() and not options.input.is_dir():
        target /= options.input.name
    same = target.exists() and options.input.exists() and target.samefile(options.input)
    if options.in_place or not same or not sys.stdin.isatty():
        return bool(options.in_place)
    question = f"Replace {options.input} by its derained version? The original is lost then. [y/N] "
    print(question, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _derain_input(options: Namespace) -> None:
    net, compute = load(options.weights), compute_settings(options)
    compute = replace(compute, engine=options.engine, precision=options.precision)
    choices: dict[str, Any] = {name: getattr(options, name) for name in ("overwrite", "strength", "scale")}
    choices |= {"compute": compute, "in_place": _asked(options)}
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


# --- export ---


def _export_options(p: Parser, arguments: Sequence[str]) -> None:
    p.add_argument("weights", help="run directory, weights file, or shipped model")
    p.add_argument("--onnx", type=Path, required=True, metavar="FILE", help="the file to write: any batch, any size")
    p.add_argument("--overwrite", action="store_true", help="replace an existing file")
    network_options(p)


def _export(options: Namespace) -> None:
    print(export_onnx(load(options.weights), options.onnx, overwrite=options.overwrite))


# --- demo ---


def _demo_options(p: Parser, arguments: Sequence[str]) -> None:
    _data_option(p)
    p.add_argument("--runs-dir", default="runs", help="where runs are kept (default: %(default)s)")
    p.add_argument("--name", help="name of this run (default: demo, with the data's name behind it when it is yours)")
    network_options(p)


def _demo(options: Namespace) -> None:
    compute = compute_settings(options)
    settings = DemoSettings()
    settings = replace(
        settings, search=replace(settings.search, compute=compute), retrain=replace(settings.retrain, compute=compute)
    )
    own = "demo" if options.data == "photos" else f"demo-{Path(options.data).name}"
    parallel = pick_device(options.device).type == "cpu" and (os.cpu_count() or 1) > 1
    name = own if options.name is None else options.name
    run_demo(_data(options), settings, runs_dir=options.runs_dir, name=name, parallel=parallel)


COMMANDS = {
    "demo": (_demo_options, _demo),
    "search": (_search_options, _search),
    "retrain": (_retrain_options, _retrain),
    "evaluate": (_evaluate_options, _evaluate),
    "derain": (_derain_options, _derain),
    "export": (_export_options, _export),
}
