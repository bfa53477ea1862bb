"""A grid of runs of one notebook, from a YAML file: resumable, failures listed, metrics collected.

    notebook: "06"
    preset: smoke                 # optional: teach
    parameters: {loss_phase: both}
    arms:                         # optional: named changes to the parameters
      full: {}
      no_tv: {tv: 0.0}
    grid:                         # optional: every combination
      search_seed: [0, 1, 2]
    seeds: [search_seed]          # optional: parameters over which mean and deviation are taken
    imports: []                   # optional: Python files of yours to run first, relative to this one

Names are those of the notebook's parameters. Where the notebook has the parameter `settings`, they may also be those of
any other setting, such as `rains` or `loss.terms.NAME`.

Each run leaves an executed copy and its facts; starting the sweep again skips what is done with the same parameters.
All runs share one `runs_dir`. What a notebook names its runs by (`arm`, `name`, `retrain_name`) is set where the file
leaves it open: to the arm's name, or to the run's.
"""

import csv
import hashlib
import itertools
import json
import math
import re
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from manas_lite.runs.arguments import import_file
from manas_lite.runs.record import read_json, to_json
from manas_lite.runs.settings import parse
from tools.course import contents, runner, sources

__all__ = ["Run", "Sweep", "collect", "find", "finished", "read", "run_all", "run_one", "shard"]

DIRECTORIES = ("name", "retrain_name")  # parameters that name a run directory, which takes no other run's settings


@dataclass(frozen=True)
class Sweep:
    """What a sweep file says; see the top of this module."""

    notebook: str
    """Number or name."""

    preset: str = "teach"
    """Name of a preset."""

    parameters: dict[str, Any] = field(default_factory=dict)
    """Parameters of all runs."""

    arms: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Changes to the parameters, by the name of an arm."""

    grid: dict[str, list[Any]] = field(default_factory=dict)
    """Parameters of which every combination is run."""

    seeds: tuple[str, ...] = ()
    """Parameters over which mean and deviation are taken."""

    imports: tuple[str, ...] = ()
    """Python files to run first, which register operations, modules or loss terms. A path is relative to the sweep
    file."""

    def runs(self) -> tuple["Run", ...]:
        """Return every run, its parameters checked against the notebook: nothing starts if one of them is wrong."""
        for file in self.imports:
            import_file(file)
        notebook = contents.find(self.notebook)
        built = sources.build(notebook, "solution")
        known = {parameter.name for parameter in runner.parameters_of(built)}
        for name in self.seeds:
            if name not in known:
                raise ValueError(f"seeds: {name!r} is no parameter of {notebook.stem}")
        runs = []
        for arm, changes in (self.arms or {"": {}}).items():
            for values in itertools.product(*self.grid.values()):
                point = dict(zip(self.grid, values, strict=True))
                given = {**self.parameters, **changes, **point}
                if arm and "arm" in known:
                    given.setdefault("arm", arm)
                runner.settle(notebook, built, self.preset, given, Path("."))
                label = "-".join([*filter(None, [arm]), *(f"{k}={v}" for k, v in point.items())]) or "run"
                digest = hashlib.sha256(to_json([notebook.stem, self.preset, sorted(given.items())]).encode())
                name = f"{_slug(label)}-{digest.hexdigest()[:6]}"
                given = {**{parameter: name for parameter in DIRECTORIES if parameter in known}, **given}
                runs.append(Run(name, arm, point, given, self))
        return tuple(runs)


@dataclass(frozen=True)
class Run:
    """One run of a sweep."""

    name: str
    """Fit for files. It ends in a hash of notebook, preset and parameters, so that other ones have another name."""

    arm: str
    """Name of its arm."""

    point: dict[str, Any]
    """Its parameters of the grid."""

    parameters: dict[str, Any]
    """All parameters that differ from the preset."""

    sweep: Sweep = field(repr=False)
    """The sweep that it belongs to."""


def find(path: str | Path) -> Path:
    """Return the path of a sweep file; a bare name that does not lie here is that of one of the notebooks' sweeps."""
    file = Path(path)
    bare = len(file.parts) == 1
    if bare and not file.is_file():
        file = contents.folder() / "sweeps" / file
    if not file.is_file():
        raise FileNotFoundError(f"no sweep file {path}{', here or among those of the notebooks' if bare else ''}")
    return file


