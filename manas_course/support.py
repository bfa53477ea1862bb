"""What the notebooks themselves call: versions, where runs lie, files of other notebooks, and the record of a run."""

import importlib
import importlib.util
import os
import platform
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from manas_course.jobs import Background, headless
from manas_lite.compute.runtime import pick_device
from manas_lite.photos.images import read_image
from manas_lite.runs import environment
from manas_lite.runs.record import plain

__all__ = [
    "METRICS",
    "background",
    "find_run",
    "headless",
    "keep_runs",
    "record_results",
    "runs_folder",
    "runtime",
    "shipped",
    "upload_button",
    "uploaded",
    "versions",
]

METRICS = "application/vnd.manas-lite.metrics+json"
SHIPPED = Path(__file__).resolve().parent / "assets" / "runs"
DRIVE = Path("/content/drive")
"""Where Colab mounts a reader's Google Drive."""

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
    """Return the GPU in use, or the CPU with its cores, as a cost table names them."""
    facts = environment.describe_environment()
    if pick_device().type == "cuda":
        return facts["gpus"][0]
    name = facts["cpu"]["name"] or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def runtime() -> None:
    """Say how to get a graphics card where torch sees none, and what that would be good for."""
    if pick_device().type != "cpu":
        return
    print("No graphics card here: keep to the presets `smoke` and `teach`, which take minutes.")
    if _on_colab():
        print("For the preset `gpu`: menu Runtime > Change runtime type > T4 GPU > Save, then Runtime > Run all.")
        print("That gives you a new machine: whatever was not kept on your Drive is gone.")


def keep_runs() -> None:
    """Say where runs are kept. On Colab, mount the reader's Google Drive first, so that they outlive the machine."""
    if _on_colab():
        try:
            importlib.import_module("google.colab.drive").mount(str(DRIVE))
        except Exception as error:  # the reader said no, or the Drive did: every kind that Colab raises
            print(f"Your Drive was not mounted ({type(error).__name__}): runs are lost when Colab ends this session.")
            print("Run this cell again to be asked again.")
    print(f"Runs are kept in {runs_folder('.')}")


def _on_colab() -> bool:
    return "google.colab" in sys.modules


def runs_folder(runs_dir: str | os.PathLike[str]) -> Path:
    """Return where runs lie, whatever the current directory is.

    Args:
        runs_dir: an absolute path is taken as it is. A relative one lies in the clone that the package runs from; on
            Colab in `manas_lite` on the mounted Drive (see `keep_runs`); else in `manas_lite` below the home folder.
    """
    clone, drive = Path(__file__).resolve().parents[1], DRIVE / "MyDrive"
    own = (drive if drive.is_dir() else Path.home()) / "manas_lite"
    base = clone if (clone / "pyproject.toml").is_file() else own
    return base / Path(runs_dir).expanduser()


def shipped(name: str) -> Path:
    """Return a folder of results that comes with the package, made at teach size."""
    return SHIPPED / name


def find_run(runs_dir: str | os.PathLike[str], name: str, *, made_by: str, needs: str = "metrics.json") -> Path:
    """Return the run directory `name`; where it is missing or unfinished, say so and return the shipped one.

    Args:
        runs_dir, name: the run directory is `runs_dir`/`name`, see `runs_folder`.
        made_by: number of the notebook that makes it.
        needs: the file that a finished run holds.

    Raises:
        FileNotFoundError: where no run of that name is shipped either.
    """
    own, fallback = runs_folder(runs_dir) / name, shipped(name)
    if (own / needs).is_file():
        return own
    if not (fallback / needs).is_file():
        raise FileNotFoundError(f"{own} holds no {needs}: run notebook {made_by} first, with the same runs_dir")
    print(f"No finished run {name!r} in your runs folder (notebook {made_by} makes it):")
    print("going on with the one that the package brings.")
    return fallback


def upload_button() -> Any:
    """Return a button to upload a picture with, where someone can press it; else None."""
    if headless() or importlib.util.find_spec("ipywidgets") is None:
        return None
    import ipywidgets

    return ipywidgets.FileUpload(accept="image/*", multiple=False, description="a photograph")


def uploaded(button: Any) -> np.ndarray | None:
    """Return the picture that was uploaded with `upload_button`, uint8 (H, W, 3), or None."""
    if button is None or not button.value:
        return None
    held = button.value  # ipywidgets 7: a dict by name; 8: a tuple
    first = next(iter(held.values())) if isinstance(held, dict) else held[0]
    name = first["metadata"]["name"] if "metadata" in first else first["name"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"upload{Path(name).suffix}"
        file.write_bytes(bytes(first["content"]))
        return read_image(file)


def record_results(**metrics: Any) -> None:
    """Show a notebook's results as text, in a form that the runner collects; the last cell of every notebook.

    Args:
        metrics: numbers, texts, or mappings of them. The peak memory of this process is recorded with them.
    """
    from IPython.display import display

    facts = plain({**metrics, "peak_memory": environment.peak_memory()})
    text = "\n".join(f"{name}: {_shown(value)}" for name, value in facts.items() if name != "peak_memory")
    display({METRICS: facts, "text/plain": text}, raw=True)


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_shown(item)}" for key, item in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)
