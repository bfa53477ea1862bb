"""A small space with every architecture of it trained: a table that can be searched in seconds.

    bench = micro_bench.load()
    bench.query(bench.architectures[0], seed=0).val_psnr       # what its training reached; its cost stands beside it
    trace = micro_bench.random_search(bench, seed=0, trainings=32)
    micro_bench.gain(bench, trace)                              # dB above the average architecture, over time
    micro_bench.noise_ceiling(bench.scores("val_psnr"))         # how well two trainings agree on who is better

The test scores stay locked until `bench.final()`.

* `architectures`: the 2^4 patterns of modules and 8 gates, as architectures and as genotypes. It imports `networks`.
* `table`: the table, read, checked and queried; the lock on its test scores. It imports `architectures` and `data`.
* `ranks`: rank agreement, the noise ceiling, spread, the expected best of n. It imports numpy alone.
* `figures`: pictures of all this, from numbers; imported by its own name. It imports `manas_lite.draw`.
* `replays`: random, evolutionary and gradient search on the table, and their comparison. It imports the first three.

`scripts/micro_bench.py` makes the table. The idea is that of NAS-Bench-101 (C. Ying et al., ICML 2019, arXiv
1902.09635), here on deraining and at toy size.
"""

from manas_course.micro_bench.architectures import ARCHITECTURES, GATES, PATTERNS, SPACE, Architecture, genotype_of
from manas_course.micro_bench.ranks import Agreement, agreement, expected_best, noise_ceiling, spread
from manas_course.micro_bench.replays import (
    Comparison,
    Trace,
    against,
    at_cost,
    evolution,
    gain,
    random_search,
    replay,
)
from manas_course.micro_bench.table import TABLE_FOLDER, GradientSearch, MicroBench, Training, load

__all__ = [
    "ARCHITECTURES",
    "GATES",
    "PATTERNS",
    "SPACE",
    "TABLE_FOLDER",
    "Agreement",
    "Architecture",
    "Comparison",
    "GradientSearch",
    "MicroBench",
    "Trace",
    "Training",
    "against",
    "agreement",
    "at_cost",
    "evolution",
    "expected_best",
    "gain",
    "genotype_of",
    "load",
    "noise_ceiling",
    "random_search",
    "replay",
    "spread",
]
