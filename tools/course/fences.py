"""The walls round a student's process: no network, and no files but Python's own and a work folder.

Bubblewrap builds them where it is installed, else `unshare` of util-linux. Both use Linux's namespaces and need no
rights of an administrator. Elsewhere there are no walls, only the worker's own fence, and the command says so.
"""

import shlex
import shutil
import site
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import manas_course
import manas_lite

__all__ = ["NONE", "Fence", "find", "hidden", "visible"]

SYSTEM = tuple(f"/{name}" for name in ["usr", "bin", "sbin", "lib", "lib64", "lib32", "opt", "nix/store"])
SYSTEM += tuple(f"/etc/{name}" for name in ["ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "localtime"])
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")


@dataclass(frozen=True)
class Fence:
    """A program that builds walls."""

    program: str
    """Its name: bwrap, unshare, or nothing where there is none."""

    def command(self, run: Sequence[str], work: Path, shown: Sequence[str]) -> list[str]:
        """Return the command that runs another one behind the walls.

        Args:
            run: the command.
            work: the folder that it may write to, and is started in.
            shown: other files and folders that it may read.
        """
        shown = [*SYSTEM, *shown]
        if self.program == "bwrap":
            return [*_bubblewrap(work, shown), *run]
        if self.program == "unshare":
            parts = ("--user", "--map-root-user", "--mount", "--net", "--ipc", "--pid", "--fork", "--kill-child")
            return ["unshare", *parts, "sh", "-c", _script(run, work, shown)]
        return list(run)


NONE = Fence("")
"""No walls."""


def find() -> Fence:
    """Return the first fence that works on this machine; one without walls where none does."""
    for program in ("bwrap", "unshare"):
        fence = Fence(program)
        if _works(fence):
            return fence
    return NONE


def _works(fence: Fence) -> bool:
    if not shutil.which(fence.program):
        return False
    with tempfile.TemporaryDirectory() as folder:
        tried = [sys.executable, "-I", "-c", "import os; open('x', 'w').close(); print(os.listdir('.'))"]
        work = Path(folder).resolve()
        done = subprocess.run(
            fence.command(tried, work, visible()), cwd=work, capture_output=True, stdin=subprocess.DEVNULL
        )
        return done.returncode == 0 and done.stdout == b"['x']\n"


def visible() -> list[str]:
    """Return the folders that Python and its libraries stand in."""
    paths = {sys.prefix, sys.base_prefix, *site.getsitepackages(), *(path for path in sys.path if "-packages" in path)}
    return sorted({str(real) for path in paths if (real := Path(path).resolve()).exists()} | paths)


def hidden() -> list[str]:
    """Return the folders that hold the solutions and the checkers: the kit's own."""
    root = Path(__file__).resolve().parents[2]
    packages = [Path(str(package.__file__)).resolve().parent for package in (manas_lite, manas_course)]
    return sorted({str(root), *map(str, packages)})


def _steps(shown: Sequence[str]) -> list[tuple[str, bool]]:
    """Return what is shown (True) and hidden (False), outer folders first, each where it changes anything."""
    wanted = [*((path, True) for path in set(shown) if Path(path).exists()), *((path, False) for path in hidden())]
    steps: list[tuple[str, bool]] = []
    for path, open_ in sorted(wanted, key=lambda step: len(step[0])):
        around = [state for outer, state in steps if Path(path).is_relative_to(outer)]
        if open_ != (around[-1] if around else False):
            steps.append((path, open_))
    return steps


def _bubblewrap(work: Path, shown: Sequence[str]) -> list[str]:
    command = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    command += ["--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"]
    for path, open_ in _steps(shown):
        command += ["--ro-bind", path, path] if open_ else ["--tmpfs", path]
    return [*command, "--bind", str(work), str(work), "--chdir", str(work)]


def _script(run: Sequence[str], work: Path, shown: Sequence[str]) -> str:
    """Return a shell script that builds a root of its own, enters it and gives up every right."""
    build = "/dev/shm" if Path("/dev/shm").is_dir() else "/mnt"  # any folder: only this process sees what is put there
    sources = [*_steps(shown), *((path, True) for path in DEVICES), (str(work), True)]
    lines = ["set -e", f"mount -t tmpfs -o mode=755 tmpfs {build}"]
    for path, open_ in sources:
        at = shlex.quote(build + path)
        if not open_:
            lines.append(f"mount -t tmpfs -o mode=755,ro tmpfs {at}")
            continue
        make = (
            f"mkdir -p {at}"
            if Path(path).is_dir()
            else f"mkdir -p {shlex.quote(build + str(Path(path).parent))}; : > {at}"
        )
        how = "--bind" if path == str(work) or path in DEVICES else "--bind -o ro"
        lines.append(f"{make}; mount {how} {shlex.quote(path)} {at}")
    lines += [f"mkdir -p {build}/proc {build}/old {build}/tmp", f"mount -t proc proc {build}/proc", f"cd {build}"]
    drop = "setpriv --no-new-privs --bounding-set=-all --inh-caps=-all --ambient-caps=-all"
    inner = f"umount -l /old; cd {shlex.quote(str(work))}; exec {drop} {shlex.join(run)}"
    lines += ["pivot_root . old", f"exec sh -c {shlex.quote(inner)}"]
    return "\n".join(lines)
