"""Does a search find what is known to be right? python scripts/known_answers.py [--size smoke] [--seeds 0 1 2]

Every problem of planted.py is searched by every arm with every seed, on the bundled photographs. A row per search in
results/known_answers/searches.csv; the same command continues where it was cut.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from experiments import ONE_THREAD, append, rows
from planted import PROBLEMS

from manas_lite import SearchSettings, open_split, search
from manas_lite.runs.progress import Progress

TABLE = Path(__file__).resolve().parents[1] / "results" / "known_answers" / "searches.csv"


def arms(size: str) -> dict[str, SearchSettings]:
    """Return the settings that are compared, by name; `published` is the start and the price of the released code."""
    default = SearchSettings.preset(size, compute=ONE_THREAD, eigenvalue_every=0)
    published = replace(default, mask_barred=False, head_gain=0.0)
    paths = replace(default, strategy="paths", evaluations=100)
    return {
        "default": default,
        "published": published,
        "published, without the price": replace(published, loss=replace(published.loss, complexity_weight=0.0)),
        "published, masked": replace(published, mask_barred=True),
        "price 0.3 of the images' pull": replace(default, price_share=0.3),
        "longer warm-up": replace(default, epochs=default.epochs * 2, warmup=default.epochs),
        "architecture batch x 4": replace(default, arch_batch=4 * default.batch),
        "gumbel": replace(default, relaxation="gumbel"),
        "sampled": replace(default, relaxation="gumbel", hard=True, sampled=True),
        "paths": paths,
        "fair paths": replace(paths, strategy="fair-paths"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="smoke")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--only", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--arms", nargs="+", default=None, help="names of arms (default: all)")
    options = parser.parse_args()
    split, compared = open_split("photos"), arms(options.size)
    chosen = options.arms or list(compared)
    with Progress(len(options.seeds) * len(options.only) * len(chosen), "known answers") as bar:
        for seed in options.seeds:
            for name in options.only:
                problem = PROBLEMS[name]
                for arm in chosen:
                    done = {(r["size"], r["problem"], r["arm"], int(r["seed"])) for r in rows(TABLE)}
                    if (options.size, name, arm, seed) not in done:
                        settings, start = replace(compared[arm], seed=seed), time.process_time()
                        with tempfile.TemporaryDirectory() as folder:
                            found = search(
                                problem.space(options.size), split, settings, runs_dir=folder, progress=False
                            )
                        genotype = found.genotype
                        row = {
                            "size": options.size,
                            "problem": name,
                            "arm": arm,
                            "seed": seed,
                            "right": "" if problem.right is None else f"{problem.right(genotype):.4f}",
                            "modules": " ".join(genotype.modules),
                            "edges": " ".join(genotype.edges),
                            "seconds": f"{time.process_time() - start:.1f}",
                        }
                        append(TABLE, row)
                        bar.say(f"{name}, {arm}, seed {seed}: {row['right']}")
                    bar.step()


if __name__ == "__main__":
    main()
