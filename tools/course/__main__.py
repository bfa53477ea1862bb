"""Command line of the course: python -m tools.course COMMAND --help; without a command it lists them all."""

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from tools.course import contents


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return 0 when all went well, 1 when a run failed, 2 for a user's mistake, told in one line."""
    options = parser().parse_args(arguments)
    warnings.filterwarnings("default", category=DeprecationWarning, module=r"(manas_lite|tools)\.")  # of old names
    try:
        return options.run(options)
    except KeyboardInterrupt:
        print("stopped" + ("; the same command goes on where it was" if options.run is _sweep else ""), file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        extra = "dask" if error.name in ("dask", "distributed") else "course"
        print(f"error: {error.name} is missing: pip install 'manas_lite[{extra}]'", file=sys.stderr)
        return 2


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(prog="python -m tools.course", description="Run and keep the course's notebooks.")
    commands = top.add_subparsers(required=True, metavar="command")
    names = ", ".join(notebook.number for notebook in contents.notebooks())

    p = _command(commands, "run", _run, "execute notebooks strictly, and write an index page")
    p.add_argument("notebooks", nargs="+", metavar="NOTEBOOK", help=f"numbers or names ({names}), or `all`")
    p.add_argument("--preset", default="teach", choices=contents.presets(), help="parameters (default: %(default)s)")
    p.add_argument(
        "-p",
        "--param",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="one parameter, or any other setting where the notebook has `settings`; repeatable",
    )
    p.add_argument(
        "--import",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        dest="import_files",
        help="a Python file of yours to run first: it registers operations, modules or loss terms; repeatable",
    )
    p.add_argument("--out", type=Path, default=Path("runs/course"), help="folder of the copies (default: %(default)s)")
    p.add_argument("--runs-dir", type=Path, help="the notebooks' runs_dir (default: OUT/runs/PRESET)")
    p.add_argument("--anyway", action="store_true", help="run the preset gpu also where there is no graphics card")
    p.add_argument("--timeout", type=int, help="seconds a cell may take (default: by preset)")
    p.add_argument("--version", choices=("solution", "student"), default="solution", help="default: %(default)s")
    p.add_argument(
        "--record", action="store_true", help="take costs (and outputs that nbval compares) into the notebooks"
    )

    p = _command(commands, "sweep", _sweep, "run a grid of one notebook's parameters, from a YAML file")
    p.add_argument("file", help="the sweep file; its format stands in tools/course/sweeps.py")
    p.add_argument("--out", type=Path, default=Path("runs/sweep"), help="folder of the copies (default: %(default)s)")
    p.add_argument("--shard", metavar="i/n", help="only the i-th of n parts, for job arrays or several machines")
    p.add_argument(
        "--dask", metavar="WHERE", help="hand the runs to a dask scheduler's address, or to local:N processes"
    )
    p.add_argument("--timeout", type=int, help="seconds a cell may take (default: by preset)")
    p.add_argument(
        "--report",
        nargs="*",
        type=Path,
        metavar="SHARD",
        help="run nothing: make table, forest plot and protocol line of what is done in OUT and in shards",
    )
    p.add_argument(
        "--dry-run", action="store_true", help="time a few steps and print runs, hours and disk; run nothing"
    )

    p = _command(commands, "cost", _cost, "put an extrapolated row into a cost table: a few steps timed, multiplied")
    p.add_argument("notebooks", nargs="+", metavar="NOTEBOOK", help="those that train")
    p.add_argument("--preset", default="paper", choices=contents.presets(), help="default: %(default)s")
    p.add_argument("--card", action="store_true", help="estimate a T4 card's row from counted operations; time nothing")
    p.add_argument("--steps", type=int, default=20, help="steps to time (default: %(default)s)")
    p.add_argument("--scenes", type=int, help="scenes of the batch really computed (default: all)")

    p = _command(commands, "index", _index, "write the index page over executed copies")
    p.add_argument("out", type=Path, nargs="?", default=Path("runs/course"), help="default: %(default)s")

    p = _command(commands, "picture", _picture, "make the pictures that readers of the notebook files see")
    p.add_argument("notebooks", nargs="+", metavar="NOTEBOOK", help=f"numbers or names ({names}), or `all`")
    p.add_argument("--out", type=Path, default=Path("runs/course"), help="folder of the copies (default: %(default)s)")

    p = _command(commands, "slides", _slides, "make slides of notebooks from their executed copies")
    p.add_argument("notebooks", nargs="+", metavar="NOTEBOOK", help=f"numbers or names ({names}), or `all`")
    p.add_argument(
        "--preset",
        choices=contents.presets(),
        help="to run those that have no finished copy of the present source (default: as their last run, else smoke)",
    )
    p.add_argument("--out", type=Path, default=Path("runs/course"), help="folder of the copies (default: %(default)s)")

    p = _command(commands, "grade", _grade, "grade handed-in notebooks: runs other people's code, apart from checkers")
    p.add_argument("folder", type=Path, help="folder with the .ipynb files")
    p.add_argument("--csv", type=Path, required=True, help="the table to write")
    p.add_argument(
        "--timeout", type=int, default=120, help="seconds of computing that an exercise is given (default: %(default)s)"
    )
    p.add_argument("--memory", type=float, default=4.0, help="GiB that an exercise is given (default: %(default)s)")
    p.add_argument("--feedback", type=Path, help="folder of a page per student (default: beside the table)")
    p.add_argument(
        "--require-walls", action="store_true", help="grade nothing where neither bwrap nor unshare can keep code in"
    )

    p = _command(commands, "export", _export, "write a notebook's exercises as an assignment of another grading tool")
    p.add_argument("notebooks", nargs="+", metavar="NOTEBOOK", help=f"numbers or names ({names}), or `all`")
    p.add_argument("--to", required=True, choices=("nbgrader", "otter"), help="the tool")
    p.add_argument("--out", type=Path, default=Path("runs/export"), help="folder to write to (default: %(default)s)")

    p = _command(commands, "strip", _strip, "make notebook files fit to be committed")
    p.add_argument("files", type=Path, nargs="+")
    p.add_argument("--no-answers", action="store_true", help="take the folded solutions out, for a graded hand-out")

    p = _command(commands, "stamp", _stamp, "make the notebooks from their sources: badges, cost tables, blanks")
    p.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 where a notebook is not what its source makes"
    )
    p.add_argument(
        "--repository",
        nargs=3,
        metavar=("OWNER/NAME", "TAG", "WHEEL"),
        help="where the project lives from now on: its address, the tag of a release, and the wheel of that release, "
        "whose hash every set-up cell then checks",
    )
    return top


