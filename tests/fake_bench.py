"""A made-up table of known structure for tests: quality by formula, noise of a chosen size. No result of anything."""

import csv
import json
from pathlib import Path

import numpy as np

from manas_course import micro_bench
from manas_lite.runs.settings import to_dict

FIELDS = ("modules", "gate", "seed", "val_psnr", "val_ssim", "test_psnr", "test_ssim", "parameters", "flops", "seconds")
BEST = micro_bench.Architecture("ffff", "CBAM")


def quality(modules: str, gate: str) -> float:
    """dB: 0.4 a fusion module, 0.1 a place in the list of gates; the best is BEST."""
    return 24 + 0.4 * modules.count("f") + 0.1 * micro_bench.GATES.index(gate)


def write(folder: Path, *, seeds: int = 4, noise: float = 0.1, shift: float = 0.5, supernets: int = 2) -> Path:
    """Write table.csv, manifest.json, searches.csv and one_shot.csv; seed s is shifted by s * `shift` dB as a whole."""
    rng = np.random.default_rng(0)
    table, one_shot, searches = [], [], []
    for seed in range(seeds):
        for modules, gate in micro_bench.ARCHITECTURES:
            score = quality(modules, gate) + shift * seed + noise * rng.normal()
            genotype = micro_bench.genotype_of(modules, gate)
            costs = [genotype.cost(), genotype.cost("flops"), 50.0 + 10 * modules.count("p")]
            row = [modules, gate, seed, score, score / 30, score - 1 + noise * rng.normal(), score / 31, *costs]
            table.append(dict(zip(FIELDS, row, strict=True)))
    for seed in range(supernets):
        for modules, gate in micro_bench.ARCHITECTURES:
            score = quality(modules, gate) / 2 + noise * rng.normal()
            one_shot.append({"seed": seed, "modules": modules, "gate": gate, "val_psnr": score})
        for epoch, modules in enumerate(("pppp", "ppff", "ffff")):
            step = {"seed": seed, "epoch": epoch, "modules": modules, "gate": "SE", "seconds": 100.0 * (epoch + 1)}
            searches.append(step)
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("table", table), ("one_shot", one_shot), ("searches", searches)):
        with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            out = csv.DictWriter(file, list(rows[0]))
            out.writeheader()
            out.writerows(rows)
    manifest = {"made_up": True, "space": to_dict(micro_bench.SPACE)}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder
