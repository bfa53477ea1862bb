"""A whole small space, every architecture of it trained: a table to search in seconds, without training anything.

    bench = micro_bench.load()
    bench.query(bench.architectures[0], seed=0).val_psnr       # what training it gave, and what that cost
    trace = micro_bench.random_search(bench, seed=0, trainings=32)
    micro_bench.gain(bench, trace)                              # dB above the average architecture, over time
    micro_bench.noise_ceiling(bench.scores("val_psnr"))         # how well two trainings agree on who is better

Test scores stay locked until `bench.final()`.

| module | concept |
|---|---|
| `space` | the 2^4 module patterns x 8 gates, as architectures and as genotypes |
| `table` | reading, checking and querying the table; the lock on its test columns |
| `searches` | random, evolutionary and gradient search replayed on it; what they cost and found |
| `comparing` | whether one kind of search beats another that spends as much |
| `ranks` | rank agreement, the noise ceiling, variance of architectures against seeds, the expected best of n |

After NAS-Bench-101 (C. Ying et al., ICML 2019, arXiv 1902.09635), on deraining and at toy size.
"""

from manas_lite.micro_bench.architectures import ARCHITECTURES, GATES, PATTERNS, SPACE, Architecture, genotype_of
from manas_lite.micro_bench.comparing import Comparison, against
from manas_lite.micro_bench.ranks import Agreement, agreement, expected_best, noise_ceiling, spread
from manas_lite.micro_bench.searches import Trace, at_cost, evolution, gain, random_search, replay
from manas_lite.micro_bench.table import SHIPPED, GradientSearch, MicroBench, Training, load

__all__ = [
    "ARCHITECTURES",
    "GATES",
    "PATTERNS",
    "SHIPPED",
    "SPACE",
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
