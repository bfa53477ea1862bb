"""The table of trained architectures: read, checked and queried. Its test scores stay locked until `final()`."""

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from manas_course.micro_bench.architectures import ARCHITECTURES, GATES, SPACE, Architecture, genotype_of
from manas_lite.data import LeakError
from manas_lite.runs.settings import to_dict

TABLE_FOLDER = Path(__file__).resolve().parents[1] / "assets" / "micro_bench"
COLUMNS = ("val_psnr", "val_ssim", "test_psnr", "test_ssim", "parameters", "flops", "seconds")
ARM = "gradient"
"""The kind of search that is meant where none is named."""
WHOLE = ("seed", "epoch")  # columns of whole numbers
PLACES = {architecture: place for place, architecture in enumerate(ARCHITECTURES)}


class Training(NamedTuple):
    """What a search may learn from training one architecture: PSNR in dB (RGB), SSIM, costs, CPU seconds."""

    val_psnr: float
    val_ssim: float
    parameters: float
    flops: float
    seconds: float


@dataclass(frozen=True)
class GradientSearch:
    """A recorded search on one supernet, epoch by epoch."""

    seed: int
    seconds: tuple[float, ...]
    """CPU seconds from the start to the end of each epoch."""
    derived: tuple[Architecture, ...]
    """The architecture that would be derived after each epoch."""


@dataclass(frozen=True, eq=False)
class MicroBench:
    """The table. Its arrays are (architectures, seeds), in the order of `architectures` and `seeds`."""

    seeds: tuple[int, ...]
    """The training seeds that every architecture has."""
    incomplete: Mapping[int, int]
    """How many architectures are trained so far, for each seed that lacks some. Their rows are left out."""
    manifest: Mapping[str, Any]
    """Data, recipe, versions, device, date and the scores of the rainy input, as written by the run that made it."""
    folder: Path
    opened: bool = False
    """Whether the test scores may be read."""
    _columns: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)
    architectures: ClassVar[tuple[Architecture, ...]] = ARCHITECTURES

    def scores(self, column: str = "val_psnr") -> np.ndarray:
        """Return a copy of a column, (architectures, seeds); raise LeakError for test scores before `final()`."""
        if column not in self._columns:
            raise ValueError(f"no column {column!r}: there are {', '.join(COLUMNS)}")
        if column.startswith("test_") and not self.opened:
            raise LeakError(
                f"{column} is locked while architectures are compared: choose on val_psnr; when everything is chosen, "
                "`final()` gives the table with its test scores open"
            )
        return self._columns[column].copy()

    def final(self) -> "MicroBench":
        """Return the same table with its test scores open: for the end, when nothing is chosen any more."""
        return replace(self, opened=True)

    def row(self, architecture: Architecture) -> int:
        """Return the row of an architecture; raise ValueError for one that is not in the table."""
        return _place(architecture)

    def query(self, architecture: Architecture, seed: int) -> Training:
        """Return what training this architecture with this seed gave, without its test scores."""
        if seed not in self.seeds:
            raise ValueError(f"seed {seed} is not in the table: there are {', '.join(map(str, self.seeds))}")
        place = self.row(architecture), self.seeds.index(seed)
        return Training(*(float(self._columns[name][place]) for name in Training._fields))

    def by_genotype(self, column: str = "val_psnr") -> dict[str, float]:
        """Return the mean over the seeds by genotype id, as `widgets.genotype_editor` shows it."""
        means = self.scores(column).mean(1).tolist()
        return {genotype_of(*each).id: mean for each, mean in zip(ARCHITECTURES, means, strict=True)}

    def gradient_searches(self, arm: str = ARM) -> tuple[GradientSearch, ...]:
        """Return the searches of one kind in this space by seed, from searches.csv (kinds: scripts/micro_bench.py)."""
        steps: dict[int, list[tuple[float, float, Architecture]]] = {}
        for _, architecture, row in _rows(self.folder / "searches.csv", ("seed", "epoch", "seconds"), arm):
            steps.setdefault(int(row["seed"]), []).append((row["epoch"], row["seconds"], architecture))
        searches = []
        for seed, found in sorted(steps.items()):
            epochs, seconds, derived = zip(*sorted(found), strict=True)
            if len(set(epochs)) < len(epochs) or list(seconds) != sorted(seconds):
                raise ValueError(f"searches.csv, seed {seed}: an epoch stands there twice, or its seconds fall")
            searches.append(GradientSearch(seed, seconds, derived))
        return tuple(searches)

    def one_shot(self, arm: str = ARM) -> np.ndarray:
        """Return validation PSNR (dB) with weights inherited from a supernet and not trained on, from one_shot.csv.

        The result is (supernets, architectures), in the order of the seeds of one kind of search.
        """
        found = _by_seed(self.folder / "one_shot.csv", ("val_psnr",), arm)
        for seed, scored in found.items():
            if len(scored) != len(ARCHITECTURES):
                raise ValueError(f"one_shot.csv, seed {seed}: {len(scored)} of {len(ARCHITECTURES)} architectures")
        return np.array([[found[seed][each]["val_psnr"] for each in ARCHITECTURES] for seed in sorted(found)])