def read(path: str | Path) -> Sweep:
    """Read a sweep file, looked for as `find` does; ValueError names what is not understood."""
    file = find(path)
    try:
        sweep = parse(Sweep, yaml.safe_load(file.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is no YAML: {' '.join(str(error).split())}") from None
    return replace(sweep, imports=tuple(str((file.parent / own).resolve()) for own in sweep.imports))


def shard(runs: Iterable[Run], part: str) -> tuple[Run, ...]:
    """Return the i-th of n parts, written "i/n" with i from 1: every n-th run, so that each part has every arm."""
    index, slash, count = part.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise ValueError(f"shard {part!r}: write i/n with 1 <= i <= n, such as 2/8")
    return tuple(runs)[int(index) - 1 :: int(count)]


def finished(run: Run, out: Path) -> bool:
    """Return whether a run is done: its facts are there and say so."""
    facts = out / f"{run.name}.json"
    return facts.is_file() and read_json(facts)["status"] == "done"


def run_one(run: Run, out: Path, timeout: int | None = None) -> dict[str, Any]:
    """Execute one run and return its facts; one that is done is not repeated."""
    if not finished(run, out):
        runner.run(
            contents.find(run.sweep.notebook),
            preset=run.sweep.preset,
            parameters=run.parameters,
            out=out,
            name=run.name,
            runs_dir=out / "runs",
            timeout=timeout,
            imports=run.sweep.imports,
        )
    return read_json(out / f"{run.name}.json")


def run_all(
    runs: Iterable[Run], out: Path, *, timeout: int | None = None, say: Callable[[str], None] = print
) -> list[dict[str, Any]]:
    """Execute runs one after another and return the facts of each; a failed one stops nothing."""
    runs = tuple(runs)
    facts = []
    for number, run in enumerate(runs, start=1):
        skipped = finished(run, out)
        fact = run_one(run, out, timeout)
        facts.append(fact)
        state = "was done" if skipped else f"{fact['status']} in {fact['seconds']:.0f} s"
        say(f"{number}/{len(runs)} {run.name}: {state}{': ' + fact['reason'] if fact['reason'] else ''}")
    return facts


def collect(
    sweep: Sweep, out: Path, shards: Iterable[Path] = (), differences: Iterable[Mapping[str, Any]] = ()
) -> tuple[Path, Path]:
    """Write results.csv and summary.csv into `out`; return their paths.

    The first has a row per run, failed and missing ones too. The second has the mean and the standard deviation of
    every number over `seeds`, and of how many runs they are. Where the arms were compared, it also has each arm's
    paired difference to the reference, with its interval, p and verdict.

    Args:
        sweep: what was run.
        out: the sweep's folder.
        shards: folders of other machines that ran parts of it.
        differences: a row per arm, as `manas_course.differences.compare` makes them.
    """
    folders = (out, *shards)
    rows = []
    for run in sweep.runs():
        places = [folder / f"{run.name}.json" for folder in folders]
        file = next((place for place in places if place.is_file()), places[0])
        fact: dict[str, Any] = {"status": "missing", "reason": "", "seconds": "", "metrics": {}}
        if file.is_file():
            fact = read_json(file)
        facts = {"run": run.name, "arm": run.arm, **run.point, **{k: fact[k] for k in ("status", "reason", "seconds")}}
        rows.append(facts | flat(fact["metrics"]) | facts)  # first, and not replaced by a metric of the same name
    columns = list(dict.fromkeys(column for row in rows for column in row))
    results, summary = out / "results.csv", out / "summary.csv"
    _write(results, columns, rows)

    keys = ["arm", *(name for name in sweep.grid if name not in sweep.seeds)]
    facts_of = {"run", "status", "reason", *keys, *sweep.seeds}
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    judged = {row["arm"]: row for row in differences} if keys == ["arm"] else {}
    lines = []
    for key, members in groups.items():
        done = [row for row in members if row["status"] == "done"]
        line = {**dict(zip(keys, key, strict=True)), "runs": len(members), "done": len(done)}
        for column in columns:
            values = [row[column] for row in done if isinstance(row.get(column), int | float)]
            if column in facts_of or not values or any(isinstance(value, bool) for value in values):
                continue
            line[f"{column} mean"] = statistics.fmean(values)
            line[f"{column} sd"] = statistics.stdev(values) if len(values) > 1 else math.nan
        for name, value in judged.get(key[0], {}).items():
            if name not in ("arm", "parameters"):
                line[f"difference {name}"] = value
        lines.append(line)
    _write(summary, list(dict.fromkeys(column for line in lines for column in line)), lines)
    return results, summary


def flat(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested metrics with dotted names."""
    found: dict[str, Any] = {}
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value if isinstance(value, int | float | str) else json.dumps(value)
    return found


def _slug(label: str) -> str:
    """Return a label as the beginning of a file's name."""
    return re.sub(r"[^\w.=+-]+", "_", label)[:80]


def _write(path: Path, columns: list[str], rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns, restval="")
        table.writeheader()
        table.writerows(rows)
