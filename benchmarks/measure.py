"""What is measured, and how: interleaved times, allocations, dispatches, FLOPs, and the machine's own pace."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

Run = Callable[[], Any]


def interleaved(runs: Mapping[str, Run], rounds: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Seconds of each run, `rounds` times, the runs taking turns; `warm_up` rounds go first and are not counted.

    On one thread of a CPU the clock is the process's own CPU time, which other processes' turns do not lengthen;
    otherwise it is the wall's.
    """
    cuda = torch.cuda.is_available()
    clock = time.process_time if torch.get_num_threads() == 1 and not cuda else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(warm_up + rounds):
        for name, run in runs.items():
            if cuda:
                torch.cuda.synchronize()
            start = clock()
            run()
            if cuda:
                torch.cuda.synchronize()
            if turn >= warm_up:
                seconds[name].append(clock() - start)
    return seconds


def ratio(reference: list[float], other: list[float]) -> dict[str, float]:
    """How many times faster `other` is: median of the ratios within each round, and their range."""
    ratios = sorted(a / b for a, b in zip(reference, other, strict=True))
    return {"median": statistics.median(ratios), "least": ratios[0], "most": ratios[-1]}


def matmul_rate(dtype: torch.dtype = torch.float32, side: int = 1024) -> float:
    """FLOP/s of one matrix product at the present thread count: the pace to compare with. Median of nine."""
    a = torch.rand(side, side).to(dtype)
    seconds = interleaved({"product": lambda: a @ a}, 9)["product"]
    return 2 * side**3 / statistics.median(seconds)


def convolution_rates(pixels: int = 2**14) -> dict[str, float]:
    """FLOP/s of single 3x3 convolutions, as wide as the network's branches, on maps of as many values in all."""
    rates = {}
    for i, channels in enumerate((32, 64, 128, 256)):
        side = int(pixels**0.5) >> i
        conv = nn.Conv2d(channels, channels, 3, padding=1).to(memory_format=torch.channels_last)
        x = torch.rand(4, channels, side, side).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            seconds = interleaved({"convolution": lambda conv=conv, x=x: conv(x)}, 9)["convolution"]
        rates[f"3x3, {channels} channels"] = 2 * 9 * channels**2 * 4 * side**2 / statistics.median(seconds)
    return rates


def flops(run: Run) -> int:
    """FLOPs of convolutions and matrix products, backward passes included."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


class Dispatches(TorchDispatchMode):
    """Counts operations that reach the dispatcher below autograd: kernels, and a few that only make views."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        return func(*args, **(kwargs or {}))


def dispatches(run: Run) -> int:
    with Dispatches() as count:
        run()
    return count.calls


def saved_bytes(net: nn.Module, *inputs: Tensor) -> int:
    """Bytes that the graph of net(*inputs) keeps for the backward pass, parameters left out."""
    storages: dict[int, Any] = {}
    parameters = {p.untyped_storage()._cdata for p in net.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = net(*inputs)
    del result
    return sum(storage.nbytes() for key, storage in storages.items() if key not in parameters)


def peak_memory(*arguments: str) -> dict[str, int]:
    """`python -m benchmarks.memory ARGUMENTS` in a fresh process: its resident bytes before and at the peak."""
    command = [sys.executable, "-m", "benchmarks.memory", *arguments]
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])