def load(folder: str | Path | None = None) -> MicroBench:
    """Read a table and check it.

    Args:
        folder: holds table.csv (one row per architecture and seed) and manifest.json. The package's own by default.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: the file and line are named. A column is missing, an architecture is unknown, a value is no finite
            number, the same training stands there twice, the costs of an architecture depend on the seed, the table
            is of another space, or no seed has every architecture.
    """
    folder = TABLE_FOLDER if folder is None else Path(folder)
    manifest, table = _manifest(folder / "manifest.json"), folder / "table.csv"
    trained = _by_seed(table, COLUMNS)
    whole = tuple(seed for seed in sorted(trained) if len(trained[seed]) == len(ARCHITECTURES))
    incomplete = {seed: len(found) for seed, found in sorted(trained.items()) if seed not in whole}
    if not whole:
        raise ValueError(
            f"{table}: no seed has all {len(ARCHITECTURES)} architectures (seed: trained: {incomplete}): let the run "
            "that makes the table go on"
        )
    columns = {n: np.array([[trained[seed][each][n] for seed in whole] for each in ARCHITECTURES]) for n in COLUMNS}
    for name in ("parameters", "flops"):
        if np.ptp(columns[name], axis=1).any():
            raise ValueError(f"{table}: {name} of one architecture differ between seeds")
    if (columns["seconds"] <= 0).any():
        raise ValueError(f"{table}: seconds must be positive: they are what a training costs")
    return MicroBench(whole, incomplete, manifest, folder, _columns=columns)


def _place(architecture: Architecture, where: str = "") -> int:
    if architecture not in PLACES:
        known = f"patterns such as {ARCHITECTURES[0].modules!r}, with one of {', '.join(GATES)}"
        raise ValueError(f"{where}{tuple(architecture)} is not in the table: it holds {known}")
    return PLACES[architecture]


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


def _by_seed(
    path: Path, columns: Sequence[str], arm: str | None = None
) -> dict[int, dict[Architecture, dict[str, float]]]:
    """Return the rows of a CSV by seed and architecture, each of which may stand there once."""
    found: dict[int, dict[Architecture, dict[str, float]]] = {}
    for where, architecture, row in _rows(path, ("seed", *columns), arm):
        of_seed = found.setdefault(int(row["seed"]), {})
        if architecture in of_seed:
            raise ValueError(f"{where}: the same architecture and seed a second time")
        of_seed[architecture] = row
    return found


def _rows(
    path: Path, columns: Sequence[str], arm: str | None = None
) -> Iterator[tuple[str, Architecture, dict[str, float]]]:
    """Yield the line, the architecture and the numbers of each row of a CSV that has at least these columns.

    With `arm`, of that kind of search alone; a file without such a column is of the first kind.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no {path.name} in {path.parent}: scripts/micro_bench.py makes it")
    with open(path, newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        missing = {"modules", "gate", *columns} - {*(rows.fieldnames or ())}
        if missing:
            raise ValueError(
                f"{path}: no column {', '.join(sorted(missing))}; there are {', '.join(rows.fieldnames or ())}"
            )
        kinds = set()
        for row in rows:
            kinds.add(row.setdefault("arm", ARM))
            if arm not in (None, row["arm"]):
                continue
            where, architecture = f"{path.name}, line {rows.line_num}", Architecture(row["modules"], row["gate"])
            _place(architecture, f"{where}: ")
            yield where, architecture, {name: _number(row[name], name, where) for name in columns}
        if arm is not None and arm not in kinds:
            raise ValueError(f"{path.name}: no search of the kind {arm!r}: there are {', '.join(sorted(kinds))}")


def _number(text: str | None, name: str, where: str) -> float:
    try:
        value = float(text or "")  # None: the line is too short
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{where}: {name}={text!r} is no finite number")
    if name in WHOLE and (value < 0 or not value.is_integer()):
        raise ValueError(f"{where}: {name}={text!r}: expected a whole number from 0 on")
    return value
