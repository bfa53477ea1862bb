"""How time and memory grow with a picture's pixels and with a set's scenes; `sweeps` has the sizes of a search step."""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from manas_lite.compute.allocations import AllocationPeak
from manas_lite.compute.runtime import Compute, ComputeSettings
from manas_lite.data import open_split
from manas_lite.networks.nets import DerainNet
from manas_lite.photos.images import write_image
from manas_lite.photos.inference import borrowed, derain_batch
from manas_lite.photos.zoo import load

SIDES = (256, 512, 1024, 2048, 4899)
"""Sides of square pictures, the last of 24 megapixels."""
SCENES = (10, 100, 1000, 10_000)


def growth(
    sides: tuple[int, ...] = SIDES, scenes: tuple[int, ...] = SCENES, net: DerainNet | None = None
) -> list[dict[str, Any]]:
    """Return a point per size: CPU seconds, and of a picture the bytes of tensors that live at once.

    Args:
        sides: sides of the pictures that are derained.
        scenes: pairs in the folders that are opened, once as new ones and once again.
        net: what derains; None takes rain-lite.
    """
    return [*_pictures(sides, net or load("rain-lite")), *_folders(scenes)]


def _pictures(sides: tuple[int, ...], net: DerainNet) -> list[dict[str, Any]]:
    compute = Compute(ComputeSettings(threads=torch.get_num_threads()))
    folded = borrowed(net, compute)
    points = []
    for side in sides:
        rainy = torch.rand((1, 3, side, side), generator=torch.Generator().manual_seed(0)).to(compute.device)
        with AllocationPeak() as count:  # it also warms up
            derain_batch(folded, rainy, compute)
        began = time.process_time()
        derain_batch(folded, rainy, compute).cpu()
        seconds = time.process_time() - began
        points.append({"grown": "pixels of a picture", "value": side**2, "seconds": seconds, "bytes": count.peak})
        print(f"  {points[-1]}", flush=True)
    return points


def _folders(scenes: tuple[int, ...]) -> list[dict[str, Any]]:
    points = []
    for count in scenes:
        with tempfile.TemporaryDirectory() as name:
            rng = np.random.default_rng(0)
            for part in ("rainy", "clean"):
                (Path(name) / part).mkdir()
            for i in range(count):
                clean = np.kron(rng.integers(0, 200, (4, 4, 3)), np.ones((12, 12, 1))).astype(np.uint8)
                write_image(Path(name, "clean", f"{i:05}.png"), clean)
                rain = rng.integers(0, 40, clean.shape, dtype=np.uint8)
                write_image(Path(name, "rainy", f"{i:05}.png"), clean + rain)
            for grown in ("scenes of a new folder", "scenes of a folder opened again"):
                began = time.process_time()
                found = open_split(name)
                seconds = time.process_time() - began
                assert sum(len(part) for part in (found.train, found.val, found.test)) == count
                points.append({"grown": grown, "value": count, "seconds": seconds})
                print(f"  {points[-1]}", flush=True)
    return points
