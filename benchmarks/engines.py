"""What derains whole pictures on a CPU: torch in float32 and in bf16, and ONNX Runtime, with the shipped networks."""

from typing import Any

import torch

from manas_lite.compute.runtime import Compute, ComputeSettings
from manas_lite.photos.inference import borrowed, derain_batch
from manas_lite.photos.zoo import load

from .measure import interleaved, ratio

ENGINES: dict[str, dict[str, Any]] = {
    "torch": {},
    "torch, bf16": {"precision": "bf16"},
    "onnx": {"engine": "onnx"},
}


def engines(
    rounds: int, names: tuple[str, ...] = ("rain-lite", "rain-any"), height: int = 321, width: int = 481
) -> dict[str, Any]:
    """Return for each network and engine how many times faster than torch in float32, and the largest difference."""
    found: dict[str, Any] = {"size": f"{height}x{width}"}
    rainy = torch.rand((1, 3, height, width), generator=torch.Generator().manual_seed(0))
    for name in names:
        net, runs, outputs = load(name), {}, {}
        for who, options in ENGINES.items():
            settings = ComputeSettings(device="cpu", threads=torch.get_num_threads(), **options)
            compute = Compute(settings)
            folded = borrowed(net, compute)
            runs[who] = lambda folded=folded, compute=compute: derain_batch(folded, rainy, compute)
            outputs[who] = runs[who]()
        seconds = interleaved(runs, rounds)
        for who, values in seconds.items():
            gap = float((outputs[who] - outputs["torch"]).abs().max())
            faster = ratio(seconds["torch"], values)
            found[f"{name}, {who}"] = {"seconds": sorted(values)[len(values) // 2], "faster": faster, "gap": gap}
            print(f"  {name}, {who}: {found[f'{name}, {who}']}", flush=True)
    return found
