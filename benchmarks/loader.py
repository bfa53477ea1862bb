"""How long a step waits for its batch: the share of a search's time spent in the loader."""

import time
from typing import Any

from manas_lite.data import open_split, scene_loader
from manas_lite.networks.space import SearchSpace

from . import cases


def idle(steps: int = 20, space: str = "lite", batch: int = 4, patch: int = 64) -> dict[str, Any]:
    """Waiting share over `steps` search steps on the bundled photographs, by number of loader processes.

    A search step reads two batches. The first steps, which decode every picture once, are shown on their own.
    """
    split = open_split("photos")
    result: dict[str, Any] = {"space": space, "batch": batch, "patch": patch, "steps": steps}
    for workers in (0, 1):
        loader = scene_loader(split.train, batch=batch, patch=patch, seed=0, steps=2 * steps, workers=workers)
        rains = next(iter(loader)).rainy.shape[1]
        step = cases.search_kit(cases.Size(SearchSpace.preset(space), batch, rains, patch))
        step()
        waits, begun = [], time.perf_counter()
        batches = iter(loader)
        for _ in range(steps):
            before = time.perf_counter()
            next(batches), next(batches)
            waits.append(time.perf_counter() - before)
            step()
        total = time.perf_counter() - begun
        half = steps // 2
        result[f"workers={workers}"] = {
            "idle_share": sum(waits) / total,
            "idle_share_of_later_steps": sum(waits[half:]) / (total - sum(waits[:half])) if total else 0.0,
            "milliseconds_a_wait_later": 1e3 * sum(waits[half:]) / max(1, steps - half),
            "seconds_a_step": total / steps,
        }
    return result
