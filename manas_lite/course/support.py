"""What notebooks call themselves: versions, where runs lie, files of other notebooks, and the record of a run."""

import importlib.util
import os
import platform
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from manas_lite.compute.runtime import pick_device
from manas_lite.course.jobs import Background
from manas_lite.photos.images import read_image
from manas_lite.runs import environment
from manas_lite.runs.progress import headless
from manas_lite.runs.record import plain

__all__ = [
    "METRICS",
    "background",
    "find_run",
    "headless",
    "record_results",
    "runs_folder",
    "shipped",
    "upload_button",
    "uploaded",
    "versions",
]

METRICS = "application/vnd.manas-lite.metrics+json"
SHIPPED = Path(__file__).resolve().parents[1] / "assets" / "course"

background = Background.start


def versions() -> None:
    """Print exactly what this notebook runs on."""
    facts = environment.describe_environment()
    commit = facts["git"]
    code = f"commit {commit['commit'][:10]}{' with changes' if commit['dirty'] else ''}" if commit else "installed"
    print(f"manas_lite {facts['versions']['manas_lite']} ({code}), Python {facts['versions']['python']}")
    packages = {name: environment._version(name) for name in ("torch", "numpy", "matplotlib", "ipywidgets")}
    print(", ".join(f"{name} {version or 'missing'}" for name, version in packages.items()))
    print(f"computes on {device_name()}")


def device_name() -> str:
    """The GPU in use, or the CPU with its cores: what a cost table names."""
    facts = environment.describe_environment()
    if pick_device().type == "cuda":
        return facts["gpus"][0]
    name = facts["cpu"]["name"] or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def runs_folder(runs_dir: str | os.PathLike[str]) -> Path:
    """Where runs lie: an absolute path as it is (a mounted Drive, say); a relative one in the clone that the package
    runs from, else below the home folder's `manas_lite`. The current directory does not matter."""
    path = Path(runs_dir).expanduser()
    if path.is_absolute():
        return path
    clone = Path(__file__).resolve().parents[2]
    return (clone if (clone / "pyproject.toml").is_file() else Path.home() / "manas_lite") / path


def shipped(name: str) -> Path:
    """A run directory that comes with the package, made by the notebook of that number at teach size."""
    return SHIPPED / name


def find_run(runs_dir: str | os.PathLike[str], name: str, *, made_by: str, needs: str = "metrics.json") -> Path:
    """The run directory `name`; where it is missing or unfinished, the shipped one, saying which notebook makes it.

    made_by: number of that notebook. needs: the file that a finished run holds.
    """
    own = runs_folder(runs_dir) / name
    if (own / needs).is_file():
        return own
    fallback = shipped(name)
    if not (fallback / needs).is_file():
        raise FileNotFoundError(f"{own} holds no {needs}: run notebook {made_by} first, with the same runs_dir")
    print(f"No finished run {name!r} in your runs folder (notebook {made_by} makes it):")
    print("going on with the one that the package brings.")
    return fallback


def upload_button() -> Any:
    """A button to upload a picture with, where someone can press it; else None."""
    if headless() or importlib.util.find_spec("ipywidgets") is None:
        return None
    import ipywidgets

    return ipywidgets.FileUpload(accept="image/*", multiple=False, description="a photograph")


def uploaded(button: Any) -> np.ndarray | None:
    """The picture uploaded with `upload_button`, uint8 (H, W, 3), or None. ipywidgets 7 and 8 keep it differently."""
    if button is None or not button.value:
        return None
    held = button.value
    first = next(iter(held.values())) if isinstance(held, dict) else held[0]
    name = first["metadata"]["name"] if "metadata" in first else first["name"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"upload{Path(name).suffix}"
        file.write_bytes(bytes(first["content"]))
        return read_image(file)


def record_results(**metrics: Any) -> None:
    """Record a notebook's results: shown as text, and collected by the runner. The last cell of every notebook.

    Metrics are numbers, texts, or mappings of them. Peak memory of this process is recorded along.
    """
    from IPython.display import display

    facts = plain({**metrics, "peak_memory": environment.peak_memory()})
    text = "\n".join(f"{name}: {_shown(value)}" for name, value in facts.items() if name != "peak_memory")
    display({METRICS: facts, "text/plain": text}, raw=True)


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_shown(item)}" for key, item in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)
