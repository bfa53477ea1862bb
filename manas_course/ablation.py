"""One arm of an ablation: the settings that it changes, its search (shared between arms), retraining and scores."""

import csv
import difflib
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from filelock import FileLock

from manas_course import renamed
from manas_lite.data import Split
from manas_lite.losses import LossSettings
from manas_lite.networks.genotype import Genotype
from manas_lite.networks.space import SearchSpace
from manas_lite.runs.record import read_json, write_json
from manas_lite.runs.settings import check, difference, parse, to_dict
from manas_lite.training.evaluation import evaluate
from manas_lite.training.retraining import retrain
from manas_lite.training.schedules import RetrainSettings, SearchSettings
from manas_lite.training.searching import search

__all__ = ["Arm", "Plan", "comparable", "names", "read_results", "results", "run_arm", "texts", "write_tables"]

SCHEDULE = {"seed": "search_seed or retrain_seed", "epochs": "search_steps or retrain_steps"}
SCHEDULE["steps"] = SCHEDULE["epochs"]
"""Settings that follow from fields of an arm, and those fields."""


class Plan(NamedTuple):
    """What an arm trains and how: all that its settings can change."""

    space: SearchSpace
    loss: LossSettings
    search: SearchSettings
    retrain: RetrainSettings

    def set(self, settings: Sequence[str]) -> "Plan":
        """Return the plan with settings replaced in every part that has them, all at once.

        Args:
            settings: texts "name=value" as after `--set`. One of the losses may also be written `loss.name`.

        Raises:
            ValueError: for an unknown name, with the nearest one, and for a value that the setting does not take.
        """
        documents = [to_dict(part) for part in self]
        for text in settings:
            name, equals, value = (piece.strip() for piece in text.partition("="))
            field, *inner = name.removeprefix("loss.").split(".")
            if not equals:
                raise ValueError(f"cannot read {text!r}: write name=value, such as tv=0")
            if field in SCHEDULE:
                raise ValueError(f"{name!r} follows from the arm's own fields: set {SCHEDULE[field]}")
            if field not in SETTINGS:
                near = difflib.get_close_matches(name, names(), n=1, cutoff=0.0)[0]
                raise ValueError(f"unknown setting {name!r}: did you mean {near!r}?")
            for part, document in zip(self, documents, strict=True):
                if field in _settings_of(part):
                    if inner and not isinstance(document.setdefault(field, {}), dict):
                        raise ValueError(f"{field}: it holds no settings of its own, so {name!r} names nothing")
                    (document[field] if inner else document)[".".join(inner) or field] = value
        return Plan._make(parse(type(p), document, text=True) for p, document in zip(self, documents, strict=True))


def _settings_of(part: Any) -> set[str]:
    """Return the settings of one part of a plan, those that were renamed also by their old names."""
    return {field.name for field in fields(part)} | set(getattr(part, "RENAMED", {}))


SETTINGS = {name for part in Plan.__annotations__.values() for name in _settings_of(part)} - {"loss", *SCHEDULE}


def _with_old_keywords(cls: type["Arm"]) -> type["Arm"]:
    """Let an arm be made with the keywords that it had before `settings`, for one release."""
    made = cls.__init__

    @functools.wraps(made)
    def __init__(self: "Arm", *values: Any, **given: Any) -> None:
        for name in sorted(given.keys() & renamed.KEYWORDS):
            renamed.warn(f"Arm({name}=...)", f"Arm(settings=('{name}=...',))", level=3)
        if given.keys() & {*renamed.KEYWORDS, *renamed.SETTINGS}:
            given = _gathered(given)
        made(self, *values, **given)

    cls.__init__ = __init__  # type: ignore[method-assign]
    return cls