def _command(commands: argparse._SubParsersAction, name: str, run: object, text: str) -> argparse.ArgumentParser:
    p = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    p.set_defaults(run=run)
    return p


def _run(options: argparse.Namespace) -> int:
    from tools.course import reports, runner, stamping

    if options.record and (options.param or options.import_files or options.version == "student"):
        raise ValueError("--record takes what a preset costs as it is: leave out -p, --import and --version student")
    chosen = _chosen(options.notebooks)
    if options.preset == "gpu" and not options.anyway:
        _refuse_without_gpu(chosen)
    given = dict(_pair(text) for text in options.param)
    failed = 0
    for notebook in chosen:
        outcome = runner.run(
            notebook,
            preset=options.preset,
            parameters=given,
            out=options.out,
            runs_dir=options.runs_dir,
            timeout=options.timeout,
            version=options.version,
            imports=options.import_files,
        )
        reports.render(outcome.copy)
        failed += not outcome.done
        print(f"{notebook.stem:<24} {outcome.status:<7}{outcome.seconds:>7.1f} s  {outcome.reason}", flush=True)
        if options.record and outcome.done:
            stamping.record_run(outcome, notebook)
    if options.record:
        stamping.stamp()
    print(f"index: {reports.write_index(options.out)}")
    return int(failed > 0)


def _refuse_without_gpu(chosen: Sequence[contents.Notebook]) -> None:
    """Raise ValueError, with hours, where notebooks would train on a CPU what is meant for a graphics card."""
    from manas_lite.compute.runtime import pick_device
    from tools.course.estimates import extrapolated

    training = [notebook for notebook in chosen if notebook.trains]
    if not training or pick_device().type != "cpu":
        return
    hours = [extrapolated(notebook, "gpu", steps=2, scenes=1)["seconds"] / 3600 for notebook in training]
    told = ", ".join(f"{notebook.number} about {each:.1f} h" for notebook, each in zip(training, hours, strict=True))
    raise ValueError(
        f"preset gpu is for a graphics card, and torch sees none here: {told} on this processor. "
        "Add --anyway to run it all the same, or take --preset teach, which takes minutes"
    )


def _sweep(options: argparse.Namespace) -> int:
    from manas_lite.runs.checkpoint import clear_leftovers
    from tools.course import reports, sweep_reports, sweeps

    file = sweeps.find(options.file)
    print(f"sweep file: {file}", flush=True)
    sweep = sweeps.read(file)
    runs = sweep.runs()
    mine = sweeps.shard(runs, options.shard) if options.shard else runs
    if options.dry_run:
        from tools.course.estimates import describe

        print(describe(sweep, mine, options.out))
        return 0
    if options.report is not None:
        files = sweep_reports.write(sweep, options.out, options.report)
        found = sweep_reports.compared(sweep, [options.out, *options.report])
        files += sweeps.collect(sweep, options.out, options.report, found.rows if found else ())
        print("\n".join(map(str, files)))
        return 0
    clear_leftovers(options.out)
    if options.dask:
        from tools.course.distributed_sweeps import run_on_cluster

        facts = run_on_cluster(mine, options.out, options.dask, timeout=options.timeout)
    else:
        facts = sweeps.run_all(mine, options.out, timeout=options.timeout)
    whole = all(sweeps.finished(run, options.out) for run in runs)
    found = sweep_reports.compared(sweep, [options.out]) if whole else None
    results, summary = sweeps.collect(sweep, options.out, (), found.rows if found else ())
    if found:
        print("\n".join(map(str, sweep_reports.write(sweep, options.out))))
    for run in runs:
        copy = options.out / f"{run.name}.ipynb"
        ended = copy.is_file() and copy.with_suffix(".json").is_file()  # another shard's may be running
        if ended and _older(copy.with_suffix(".html"), copy):
            reports.render(copy)
    failed = len(mine) - sum(fact["status"] == "done" for fact in facts)
    print(f"{results}\n{summary}\nindex: {reports.write_index(options.out)}")
    if failed:
        print(f"{failed} of {len(mine)} runs failed; the same command tries them again", file=sys.stderr)
    return int(failed > 0)


