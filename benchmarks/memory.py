"""Resident memory of one case, in a process of its own: python -m benchmarks.memory NAME '{"batch": 4}'

Prints JSON: `before`, with everything built and nothing run; `peak`, after two runs (one of a large picture); bytes.
"""

import json
import sys
from pathlib import Path

import torch

from .cases import MAKERS


def resident(what: str) -> int:
    """Bytes now (`VmRSS`) or at the peak (`VmHWM`) of this program; getrusage would count its parent's too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) * 1024


def main() -> None:
    name, size, threads = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(threads)
    run = MAKERS[name](**size)
    result = {"before": resident("VmRSS")}
    for _ in range(1 if size.get("height", 0) > 1000 else 2):
        run()
    result["peak"] = resident("VmHWM")
    if torch.cuda.is_available():
        result["cuda"] = torch.cuda.max_memory_allocated()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