@_with_old_keywords
@dataclass(frozen=True)
class Arm:
    """One arm of a study. What is left as it is gives the full method at the arm's size."""

    arm: str = "full"
    """Name of this combination of settings."""
    size: str = "teach"
    """Preset of the space and of all settings that are not named: smoke, teach, lite or paper."""
    architecture: Literal["searched", "random", "hand_made"] = "searched"
    """Where the architecture comes from."""
    search_seed: int = 0
    """The unit of replication: the seed of the search."""
    retrain_seed: int = 0
    """The seed of the retraining, nested in the search seed."""
    loss_phase: Literal["search", "retrain", "both"] = "both"
    """Where changed settings of the losses count. Elsewhere the losses are those of the size."""
    fusion: bool = True
    """False makes every module parallel after the search."""
    search_steps: int = 150
    """Steps of the search, warm-up included."""
    warmup_epochs: int = 1
    """Epochs of the search, five or more, before the first architecture step."""
    retrain_steps: int = 600
    """Steps of the retraining."""
    settings: tuple[str, ...] = ()
    """All other changes, texts "name=value" as after `--set`; kept sorted, without those that change nothing."""

    def __post_init__(self) -> None:
        check(self)
        base = self._base()
        plan = base.set(self.settings)
        changes = [d for part, plain in zip(plan, base, strict=True) for d in difference(part, plain)]
        kept = {text for change in changes for text in texts({change.field: change.here})}
        object.__setattr__(self, "settings", tuple(sorted(kept)))

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Arm":
        """Return the arm of named values, such as a notebook's parameters or the changes in a sweep file.

        Args:
            values: fields of an arm, and any setting by its name. The setting's value, or its text, is put into
                `settings`, before the texts that stand there.

        Raises:
            ValueError: for an unknown name, with the nearest one, and for a value that is not taken.
        """
        return cls(**_gathered(values))

    @property
    def plan(self) -> Plan:
        """The space, the losses, and the settings of the search and of the retraining."""
        base = self._base()
        plan = base.set(self.settings)
        searching = base.loss if self.loss_phase == "retrain" else plan.loss
        retraining = base.loss if self.loss_phase == "search" else plan.loss
        return plan._replace(
            search=replace(plan.search, loss=searching), retrain=replace(plan.retrain, loss=retraining)
        )

    def changes(self) -> dict[str, Any]:
        """Return the fields that differ from their defaults: what identifies the arm, whatever fields come later."""
        return {d.field: d.here for d in difference(self, Arm())}

    def _base(self) -> Plan:
        """Return the plan of this size and budget, before any setting."""
        epochs = max(self.warmup_epochs + 1, 5)
        searching = SearchSettings.preset(
            self.size,
            seed=self.search_seed,
            epochs=epochs,
            steps=max(1, self.search_steps // epochs),
            warmup=self.warmup_epochs,
            eigenvalue_every=0,
        )
        epochs = min(5, self.retrain_steps)
        steps = self.retrain_steps // max(1, epochs)
        retraining = RetrainSettings.preset(
            self.size,
            # Nested: were the retrainings of all searches to start alike, their noise would be in no interval.
            seed=1000 * self.search_seed + self.retrain_seed,
            epochs=epochs,
            steps=steps,
            warmup=steps // 5,
            validate_every=epochs,  # no best epoch is chosen on the pictures that the arms are compared on
            val_scenes=4,
        )
        return Plan(SearchSpace.preset(self.size), searching.loss, searching, retraining)


def names() -> set[str]:
    """Return every name that `Arm.of` knows: the fields of an arm, and all settings."""
    return {field.name for field in fields(Arm)} | SETTINGS


def texts(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return named values as texts that a setting is read from.

    Example:
    >>> texts({"tv": 0.0, "rains": None, "fresh_rain": ["light", "heavy"], "terms": {"edges": 0.1}})
    ('tv=0.0', 'rains=none', 'fresh_rain=light,heavy', 'terms.edges=0.1')
    """
    found: list[str] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += texts({f"{name}.{key}": item for key, item in value.items()})
        elif isinstance(value, list | tuple):
            found.append(f"{name}={','.join(map(str, value))}")
        else:
            found.append(f"{name}={str(value).lower() if value is None or isinstance(value, bool) else value}")
    return tuple(found)


def _gathered(values: Mapping[str, Any], *, stored: bool = False) -> dict[str, Any]:
    """Return named values as the keywords of an arm: what is no field of one goes into `settings`."""
    size = str(values.get("size", Arm.size))
    values = renamed.current(values, vars(SearchSettings.preset(size).loss), stored=stored)
    own = {field.name: values[field.name] for field in fields(Arm) if field.name in values}
    others = {name: value for name, value in values.items() if name not in own}
    return own | {"settings": (*texts(others), *own.get("settings", ()))}


def run_arm(
    arm: Arm, split: Split, *, runs_dir: str | Path, final: bool = False, progress: bool = False
) -> dict[str, Any]:
    """Search, retrain and score one arm; return its result, which is kept as a file.

    A search that another arm has done with the same settings is taken over. Repeating a finished arm costs nothing.

    Args:
        arm: what to run.
        split: the scenes.
        runs_dir: where the arm gets a directory, `ablation/NAME-HASH`, which holds its result-val.json or -test.json.
        final: score on the test scenes, which are for the end; otherwise on the validation scenes.
        progress: show bars or lines of the search and the retraining.

    Returns:
        Arm, seeds, genotype, parameters, seconds and settings, and the PSNR in dB of each picture: `images` (RGB),
        `images_y` and `rainy` (the input's, RGB).
    """
    folder = Path(runs_dir) / "ablation"
    name = f"{arm.arm}-{_digest(arm.changes(), split.sha256)}"
    genotype = _architecture(arm, split, folder, progress)
    trained = retrain(genotype, split, arm.plan.retrain, runs_dir=folder, name=name, progress=progress)
    part = "test" if final else "val"
    file = folder / name / f"result-{part}.json"
    if not file.is_file():
        scores = evaluate(trained.net, getattr(split, part), conventions=("rgb", "y"), measures=("psnr",))
        columns = {"images": "psnr_rgb", "images_y": "psnr_y", "rainy": "rainy_psnr_rgb"}
        result = {
            "arm": arm.arm,
            "search_seed": arm.search_seed,
            "retrain_seed": arm.retrain_seed,
            "part": part,
            "genotype": genotype.id,
            "parameters": genotype.cost(),
            "seconds": trained.seconds,
            "settings": to_dict(arm),
        }
        for key, column in columns.items():
            result[key] = {f"{row['scene']}/{row['label']}": row[column] for row in scores.rows}
        write_json(file, result)
    return read_json(file)


def results(runs_dir: str | Path, part: str = "val") -> list[dict[str, Any]]:
    """Return the results of all finished arms below `runs_dir`, in a fixed order; one run twice counts once."""
    found = [_renewed(read_json(path)) for path in sorted(Path(runs_dir).glob(f"ablation/*/result-{part}.json"))]
    once = {_digest(result["settings"], sorted(result["images"])): result for result in found}
    return sorted(once.values(), key=lambda r: (r["arm"] != "full", r["arm"], r["search_seed"], r["retrain_seed"]))


def read_results(file: str | Path) -> list[dict[str, Any]]:
    """Return the results that one file holds, as `scripts/ablations.py` writes them."""
    return [_renewed(result) for result in read_json(Path(file))]


def _renewed(result: dict[str, Any]) -> dict[str, Any]:
    """Return a stored result with the present names of its arm and settings, and with the fields that came later."""
    settings = to_dict(Arm()) | result["settings"]
    if "settings" not in result["settings"]:
        settings = to_dict(Arm(**_gathered(result["settings"], stored=True)))
    settings["arm"] = renamed.ARMS.get(result["arm"], result["arm"])
    return {**result, "arm": settings["arm"], "settings": settings}


def comparable(found: Sequence[dict[str, Any]], like: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Return those results that share size, budget and pictures with `like`; without it, the most that share them."""
    groups: dict[Any, list[dict[str, Any]]] = {}
    for result in found:
        groups.setdefault(_study(result), []).append(result)
    if like is not None:
        return groups.get(_study(like), [])
    return max(groups.values(), key=len, default=[])


def _study(result: dict[str, Any]) -> tuple[Any, ...]:
    settings = result["settings"]
    return (*(settings[name] for name in ("size", "search_steps", "retrain_steps")), *sorted(result["images"]))


def write_tables(found: Sequence[dict[str, Any]], folder: str | Path) -> tuple[Path, Path]:
    """Write runs.csv, with a row per run, and images.csv, with a row per picture of a run; return their paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    scores = {"psnr_rgb": "images", "psnr_y": "images_y", "rainy_psnr_rgb": "rainy"}
    run = ["arm", "search_seed", "retrain_seed", "part"]
    more = ["genotype", "parameters", "seconds"]
    rows: dict[str, list[list[Any]]] = {"runs": [[*run, *more, *scores]], "images": [[*run, "picture", *scores]]}
    for r in found:
        facts = [r[key] for key in run]
        means = [sum(r[name].values()) / len(r[name]) for name in scores.values()]
        rows["runs"].append([*facts, *(r[key] for key in more), *means])
        rows["images"] += [
            [*facts, picture, *(r[name][picture] for name in scores.values())] for picture in r["images"]
        ]
    for name, lines in rows.items():
        with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(lines)
    return folder / "runs.csv", folder / "images.csv"


def _architecture(arm: Arm, split: Split, folder: Path, progress: bool) -> Genotype:
    space, settings = arm.plan.space, arm.plan.search
    if arm.architecture == "random":
        genotype = Genotype.random(space, arm.search_seed)
    elif arm.architecture == "hand_made":
        genotype = Genotype.hand_made(space)
    else:
        name = f"search-{_digest(to_dict(space), to_dict(settings), split.sha256)}"
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{name}.lock"):  # two arms that need it: one searches, the other waits
            genotype = search(space, split, settings, runs_dir=folder, name=name, progress=progress).genotype
    return genotype if arm.fusion else replace(genotype, modules=("parallel",) * len(genotype.modules))


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:10]
