"""The table of trained architectures: read, checked, queried; its test columns stay locked until `final()`."""

import csv
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from manas_lite.data import LeakError
from manas_lite.micro_bench.architectures import ARCHITECTURES, GATES, SPACE, Architecture, genotype_of
from manas_lite.runs.settings import to_dict

__all__ = ["SHIPPED", "GradientSearch", "MicroBench", "Training", "load"]

SHIPPED = Path(__file__).resolve().parents[1] / "assets" / "micro_bench"
SCORES = ("val_psnr", "val_ssim", "test_psnr", "test_ssim")
COLUMNS = (*SCORES, "parameters", "flops", "seconds")


class Training(NamedTuple):
    """What a search may learn from training one architecture: scores in dB (RGB) and SSIM, CPU seconds."""

    val_psnr: float
    val_ssim: float
    parameters: float
    flops: float
    seconds: float


@dataclass(frozen=True)
class GradientSearch:
    """A supernet's search, epoch by epoch: what would have been derived from it, after how many CPU seconds."""

    seed: int
    seconds: tuple[float, ...]
    derived: tuple[Architecture, ...]


@dataclass(frozen=True, eq=False)
class MicroBench:
    """The table. Arrays are (architectures, seeds), in the order of `architectures` and `seeds`.

    seeds: training seeds that every architecture has. incomplete: architectures trained so far, for seeds that lack
    some; their rows are left out. manifest: data, recipe, versions, device, date and the rainy input's scores, as
    the run that made the table wrote them.
    """

    seeds: tuple[int, ...]
    incomplete: Mapping[int, int]
    manifest: Mapping[str, Any]
    folder: Path
    architectures: tuple[Architecture, ...] = ARCHITECTURES
    opened: bool = False
    _columns: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)

    def scores(self, column: str = "val_psnr") -> np.ndarray:
        """A column, (architectures, seeds). LeakError for test scores before `final()`."""
        if column not in self._columns:
            raise ValueError(f"no column {column!r}: there are {', '.join(COLUMNS)}")
        if column.startswith("test_") and not self.opened:
            raise LeakError(
                f"{column} is locked while architectures are compared: choose on val_psnr; when everything is chosen, "
                "`final()` gives the table with its test scores open"
            )
        return self._columns[column].copy()

    def final(self) -> "MicroBench":
        """The same table with its test scores open: for the end, when nothing is chosen any more."""
        return replace(self, opened=True)

    def row(self, architecture: Architecture) -> int:
        """Where an architecture stands; ValueError where it does not."""
        try:
            return self._rows[architecture]
        except KeyError:
            raise ValueError(
                f"{tuple(architecture)} is not in the table: it holds patterns such as "
                f"{self.architectures[0].modules!r}, with one of {', '.join(GATES)}"
            ) from None

    def query(self, architecture: Architecture, seed: int) -> Training:
        """What training this architecture with this seed gave, without its test scores."""
        if seed not in self.seeds:
            raise ValueError(f"seed {seed} is not in the table: there are {', '.join(map(str, self.seeds))}")
        place = self.row(architecture), self.seeds.index(seed)
        return Training(*(float(self._columns[name][place]) for name in Training._fields))

    def by_genotype(self, column: str = "val_psnr") -> dict[str, float]:
        """Mean over the seeds by genotype id: what `widgets.genotype_editor` shows."""
        means = self.scores(column).mean(1)
        genotypes = (genotype_of(*architecture) for architecture in self.architectures)
        return {genotype.id: float(mean) for genotype, mean in zip(genotypes, means, strict=True)}

    def gradient_searches(self) -> tuple[GradientSearch, ...]:
        """The searches by gradient in this space (searches.csv), by seed."""
        name = "searches.csv"
        by_seed: dict[int, list[tuple[int, float, Architecture]]] = {}
        for line, row in _lines(self.folder / name, ("seed", "epoch", "modules", "gate", "seconds")):
            where = f"{name}, line {line}"
            architecture = self._known(row, where)
            step = (_whole(row, "epoch", where), _number(row, "seconds", where), architecture)
            by_seed.setdefault(_whole(row, "seed", where), []).append(step)
        searches = []
        for seed, steps in sorted(by_seed.items()):
            epochs, seconds, derived = zip(*sorted(steps), strict=True)
            if len(set(epochs)) < len(epochs) or list(seconds) != sorted(seconds):
                raise ValueError(f"{name}, seed {seed}: an epoch stands there twice, or its seconds fall")
            searches.append(GradientSearch(seed, seconds, derived))
        return tuple(searches)

    def one_shot(self) -> np.ndarray:
        """Validation PSNR with weights inherited from a supernet, untrained (one_shot.csv): (supernets, architectures),
        by the supernets' seeds."""
        name = "one_shot.csv"
        found: dict[int, dict[Architecture, float]] = {}
        for line, row in _lines(self.folder / name, ("seed", "modules", "gate", "val_psnr")):
            where = f"{name}, line {line}"
            _put(found.setdefault(_whole(row, "seed", where), {}), self._known(row, where), row, "val_psnr", where)
        for seed, scores in found.items():
            if len(scores) != len(self.architectures):
                raise ValueError(f"{name}, seed {seed}: {len(scores)} of {len(self.architectures)} architectures")
        return np.array([[found[seed][each] for each in self.architectures] for seed in sorted(found)])

    @cached_property
    def _rows(self) -> Mapping[Architecture, int]:
        return {each: place for place, each in enumerate(self.architectures)}

    def _known(self, row: Mapping[str, str], where: str) -> Architecture:
        architecture = Architecture(row["modules"], row["gate"])
        try:
            self.row(architecture)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        return architecture


