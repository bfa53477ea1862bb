"""Batches a second with and without a cache of decoded pictures, as ratios within one run.

    python benchmarks/data_cache.py FOLDER          a folder of pairs, such as Rain100L/train
    python benchmarks/data_cache.py                 100 pairs of PNG files made for the occasion (481 x 321)

Each way first runs one epoch (which fills its cache), then is timed over the same draws; the best of three counts.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from manas_lite.data import Scene, open_split, scene_loader
from manas_lite.data.caching import Cache, DiskCache, MemoryCache
from manas_lite.photos.images import write_image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", help="pairs to load (default: made for the occasion)")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--patch", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=3, help="epochs timed, at most (default 3)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        split = open_split(options.folder or made_pairs(home / "pairs", count=100), strict=False)
        scenes = split.train + split.val + split.test
        ways: dict[str, Cache] = {
            "decoding each time": Cache(),
            "disk cache, mapped": DiskCache(home / "cache"),
            "memory cache": MemoryCache(),
        }
        print(f"{len(scenes)} scenes, batches of {options.batch} scenes, patches of {options.patch}")
        print(f"{'':<20}{'batches/s':>11}{'ratio':>8}{'RssAnon MB':>12}")
        base = None
        for name, cache in ways.items():
            rate = batches_a_second(scenes, cache, options.batch, options.patch, options.epochs)
            base = base or rate
            print(f"{name:<20}{rate:>11.1f}{rate / base:>8.1f}{anonymous_megabytes():>12.0f}")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"peak resident memory {peak:.0f} MB (mapped pages included; the system takes those back when it must)")


def batches_a_second(scenes: Sequence[Scene], cache: Cache, batch: int, patch: int, epochs: int) -> float:
    """Best of three timings of the same draws, after one epoch that is not timed."""
    epoch = -(-len(scenes) // batch)
    settings = {"batch": batch, "patch": patch, "seed": 0, "cache": cache}
    for _ in scene_loader(scenes, steps=epoch, **settings):
        pass
    best = 0.0
    for _ in range(3):
        loader = scene_loader(scenes, steps=epoch * (1 + epochs), start=epoch, **settings)
        start = time.perf_counter()
        count = sum(1 for _ in loader)
        best = max(best, count / (time.perf_counter() - start))
    return best


def made_pairs(folder: Path, count: int) -> Path:
    """Pairs of noisy pictures, which PNG packs about as badly as photographs."""
    rng = np.random.default_rng(0)
    for kind in ("input", "target"):
        (folder / kind).mkdir(parents=True)
    for i in range(count):
        base = rng.integers(0, 200, (11, 16, 3)).repeat(30, 0).repeat(31, 1)[:321, :481]
        clean = base + rng.integers(0, 12, base.shape)
        rainy = clean + 40 * (rng.random((321, 481, 1)) < 0.01)
        write_image(folder / "target" / f"{i}.png", clean.astype(np.uint8))
        write_image(folder / "input" / f"{i}.png", rainy.astype(np.uint8))
    return folder


def anonymous_megabytes() -> float:
    """Memory that only this process can give back (Linux), in MB; NaN elsewhere."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")), float("nan"))


if __name__ == "__main__":
    main()