def _cost(options: argparse.Namespace) -> int:
    from tools.course import stamping
    from tools.course.cards import estimated
    from tools.course.estimates import extrapolated

    for notebook in _chosen(options.notebooks):
        if options.card:
            row = estimated(notebook, options.preset)
        else:
            row = extrapolated(notebook, options.preset, steps=options.steps, scenes=options.scenes)
        stamping.record_cost(notebook, row)
        print(f"{notebook.stem}: {row['seconds'] / 3600:,.1f} hours, {row['bytes'] / 2**30:.1f} GiB on {row['device']}")
    stamping.stamp()
    return 0


def _slides(options: argparse.Namespace) -> int:
    from manas_lite.runs.record import read_json
    from tools.course import runner
    from tools.course.slides import unfit, write_slides

    failed = 0
    for notebook in _chosen(options.notebooks):
        copy = options.out / f"{notebook.stem}.ipynb"
        if why := unfit(notebook, copy):
            preset, parameters = options.preset or "smoke", {}
            if not options.preset and copy.with_suffix(".json").is_file():
                last = read_json(copy.with_suffix(".json"))
                preset, parameters = last["preset"], last["parameters"]
            print(f"{notebook.stem}: {why}, running it at size {preset}", flush=True)
            outcome = runner.run(notebook, preset=preset, parameters=parameters, out=options.out)
            if not outcome.done:
                print(f"{notebook.stem} failed: {outcome.reason}", file=sys.stderr)
                failed += 1
                continue
        print(write_slides(notebook, copy, options.out / f"{notebook.stem}.slides.html"))
    return int(failed > 0)


def _index(options: argparse.Namespace) -> int:
    from tools.course import reports

    print(reports.write_index(options.out))
    return 0


def _picture(options: argparse.Namespace) -> int:
    from tools.course import stamping

    for notebook in _chosen(options.notebooks):
        print(stamping.keep_picture(notebook, options.out))
    return 0


def _grade(options: argparse.Namespace) -> int:
    if sys.platform == "win32":
        raise ValueError("grading limits processes in ways that Windows lacks: grade on Linux, macOS or in WSL")
    from tools.course import fences, grading

    fence = fences.find()
    if options.require_walls and not fence.program:
        raise ValueError("this machine builds no walls round other people's code: install bubblewrap")
    walls = grading.WALLS.format(program=fence.program) if fence.program else grading.NO_WALLS
    print(grading.WARNING.format(walls=walls, seconds=options.timeout), file=sys.stderr)
    limits = grading.Limits(options.timeout, int(options.memory * 2**30))

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    count = grading.grade_folder(options.folder, options.csv, limits, feedback=options.feedback, fence=fence, say=say)
    print(f"{count} notebooks graded: {options.csv}")
    return 0


def _export(options: argparse.Namespace) -> int:
    from tools.course import exports

    for notebook in _chosen(options.notebooks):
        path = exports.export(notebook, options.to, options.out)
        print(path)
        print(exports.NEXT[options.to].format(file=path, folder=options.out, stem=notebook.stem))
    return 0


def _strip(options: argparse.Namespace) -> int:
    from tools.course import stamping

    for path in options.files:
        stamping.strip(path, answers=not options.no_answers)
    return 0


def _stamp(options: argparse.Namespace) -> int:
    from tools.course import stamping

    outdated = stamping.outdated()
    if outdated:
        print("\n".join(outdated), file=sys.stderr)
    if options.check:
        stale = stamping.stale()
        for path in stale:
            print(f"{path.name} is not what its source makes: run `python -m tools.course stamp`", file=sys.stderr)
        return int(bool(stale or outdated))
    if options.repository:
        address, ref, wheel = options.repository
        stamping.set_repository(address, ref, Path(wheel))
    for path in stamping.stamp():
        print(path.name)
    return 0


def _chosen(names: Sequence[str]) -> tuple[contents.Notebook, ...]:
    return contents.notebooks() if list(names) == ["all"] else tuple(map(contents.find, names))


def _older(file: Path, than: Path) -> bool:
    """Return whether a file is missing or older than another one."""
    return not file.is_file() or file.stat().st_mtime < than.stat().st_mtime


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"cannot read {text!r}: write -p name=value")
    return name.strip(), value.strip()


if __name__ == "__main__":
    sys.exit(main())
