"""The facts of the present machine and code: what a run is computed by."""

import contextlib
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch


def describe_environment() -> dict[str, Any]:
    """Return what a run is computed by: versions, git commit, machine, threads, command."""
    packages = ("manas_lite", "torch", "numpy", "safetensors", "scikit-image", "pillow")
    cuda = torch.cuda.is_available()
    return {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in packages}},
        "git": git_state(Path(__file__).parent),
        "platform": platform.platform(),
        "host": platform.node(),
        "process": os.getpid(),
        "cpu": {"name": _cpu_name(), "count": os.cpu_count()},
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else [],
        "threads": torch.get_num_threads(),
        "command": list(sys.argv),
    }


def git_state(package: Path) -> dict[str, Any] | None:
    """Return the commit of the running code and whether its folder differs from it; None if git does not track it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(package), *arguments], capture_output=True, encoding="utf-8", check=True, timeout=10
        )
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # an environment may lie inside another project's clone
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--", "."))}
    except (OSError, subprocess.SubprocessError):
        return None


def peak_memory() -> dict[str, int]:
    """Return the peak bytes so far of this process, resident and on the GPUs; what ran before the run counts too."""
    peak = {}
    if sys.platform != "win32":
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        peak["resident_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        peak["cuda_bytes"] = max(torch.cuda.max_memory_allocated(i) for i in range(torch.cuda.device_count()))
    return peak


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
