"""Put finished runs into the package, as what notebooks fall back on: python scripts/course_runs.py RUNS NAME...

A name is a run directory in RUNS; the name `gap` evaluates what is shipped already (search and searched) and writes
what notebook 04 draws: gap.json. (What 06 and 10 fall back on is written by scripts/ablations.py.)

Copies genotype, weights, metrics and log of each run directory, and of its manifest only what does not depend on the
machine's names and paths.
"""

import argparse
import json
import shutil
from pathlib import Path

from manas_lite import DerainNet, SuperNet, evaluate, load, open_split
from manas_lite.networks.genotype import Genotype
from manas_lite.runs.checkpoint import read as read_tensors

TARGET = Path(__file__).resolve().parents[1] / "manas_course" / "assets" / "runs"
FILES = ("genotype.json", "log.jsonl", "metrics.json", "weights.safetensors", "supernet.safetensors")
KEPT = ("kind", "settings", "space", "split", "seeds", "seconds", "versions", "cpu", "gpus", "threads", "finished")


def ship(run: Path) -> Path:
    """Copy one run directory; returns where it lies now."""
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    if not manifest["finished"]:
        raise ValueError(f"{run} is not finished")
    target = TARGET / run.name
    target.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if (run / name).is_file():
            shutil.copy(run / name, target / name)
    kept = {key: manifest[key] for key in KEPT if key in manifest}
    (target / "manifest.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return target


def ship_gap(scenes: int = 4) -> Path:
    """PSNR of the shipped search's mixture, of its derived network with inherited weights, and of that retrained."""
    genotype = Genotype.load(TARGET / "search" / "genotype.json")
    supernet = SuperNet(genotype.space)
    supernet.load_state_dict(read_tensors(TARGET / "search" / "supernet.safetensors")[0]["net"])
    networks = {
        "supernet, mixed": supernet,
        "derived, inherited": DerainNet(genotype).inherit(supernet),
        "retrained, multi-to-one": load(TARGET / "searched"),
    }
    if networks["retrained, multi-to-one"].genotype != genotype:
        raise ValueError(f"{TARGET / 'searched'} is no retraining of what {TARGET / 'search'} found")
    psnr: dict[str, float] = {}
    for name, network in networks.items():
        scores = evaluate(network, open_split("photos").val[:scenes], conventions=("rgb",), measures=("psnr",))
        psnr["rainy input"], psnr[name] = scores.means()["rainy_psnr_rgb"], scores.means()["psnr_rgb"]
    target = TARGET / "searched" / "gap.json"
    target.write_text(json.dumps(psnr, indent=1) + "\n", encoding="utf-8")
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, help="folder of runs")
    parser.add_argument("names", nargs="+", help="names of run directories in it")
    options = parser.parse_args()
    for name in options.names:
        if name == "gap":
            print(ship_gap())
        else:
            print(ship(options.runs / name))


if __name__ == "__main__":
    main()