def load(folder: str | Path | None = None) -> MicroBench:
    """Read a table; default: the one that the package brings.

    folder: holds table.csv (a row an architecture and seed) and manifest.json. Raises FileNotFoundError, or ValueError
    naming file, line and what was expected: for missing columns, unknown architectures, values that are no finite
    numbers, the same training twice, architectures whose cost depends on the seed, a table of another space, and one
    in which no seed is whole.
    """
    folder = SHIPPED if folder is None else Path(folder)
    manifest = _manifest(folder / "manifest.json")
    bench = MicroBench((), {}, manifest, folder)
    found: dict[str, dict[tuple[Architecture, int], float]] = {name: {} for name in COLUMNS}
    for line, row in _lines(folder / "table.csv", ("modules", "gate", "seed", *COLUMNS)):
        where = f"table.csv, line {line}"
        key = bench._known(row, where), _whole(row, "seed", where)
        for name in COLUMNS:
            _put(found[name], key, row, name, where)
    trained = Counter(seed for _, seed in found["val_psnr"])
    whole = tuple(sorted(seed for seed, count in trained.items() if count == len(bench.architectures)))
    incomplete = {seed: count for seed, count in sorted(trained.items()) if seed not in whole}
    if not whole:
        raise ValueError(
            f"{folder / 'table.csv'}: no seed has all {len(bench.architectures)} architectures (seed: trained: "
            f"{incomplete}): let the run that makes the table go on"
        )
    columns = {
        name: np.array([[values[each, seed] for seed in whole] for each in bench.architectures])
        for name, values in found.items()
    }
    for name in ("parameters", "flops"):
        if (columns[name] != columns[name][:, :1]).any():
            raise ValueError(f"{folder / 'table.csv'}: {name} of one architecture differ between seeds")
    if (columns["seconds"] <= 0).any():
        raise ValueError(f"{folder / 'table.csv'}: seconds must be positive: they are what a training costs")
    return replace(bench, seeds=whole, incomplete=incomplete, _columns=columns)


def _manifest(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"no table at {path.parent}: {path.name} is missing; scripts/micro_bench.py makes both")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(manifest, Mapping):
        raise ValueError(f"{path}: expected an object")
    if manifest.get("space", to_dict(SPACE)) != to_dict(SPACE):
        raise ValueError(f"{path}: the table is of another search space than this package's micro_bench.SPACE")
    return manifest


def _lines(path: Path, columns: Iterable[str]) -> Iterable[tuple[int, dict[str, str]]]:
    """Line numbers and rows of a CSV that has (at least) these columns."""
    if not path.is_file():
        raise FileNotFoundError(f"no {path.name} in {path.parent}: scripts/micro_bench.py makes it")
    with open(path, newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        missing = [name for name in columns if name not in (rows.fieldnames or ())]
        if missing:
            raise ValueError(f"{path}: no column {', '.join(missing)}; there are {', '.join(rows.fieldnames or ())}")
        for row in rows:
            yield rows.line_num, row


def _put(values: dict[Any, float], key: Any, row: Mapping[str, str], name: str, where: str) -> None:
    if key in values:
        raise ValueError(f"{where}: the same architecture and seed a second time")
    values[key] = _number(row, name, where)


def _number(row: Mapping[str, str], name: str, where: str) -> float:
    try:
        value = float(row[name])
    except (TypeError, ValueError):  # None: the line is too short
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{where}: {name}={row[name]!r} is no finite number")
    return value


def _whole(row: Mapping[str, str], name: str, where: str) -> int:
    value = _number(row, name, where)
    if value != int(value) or value < 0:
        raise ValueError(f"{where}: {name}={row[name]!r}: expected a whole number from 0 on")
    return int(value)
