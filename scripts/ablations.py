"""The course's arms (notebooks/sweeps/arms.yaml) on three sets: python scripts/ablations.py --data FOLDER [--sets ...]

FOLDER holds Rain100L and Rain800_groups; `photos` are the bundled photographs under this kit's rain, whose results come
with the package for notebooks 06 and 10. The budget is less than half of `teach`: enough that every arm gains, too
little to rank close ones. Arms are compared on validation pictures; no test picture is opened. After each run the
set's file holds all that are done; the same command continues where it was cut. Seed by seed, so that what is there at
any time can be compared.
"""

import argparse
import json
import time
from pathlib import Path

from manas_course import ablation
from manas_lite import open_split
from manas_lite.data import Split
from manas_lite.runs.progress import Progress
from tools.course import sweeps

ROOT = Path(__file__).resolve().parents[1]
FILES = {
    "photos": ROOT / "manas_course" / "assets" / "runs" / "ablation" / "results.json",
    "Rain800_groups": ROOT / "results" / "ablations" / "Rain800_groups.json",
    "Rain100L": ROOT / "results" / "ablations" / "Rain100L.json",
}
NEED_SEVERAL_RAINS = {"no_internal", "internal_ssim", "one_to_one"}
"""Arms that are the arm `full`, bit for bit, where every scene has one rain: not run there."""


def arms_for(split: Split) -> dict[str, dict[str, object]]:
    """The changes of each arm that can differ from `full` on these scenes."""
    single = max(len(scene.labels) for scene in split.train) == 1
    arms = sweeps.read("arms.yaml").arms
    return {name: changes for name, changes in arms.items() if not (single and name in NEED_SEVERAL_RAINS)}


def write(runs: Path, target: Path) -> None:
    """The validation results of all arms in `runs`, in one file, a line a run."""
    target.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(ablation.results(runs), separators=(",", ":"))
    target.write_text(text.replace('{"arm"', '\n{"arm"') + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the sets")
    parser.add_argument("--sets", nargs="+", choices=FILES, default=list(FILES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="search seeds")
    parser.add_argument("--arms", nargs="+", help="only these arms")
    parser.add_argument("--search-steps", type=int, default=60)
    parser.add_argument("--retrain-steps", type=int, default=300)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    options = parser.parse_args()
    budget = {"search_steps": options.search_steps, "retrain_steps": options.retrain_steps}
    for name in options.sets:
        split = open_split("photos" if name == "photos" else options.data / name)
        arms = {arm: changes for arm, changes in arms_for(split).items() if arm in (options.arms or [arm])}
        folder = options.runs_dir / "ablations" / name
        with Progress(len(options.seeds) * len(arms), name) as bar:
            for seed in options.seeds:
                for arm, changes in arms.items():
                    start = time.process_time()
                    this = ablation.Arm.of({"arm": arm, **budget, **changes, "search_seed": seed})
                    result = ablation.run_arm(this, split, runs_dir=folder)
                    write(folder, FILES[name])
                    gain = sum(result["images"].values()) - sum(result["rainy"].values())
                    bar.step()
                    bar.say(f"{arm} {gain / len(result['images']):+.2f} dB, {time.process_time() - start:.0f} CPU s")


if __name__ == "__main__":
    main()
