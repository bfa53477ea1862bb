"""One arm of an ablation: its switches -> space and settings; search (shared between arms), retrain, evaluate."""

import csv
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from manas_lite.data import Split
from manas_lite.losses import LossSettings
from manas_lite.networks.genotype import Genotype
from manas_lite.networks.space import SearchSpace
from manas_lite.runs.record import read_json, write_json
from manas_lite.runs.settings import to_dict
from manas_lite.training.evaluation import evaluate
from manas_lite.training.retraining import retrain
from manas_lite.training.schedules import RetrainSettings, SearchSettings
from manas_lite.training.searching import search

__all__ = ["Arm", "comparable", "results", "run_arm", "write_tables"]


@dataclass(frozen=True)
class Arm:
    """The switches of notebook 06, by the same names; see its parameters cell for what each does."""

    arm: str = "full"
    size: str = "teach"
    architecture: Literal["searched", "random", "hand_made"] = "searched"
    search_seed: int = 0
    retrain_seed: int = 0
    loss_phase: Literal["search", "retrain", "both"] = "both"
    distance: Literal["l1", "mse", "charbonnier"] = "l1"
    w_mse: float = 1.0
    w_ssim: float = 0.3
    w_tv: float = 1e-4
    w_internal: float = 0.1
    internal_start: int = 1
    internal_ssim: bool = False
    w_entropy_alpha: float = 0.01
    w_entropy_beta: float = 0.01
    w_complexity: float = 0.01
    cost: Literal["parameters", "flops"] = "parameters"
    multi_to_one: bool = True
    extra_rain: bool = False
    rains_per_scene: int = 0
    order: Literal["first", "finite-difference", "exact"] = "first"
    attention: bool = True
    fusion: bool = True
    residual: bool = True
    norm: str = "none"
    stem: str = "unshuffle"
    search_steps: int = 150
    warmup_epochs: int = 1
    retrain_steps: int = 600

    @property
    def space(self) -> SearchSpace:
        switches = {"attention": self.attention, "residual": self.residual, "norm": self.norm, "stem": self.stem}
        return SearchSpace.preset(self.size, **switches)

    @property
    def loss(self) -> LossSettings:
        """The method's weights of single terms, as this kit's settings hold them (TV lies inside the external loss)."""
        if self.w_mse == self.w_ssim == 0:
            raise ValueError("w_mse and w_ssim are both 0: nothing would draw the output to the clean picture")
        weight = self.w_mse or self.w_ssim
        kind = "ssim" if not self.w_mse else f"{self.distance}+ssim" if self.w_ssim else self.distance
        return LossSettings(
            external=kind,  # type: ignore[arg-type]
            external_weight=weight,
            external_ssim=self.w_ssim / weight if self.w_mse else 1.0,
            tv=self.w_tv / weight,
            internal_weight=self.w_internal,
            internal_from=self.internal_start,
            internal_ssim=self.internal_ssim,
            alpha_entropy_weight=self.w_entropy_alpha,
            beta_entropy_weight=self.w_entropy_beta,
            complexity_weight=self.w_complexity,
            complexity_unit=self.cost,
        )

    def search_settings(self) -> SearchSettings:
        epochs = max(self.warmup_epochs + 1, 5)
        loss = self.loss if self.loss_phase in ("search", "both") else Arm().loss
        return SearchSettings.preset(
            self.size,
            seed=self.search_seed,
            epochs=epochs,
            steps=max(1, self.search_steps // epochs),
            warmup=self.warmup_epochs,
            order=self.order,
            loss=loss,
            eigenvalue_every=0,
            **self._data(),
        )

    def retrain_settings(self) -> RetrainSettings:
        epochs = min(5, self.retrain_steps)
        loss = self.loss if self.loss_phase in ("retrain", "both") else Arm().loss
        steps = self.retrain_steps // epochs
        return RetrainSettings.preset(
            self.size,
            # Nested: were the retrainings of all searches to start alike, their noise would be in no interval.
            seed=1000 * self.search_seed + self.retrain_seed,
            epochs=epochs,
            steps=steps,
            loss=loss,
            warmup=steps // 5,
            validate_every=epochs,  # no best epoch is chosen on the pictures that the arms are compared on
            val_scenes=4,
            **self._data(),
        )

    def _data(self) -> dict[str, Any]:
        return {
            "multi_to_one": self.multi_to_one,
            "rains": self.rains_per_scene or None,
            "fresh_rain": ("light", "heavy") if self.extra_rain else (),
        }


def run_arm(
    arm: Arm, split: Split, *, runs_dir: str | Path, final: bool = False, progress: bool = False
) -> dict[str, Any]:
    """Search, retrain and score one arm; writes result.json into a directory named by the arm's hash, and returns it.

    A search that another arm has done with the same settings is taken over. final: score on the test scenes, which are
    for the end; otherwise on the validation scenes. progress: bars or lines of the search and the retraining. Repeating
    a finished arm costs nothing.
    """
    folder = Path(runs_dir) / "ablation"
    name = f"{arm.arm}-{_digest(to_dict(arm), split.sha256)}"
    genotype = _architecture(arm, split, folder, progress)
    trained = retrain(genotype, split, arm.retrain_settings(), runs_dir=folder, name=name, progress=progress)
    part = "test" if final else "val"
    file = folder / name / f"result-{part}.json"
    if not file.is_file():
        scores = evaluate(trained.net, getattr(split, part), conventions=("rgb", "y"), measures=("psnr",))
        result = {
            "arm": arm.arm,
            "search_seed": arm.search_seed,
            "retrain_seed": arm.retrain_seed,
            "part": part,
            "genotype": genotype.id,
            "parameters": genotype.cost(),
            "seconds": trained.seconds,
            "settings": to_dict(arm),
            "images": {f"{row['scene']}/{row['label']}": row["psnr_rgb"] for row in scores.rows},
            "images_y": {f"{row['scene']}/{row['label']}": row["psnr_y"] for row in scores.rows},
            "rainy": {f"{row['scene']}/{row['label']}": row["rainy_psnr_rgb"] for row in scores.rows},
        }
        write_json(file, result)
    return read_json(file)


def results(runs_dir: str | Path, part: str = "val") -> list[dict[str, Any]]:
    """All finished arms below `runs_dir`, in a fixed order."""
    found = [read_json(path) for path in (Path(runs_dir) / "ablation").glob(f"*/result-{part}.json")]
    return sorted(found, key=lambda r: (r["arm"] != "full", r["arm"], r["search_seed"], r["retrain_seed"]))


def comparable(found: Sequence[dict[str, Any]], like: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Those results that share size, budget and pictures with `like`, or, without it, the most that share them."""
    groups: dict[Any, list[dict[str, Any]]] = {}
    for result in found:
        groups.setdefault(_study(result), []).append(result)
    if like is not None:
        return groups.get(_study(like), [])
    return max(groups.values(), key=len, default=[])


def write_tables(found: Sequence[dict[str, Any]], folder: str | Path) -> tuple[Path, Path]:
    """runs.csv, a row a run, and images.csv, a row a picture of a run."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    keys = ["arm", "search_seed", "retrain_seed", "part", "genotype", "parameters", "seconds"]
    runs, images = folder / "runs.csv", folder / "images.csv"
    with open(runs, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow([*keys, "psnr_rgb", "psnr_y", "rainy_psnr_rgb"])
        for r in found:
            means = [sum(r[name].values()) / len(r[name]) for name in ("images", "images_y", "rainy")]
            table.writerow([*(r[key] for key in keys), *means])
    with open(images, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(
            ["arm", "search_seed", "retrain_seed", "part", "picture", "psnr_rgb", "psnr_y", "rainy_psnr_rgb"]
        )
        for r in found:
            for picture, value in r["images"].items():
                facts = [r[key] for key in ("arm", "search_seed", "retrain_seed", "part")]
                table.writerow([*facts, picture, value, r["images_y"][picture], r["rainy"][picture]])
    return runs, images


def _study(result: dict[str, Any]) -> tuple[Any, ...]:
    settings = result["settings"]
    return (*(settings[name] for name in ("size", "search_steps", "retrain_steps")), *sorted(result["images"]))


def _architecture(arm: Arm, split: Split, folder: Path, progress: bool) -> Genotype:
    if arm.architecture == "random":
        genotype = Genotype.random(arm.space, arm.search_seed)
    elif arm.architecture == "hand_made":
        genotype = Genotype.hand_made(arm.space)
    else:
        settings = arm.search_settings()
        name = f"search-{_digest(to_dict(arm.space), to_dict(settings), split.sha256)}"
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{name}.lock"):  # two arms that need it: one searches, the other waits
            found = search(arm.space, split, settings, runs_dir=folder, name=name, progress=progress)
        genotype = found.genotype
    return genotype if arm.fusion else replace(genotype, modules=("parallel",) * len(genotype.modules))


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:10]
