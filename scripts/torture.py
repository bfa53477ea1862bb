"""Treat runs, files and downloads badly, and see whether each promise of docs/reliability.md holds.

    python scripts/torture.py                    every class of fault, as far as its trials are not done yet
    python scripts/torture.py --only kill        the classes whose name holds this text (may be given several times)
    python scripts/torture.py --trials 3         at most this many trials of each class
    python scripts/torture.py --again --only x   trials that went well before too, since the code has changed
    python scripts/torture.py --page             write docs/reliability.md from the results, and nothing else

Results go to results/reliability/trials.csv after every trial, so the script can be stopped and continued. Failed
trials are tried again. Linux only; `full disk` and `read-only` mount something, in a name space of their own, and so
need root. Every trial is a child process of its own: a copy of this one, which has imported torch, so that a trial
takes a second. Nothing depends on the clock: a kill comes at the n-th time that the process opens, renames or removes a
file, or when a file has reached n bytes.
"""

import argparse
import csv
import ctypes
import hashlib
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "data")]
# ruff: noqa: E402

import loopback
import mutations
import numpy as np
import requests  # noqa: F401 (imported here, or it would be in every trial)
import samples
import tiny
import torch
import torch._dynamo
from PIL import Image

from manas_lite import commands
from manas_lite.data import __main__ as data_command
from manas_lite.data import registry
from manas_lite.data.loading import scene_loader
from manas_lite.data.unpack import ArchiveError, unpack_archive
from manas_lite.networks.nets import DerainNet
from manas_lite.photos import zoo
from manas_lite.photos.images import ImageError, image_size, read_image, write_image
from manas_lite.runs import checkpoint
from manas_lite.runs.record import write_json
from manas_lite.training.demo import DemoSettings, run_demo
from manas_lite.training.retraining import retrain
from manas_lite.training.searching import search

RESULTS = ROOT / "results" / "reliability" / "trials.csv"
BOUNDS = ROOT / "results" / "reliability" / "bounds.csv"
PAGE = ROOT / "docs" / "reliability.md"
FIELDS = ("class", "trial", "seed", "ok", "reason")
LIMIT_S = 300  # of one trial: what takes longer hangs
Work = Callable[[Path], None]
Trial = tuple[str, int, Callable[[Path], None]]


class Fault(AssertionError):
    """A promise that did not hold."""


def expect(held: object, why: str) -> None:
    if not held:
        raise Fault(why)


# --- child processes ---


@dataclass
class Ended:
    """How a child process ended, and what it said."""

    code: int
    """Its exit status; minus the number of the signal that ended it."""
    said: str
    """Its standard output and standard error."""


def start(work: Callable[[], Any], prepare: Callable[[], Any] = lambda: None) -> tuple[int, Any]:
    """Do `work` in a copy of this process, after `prepare`; return its number and the file of what it says."""
    output = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `wait`)
    if (number := os.fork()) == 0:
        code = 99
        try:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            sys.stdout, sys.stderr = (open(n, "w", buffering=1, closefd=False) for n in (1, 2))  # noqa: SIM115
            prepare()
            code = int(work() or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return number, output


def wait(number: int, output: Any) -> Ended:
    _, status = os.waitpid(number, 0)
    with output:
        output.seek(0)
        return Ended(os.waitstatus_to_exitcode(status), output.read().decode(errors="replace"))


def child(work: Callable[[], Any], prepare: Callable[[], Any] = lambda: None, watch: Any = None) -> Ended:
    """Do `work` in a copy of this process and wait for it; `watch` is called with its number meanwhile."""
    number, output = start(work, prepare)
    if watch:
        watch(number)
    return wait(number, output)


def kill_at(event: int, folder: Path) -> None:
    """Let this process be killed when it opens for writing, renames, makes or removes something in a folder.

    That happens at the event of this number, counted from 0; with -1 never, and the number of events goes to a file.
    """
    count, inside = [0], str(folder)
    names = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree", "os.utime"}

    def note(name: str, arguments: tuple[Any, ...]) -> None:
        if name not in names or not (isinstance(arguments[0], str | os.PathLike) and inside in str(arguments[0])):
            return
        if name == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
            return
        if count[0] == event:
            os.kill(os.getpid(), signal.SIGKILL)
        count[0] += 1
        if event < 0:
            os.pwrite(counter, b"%d" % count[0], 0)

    counter = os.open(folder.parent / f"{folder.name}.events", os.O_RDWR | os.O_CREAT) if event < 0 else -1
    sys.addaudithook(note)


def kill_at_bytes(size: int) -> None:
    """Let the kernel end this process when one of its files has this many bytes, in the middle of a write."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def refused(ended: Ended) -> None:
    """Check that a command ended as a user's error does: status 2, one line that says why, no traceback."""
    told = [line for line in ended.said.splitlines() if line.startswith("error: ")]
    expect(ended.code == 2, f"status {ended.code}: {ended.said[-300:]}")
    expect(told and "Traceback" not in ended.said, f"no line of its own: {ended.said[-300:]}")


def done(ended: Ended) -> None:
    expect(ended.code == 0 and "Traceback" not in ended.said, f"status {ended.code}: {ended.said[-400:]}")


def command(work: Callable[[], Any]) -> int:
    """Do what a command of the command line does, with its way to tell errors."""
    return commands.run_parsed("torture", "torture", lambda *_: None, lambda _: work(), [])


# --- what is treated badly: each leaves its results below a folder, and goes on where an earlier call was cut ---


@dataclass
class World:
    """What all trials share: pictures, weights, archives and a server, below one folder."""

    folder: Path
    url: str

    @property
    def split(self) -> Any:
        return tiny.tiny_split(self.folder / "pictures")


WORLD = World(Path(), "")
MEMBERS = {f"tiny/{kind}/{i}.png": (i, kind) for i in range(6) for kind in ("rain", "norain")}


def archive_bytes(seed: int = 0) -> bytes:
    """Return the archive of a set of six pairs."""
    files = {}
    for name, (i, kind) in MEMBERS.items():
        clean = samples.background(100 * seed + i)
        buffer = io.BytesIO()
        Image.fromarray(samples.rain_on(clean, i) if kind == "rain" else clean).save(buffer, "PNG", compress_level=0)
        files[name] = buffer.getvalue()
    return samples.zipped(files)


def raw(text: bytes, endless: bytes = b"") -> loopback.Answer:
    """Return an answer of these bytes, whatever HTTP says; then others without end, and the line is closed."""

    def answer(handler: Any) -> None:
        handler.close_connection = True
        with suppress(OSError):
            handler.wfile.write(text)
            while endless:
                handler.wfile.write(endless)

    return answer


OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/zip\r\n"
BAD_SERVERS: dict[str, Callable[[bytes, random.Random], loopback.Answer]] = {
    "nothing there": lambda body, r: loopback.status(r.choice([400, 403, 404, 410])),
    "always busy": lambda body, r: loopback.status(r.choice([429, 500, 503]), r.choice([None, "1", "²", "-3", "soon"])),
    "a web page": lambda body, r: loopback.html("<!doctype html><html>sign in</html>"),
    "a web page called a zip": lambda body, r: loopback.serve(b" \n<HTML>sign in</html>"),
    "an endless body": lambda body, r: raw(
        OK + b"\r\n" + body[: r.randrange(9999)], bytes(r.choice([1, 999, 1 << 20]))
    ),
    "an endless header": lambda body, r: raw(OK, b"X: " + b"y" * 60_000 + b"\r\n"),
    "endless chunks": lambda body, r: raw(
        OK + b"Transfer-Encoding: chunked\r\n\r\n", b"400\r\n" + bytes(1024) + b"\r\n"
    ),
    "a wrong chunk": lambda body, r: raw(OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + body),
    "no HTTP": lambda body, r: raw(r.randbytes(r.randrange(2000))),
    "a line that is closed": lambda body, r: raw(OK[: r.randrange(len(OK))]),
    "an odd length": lambda body, r: raw(
        OK + f"Content-Length: {r.choice(['²', '-1', '1e9', '', '0x10'])}\r\n\r\n".encode()
    ),
    "too long a length": lambda body, r: raw(
        OK + f"Content-Length: {10 ** r.randrange(7, 40)}\r\n\r\n".encode() + body
    ),
    "too short a length": lambda body, r: raw(OK + f"Content-Length: {r.randrange(len(body))}\r\n\r\n".encode() + body),
    "a range that nobody asked for": lambda body, r: raw(
        b"HTTP/1.1 206 Partial\r\nContent-Range: bytes 5-9/10\r\nContent-Length: 5\r\n\r\n12345"
    ),
    "a redirection to itself": lambda body, r: raw(
        b"HTTP/1.1 302 Found\r\nLocation: ?again\r\nContent-Length: 0\r\n\r\n"
    ),
    "a redirection to a file": lambda body, r: raw(
        b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n"
    ),
    "a coding of its own": lambda body, r: raw(
        OK + b"Content-Encoding: gzip\r\nConnection: close\r\n\r\n" + r.randbytes(5000)
    ),
    "bytes that are wrong": lambda body, r: loopback.serve(mutations.mutated_bytes(body[:-600], r)),
    "the middle wrong": lambda body, r: loopback.serve(body[:5000] + r.randbytes(2000) + body[7000:]),
    "no archive": lambda body, r: loopback.serve(r.randbytes(3000)),
    "nothing": lambda body, r: loopback.serve(b""),
    "another archive": lambda body, r: loopback.serve(samples.zipped({f"other/{i}.txt": b"x" for i in range(5)})),
}
SEEDS = 3  # of each server


def serve_all(state: loopback.Loopback) -> None:
    body = archive_bytes()
    state.on("/good", loopback.serve(body))
    state.on("/cut", loopback.serve(body, cut=9000))
    for name, answer in BAD_SERVERS.items():
        for seed in range(SEEDS):
            state.on(f"/{name.replace(' ', '-')}/{seed}", answer(body, random.Random(f"{name} {seed}")))


@contextmanager
def world() -> Iterator[None]:
    """Make what all trials share."""
    torch.set_num_threads(1)
    global WORLD
    with tempfile.TemporaryDirectory(prefix="torture-") as name:
        folder = Path(name)
        (folder / "derain").mkdir()
        for i in range(6):
            write_image(folder / "derain" / f"{i}.png", tiny.picture(i, 40))
        net = DerainNet(tiny.GENOTYPE)
        with torch.no_grad():  # so that it changes pictures: one that is derained twice is another one
            for parameter in net.parameters():
                parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
        zoo.save_network(folder, net)
        ours, theirs = os.pipe()
        if (server := os.fork()) == 0:  # in a process of its own: a process with threads is not to be copied
            os.setsid()
            with suppress(BaseException), loopback.loopback() as state:
                serve_all(state)
                os.write(theirs, state.url.encode())
                signal.pause()
            os._exit(0)
        WORLD = World(folder, os.read(ours, 100).decode())
        tiny.tiny_split(folder / "pictures")
        try:
            yield
        finally:
            os.kill(server, signal.SIGKILL)
            os.waitpid(server, 0)


def do_search(folder: Path) -> int:
    settings = replace(tiny.KILLED, epochs=3, steps=3)
    return command(lambda: search(tiny.SPACE, WORLD.split, settings, runs_dir=folder, name="search", progress=False))


def do_retrain(folder: Path) -> int:
    settings = replace(tiny.RETRAIN, epochs=4, steps=3)
    return command(
        lambda: retrain(tiny.GENOTYPE, WORLD.split, settings, runs_dir=folder, name="retrain", progress=False)
    )


def do_demo(folder: Path) -> int:
    settings = DemoSettings(
        tiny.SPACE, replace(tiny.SEARCH, epochs=2, steps=2), replace(tiny.RETRAIN, epochs=2, steps=2)
    )
    return command(lambda: run_demo(WORLD.split, settings, runs_dir=folder, name="demo", progress=False))


def do_derain(folder: Path) -> int:
    given = [str(WORLD.folder / "derain"), str(folder / "out"), "--weights", str(WORLD.folder), "--threads", "1"]
    return commands.run("derain", "derain", [*given, "--sheet", str(folder / "sheet.png")])


def do_replace(folder: Path) -> int:
    """Derain a folder of its own in place."""
    own = str(folder / "own")
    given = [own, own, "--weights", str(WORLD.folder), "--threads", "1"]
    return commands.run("derain", "derain", [*given, "--in-place"])


def do_download(folder: Path, *paths: str) -> int:
    """Get a registered set of six pairs."""
    item = {"into": "all", "unpacked_limit": 10**6, "mirrors": [WORLD.url + path for path in paths or ["/good"]]}
    row = {"title": "Tiny", "folder": "all/tiny", "pairs": {"train": 6}, "rains": "1", "group": "name"}
    row |= {"licence": "none", "citation": "none", "archives": ["tiny.zip"]}
    registry._table = lambda file: {"tiny": row} if file == "sets.toml" else {"tiny.zip": item}
    return data_command.main(["get", "tiny", "--root", str(folder), "--quiet"])


def do_cache(folder: Path) -> int:
    """Read two epochs of batches over a cache on disk, and keep a hash of each."""

    def work() -> None:
        loader = scene_loader(WORLD.split.train, batch=2, patch=16, steps=6, seed=3, cache=folder / "cache")
        hashes = [hashlib.sha256(b.rainy.numpy().tobytes() + b.clean.numpy().tobytes()).hexdigest() for b in loader]
        write_json(folder / "batches.json", hashes)

    return command(work)


MINIATURE = """\
# %% tags=["parameters"]
seed = 0  # any number

# %%
import matplotlib.pyplot as plt
from IPython.display import display
import manas_course as course

figure, axes = plt.subplots(figsize=(1, 1))
axes.plot([seed, 1])
display(figure)
plt.close(figure)

# %%
course.record_results(seed=float(seed), steps=1)
"""


def miniature_course(folder: Path) -> None:
    """Let the course be one notebook of two cells: a sweep over it takes seconds, and takes all the same steps."""
    from tools.course import contents

    if not (folder / "sources").exists():
        (folder / "sources").mkdir(parents=True)
        (folder / "params").mkdir()
        (folder / "sources" / "00_mini.py").write_text(MINIATURE)
        (folder / "params" / "smoke.yaml").write_text('"00": {seed: 0}\n')
        entry = {"name": "mini", "title": "Mini", "purpose": "None.", "learn": [], "before": "", "next": ""}
        places = dict.fromkeys(("address", "ref", "wheel", "sha256"), "")
        (folder / "course.yaml").write_text(json.dumps({"repository": places, "notebooks": {"00": entry}}))
        (folder / "sweep.yaml").write_text(
            json.dumps({"notebook": "00", "preset": "smoke", "grid": {"seed": [0, 1]}, "seeds": ["seed"]})
        )
        (folder / "costs.json").write_text("{}")
    contents.folder = lambda: folder


if course := os.environ.get("TORTURE_COURSE"):  # also in the workers of dask, which import this file
    miniature_course(Path(course))


def do_sweep(folder: Path, *more: str) -> int:
    from tools.course.__main__ import main

    os.environ["TORTURE_COURSE"] = str(WORLD.folder / "course")
    os.environ["JUPYTER_PLATFORM_DIRS"] = "1"
    miniature_course(WORLD.folder / "course")
    return main(["sweep", str(WORLD.folder / "course" / "sweep.yaml"), "--out", str(folder / "sweep"), *more])


def do_dask(folder: Path) -> int:
    return do_sweep(folder, "--dask", "local:1")


def do_grade(folder: Path) -> int:
    """Grade two hand-ins of the course's shortest exercise."""
    from tools.course.__main__ import main

    return main(["grade", str(WORLD.folder / "handed-in"), "--csv", str(folder / "marks.csv")])


def hand_in(folder: Path) -> None:
    """Write a right hand-in and an empty one."""
    import nbformat

    from tools.course import contents, sources

    folder.mkdir()
    for name, version in (("ada", "solution"), ("ben", "student")):
        nbformat.write(sources.build(contents.find("00"), version), folder / f"{name}.ipynb")


JOBS: dict[str, Callable[[Path], int]] = {
    "search": do_search,
    "retrain": do_retrain,
    "demo": do_demo,
    "derain": do_derain,
    "replace": do_replace,
    "download": do_download,
    "cache": do_cache,
    "sweep": do_sweep,
    "dask": do_dask,
    "grade": do_grade,
}
CHEAP = ("derain", "replace", "download", "cache", "retrain", "search", "demo")
TIMED = re.compile(r'"?(seconds|cpu_seconds|memory|first_seen|copy|runs_dir)"?: [^,}\n]*')


def facts(folder: Path) -> dict[str, str]:
    """Return a hash of every file that a job leaves, by name; of times, machines and folders' names nothing."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if not p.is_dir()):
        name = path.relative_to(folder).as_posix()
        if path.name in (".lock", "manifest.json") or "/runs/" in f"/{name}":
            found[name] = ""  # that it is there
        elif path.suffix == ".safetensors":
            tensors, meta = checkpoint.read(path)
            found[name] = digest(repr(sorted((k, v.numpy().tobytes()) for k, v in flat(tensors))) + repr(meta))
        elif path.suffix in (".ipynb", ".html", ".csv") and "sweep" in name:
            found[name] = ""
        elif path.suffix in (".json", ".csv"):
            found[name] = digest(TIMED.sub("", path.read_text()))
        else:
            found[name] = digest(path.read_bytes())
    return found


def flat(tensors: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tensors.items():
        yield from flat(value, f"{prefix}{name}/") if isinstance(value, dict) else [(prefix + name, value)]


def digest(content: str | bytes) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def compare(whole: Path, found: Path) -> None:
    """Check that two folders hold the same files with the same contents."""
    one, two = facts(whole), facts(found)
    expect(not (more := [*(two.keys() - one.keys())]), f"left over: {more[:3]}")
    expect(not (less := [*(one.keys() - two.keys())]), f"missing: {less[:3]}")
    expect(not (other := [name for name in one if one[name] != two[name]]), f"differs from an uncut run: {other[:3]}")


def ready(job: str, folder: Path) -> Path:
    """Return a folder in which a job can begin."""
    if job == "replace":
        shutil.copytree(WORLD.folder / "derain", folder / "own")
    return folder


def uncut(job: str) -> tuple[Path, int]:
    """Return the folder of a job that nothing disturbed, done once, and how many times it touched a file."""
    folder = WORLD.folder / "whole" / job
    if not folder.exists():
        folder.mkdir(parents=True)
        if job == "grade":
            hand_in(WORLD.folder / "handed-in")
        ready(job, folder)
        done(child(lambda: JOBS[job](folder), lambda: kill_at(-1, folder)))
    return folder, int((folder.parent / f"{job}.events").read_text())


# --- classes of faults: each yields (what, seed, trial) ---


def kills(job: str) -> Iterator[Trial]:
    """Kill a job, give it again, and compare what it leaves with an uncut one's, bit by bit."""

    def trial(folder: Path, seed: int, twice: bool, by_bytes: bool) -> None:
        whole, events = uncut(job)
        draw = random.Random(f"{job} {seed}")
        ready(job, folder)
        for _ in range(1 + twice):
            if by_bytes:
                largest = max(p.stat().st_size for p in whole.rglob("*") if p.is_file())
                size = draw.randrange(largest)
                ended = child(lambda: JOBS[job](folder), partial(kill_at_bytes, size))
                expect(ended.code == -signal.SIGXFSZ, f"not killed at {size} bytes: {ended.code} {ended.said[-200:]}")
            else:
                event = draw.randrange(events if not twice else max(1, events // 3))
                ended = child(lambda: JOBS[job](folder), partial(kill_at, event, folder))
                expect(ended.code == -signal.SIGKILL, f"not killed at {event}: {ended.code} {ended.said[-200:]}")
        done(child(lambda: JOBS[job](folder)))
        compare(whole, folder)

    by_bytes = job not in ("sweep", "dask", "grade")  # whose own processes would only be told of a full disk
    for seed in range(10 if job in ("sweep", "grade") else 12):
        kind = "in the middle of a write" if by_bytes and seed % 3 == 1 else "twice" if seed % 3 == 2 else "at a file"
        yield kind, seed, partial(trial, seed=seed, twice=seed % 3 == 2, by_bytes=by_bytes and seed % 3 == 1)


def kills_of_a_cluster() -> Iterator[Trial]:
    """Kill a sweep on a dask cluster when the folder holds a number of files; the workers write them, not the sweep."""

    def trial(folder: Path, seed: int) -> None:
        whole, _ = uncut("dask")
        files = len(facts(whole))

        ended = os.WEXITED | os.WNOHANG | os.WNOWAIT

        def watch(number: int) -> None:
            while len([*folder.rglob("*")]) < 1 + seed % files and not os.waitid(os.P_PID, number, ended):
                time.sleep(0.005)  # how often to look
            os.kill(number, signal.SIGKILL)

        expect(child(lambda: do_dask(folder), watch=watch).code == -signal.SIGKILL, "ended before it could be killed")
        done(child(lambda: do_dask(folder)))
        compare(whole, folder)

    for seed in range(10):
        yield "when some files are there", seed, partial(trial, seed=seed)


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Callable[..., None]]:
    """Mount something at a folder, in a name space of this process alone; yield a function that mounts it otherwise."""
    flags = 0x00020000  # CLONE_NEWNS
    expect(ctypes.CDLL(None).unshare(flags) == 0, "this process may mount nothing: run this class as root")

    def mount(*options: str) -> None:
        subprocess.run(["mount", *options, str(folder)], check=True)

    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    folder.mkdir(exist_ok=True)
    mount(*options)
    try:
        yield mount
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def full_disk() -> Iterator[Trial]:
    """Let a disk be full in the middle of a job; then free some space, and give the job again."""

    def trial(folder: Path, job: str, seed: int) -> None:
        whole, _ = uncut(job)
        needed = sum(-(-p.stat().st_size // 4096) * 4096 for p in whole.rglob("*") if p.is_file())
        disk = folder / "disk"
        with mounted(disk, "-t", "tmpfs", "-o", "size=200m", "tmpfs") as mount:
            ready(job, disk)
            size = sum(p.stat().st_blocks * 512 for p in disk.rglob("*")) + 4096
            pages = 0 if job == "replace" else random.Random(f"{job} {seed}").randrange(3, max(4, needed // 4096))
            size += 4096 * pages
            mount("-o", f"remount,size={size}")
            before = child(lambda: JOBS[job](disk))
            expect("Traceback" not in before.said, before.said[-300:])
            expect(before.code in (0, 1, 2), f"status {before.code}: {before.said[-200:]}")
            expect(before.code or "Warning" in before.said, "there was room enough: nothing was tried")
            mount("-o", "remount,size=200m")
            done(child(lambda: JOBS[job](disk)))
            compare(whole, disk)

    def limited(folder: Path, job: str, seed: int) -> None:
        """Do the same without a disk of its own: no file may pass a size, which is told as a full disk is."""
        whole, _ = uncut(job)
        size = random.Random(f"{job} {seed}").randrange(max(p.stat().st_size for p in whole.rglob("*") if p.is_file()))
        ready(job, folder)
        before = child(
            lambda: JOBS[job](folder), lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        )
        expect("Traceback" not in before.said and before.code in (0, 1, 2), f"{before.code}: {before.said[-300:]}")
        done(child(lambda: JOBS[job](folder)))
        compare(whole, folder)

    for seed in range(4):
        for job in CHEAP:
            if os.geteuid() == 0:
                yield f"{job}, a disk of its own", seed, partial(trial, job=job, seed=seed)
            else:
                yield f"{job}, a limit on files", seed, partial(limited, job=job, seed=seed)


def read_only() -> Iterator[Trial]:
    """Give a job a disk that may not be written to: its results' or its pictures'."""

    @contextmanager
    def frozen(folder: Path) -> Iterator[None]:
        with mounted(folder, "--bind", str(folder)) as mount:
            mount("-o", "remount,ro,bind")
            yield

    def nothing_there(folder: Path, job: str) -> None:
        disk = folder / "disk"
        disk.mkdir()
        ready(job, disk)
        before = facts(disk)
        with frozen(disk):
            refused(child(lambda: JOBS[job](disk)))
            expect(facts(disk) == before, "something changed")

    def all_done(folder: Path, job: str) -> None:
        disk = folder / "disk"
        shutil.copytree(uncut(job)[0], disk)
        before = facts(disk)
        with frozen(disk):
            ended = child(lambda: JOBS[job](disk))
            if ended.code:
                refused(ended)
            expect(facts(disk) == before, "something changed")

    def pictures(folder: Path, job: str) -> None:
        whole = uncut(job)[0]
        with frozen(WORLD.folder / "pictures"):
            done(child(lambda: JOBS[job](ready(job, folder))))
        compare(whole, folder)

    for job in CHEAP:
        yield f"{job}, nothing done", 0, partial(nothing_there, job=job)
        yield f"{job}, all done", 0, partial(all_done, job=job)
        yield f"{job}, the pictures", 0, partial(pictures, job=job)


def at_once() -> Iterator[Trial]:
    """Give a job several times at once, in one folder: what is left is right, and who may not work says why."""

    def trial(folder: Path, job: str, seed: int) -> None:
        whole, _ = uncut(job)
        ready(job, folder)
        begun = [start(lambda: JOBS[job](folder)) for _ in range(2 + seed)]
        ended = [wait(*one) for one in begun]
        expect(any(one.code == 0 for one in ended), f"none succeeded: {ended[0].said[-200:]}")
        for one in ended:
            if one.code:
                refused(one)
        compare(whole, folder)

    for seed in range(2):
        for job in CHEAP:
            yield f"{job}, {2 + seed} processes", seed, partial(trial, job=job, seed=seed)


def descriptors() -> Iterator[Trial]:
    """Let a process open only some files at a time; then give the job again without that limit."""

    def trial(folder: Path, job: str, seed: int) -> None:
        whole, _ = uncut(job)
        ready(job, folder)

        def few() -> None:
            taken = {int(number) for number in os.listdir("/proc/self/fd")}
            most = next(n for n in range(3, 10**4) if n - sum(number < n for number in taken) == seed)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

        ended = child(lambda: JOBS[job](folder), few)
        expect(ended.code or seed, "it needed none: nothing was tried")
        if ended.code:
            refused(ended)
        if ended.code or "was not drawn" in ended.said:
            done(child(lambda: JOBS[job](folder)))
        compare(whole, folder)

    for seed in range(5):
        for job in CHEAP:
            yield f"{job}, {seed} more", seed, partial(trial, job=job, seed=seed)


def documents() -> Iterator[Trial]:
    """Change one thing in a document at random: it is read, or refused in one line that names the file."""

    def trial(folder: Path, kind: str, seed: int) -> None:
        import test_documents

        from manas_lite.runs import record

        record.describe_environment = lambda: {"threads": 1}
        os.fsync = lambda number: None
        path, wrong, read = test_documents.maker(kind, folder)
        for number in range(MUTANTS):
            path.write_bytes(wrong(random.Random(f"{kind} {seed} {number}")))
            test_documents.tried(read, path)

    for seed in range(4):
        for kind in ("genotype", "weights", "manifest", "log", "checkpoint", "card"):
            yield f"{MUTANTS} of {kind}", seed, partial(trial, kind=kind, seed=seed)


MUTANTS = 100
NAMES = (
    *("a.png", "b/c.png", "../out", "/tmp/out", "..\\out", "C:\\out", "a/../../out", "x" * 300, "雨.png", "a\x01b"),
    *("a/", "./a", "a//b", ".", "", "d/" * 40 + "e", "a.png/b", "con", " ", ".."),
)
KINDS = (
    tarfile.REGTYPE,
    tarfile.DIRTYPE,
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.CHRTYPE,
    tarfile.FIFOTYPE,
    b"x",
    b"Z",
)


def odd_archive(draw: random.Random) -> bytes:
    """Return an archive with names, kinds and sizes drawn at random, and perhaps one wrong byte."""
    buffer = io.BytesIO()
    names = [draw.choice(NAMES if draw.random() < 0.3 else NAMES[:2]) for _ in range(draw.randrange(5))]
    if draw.random() < 0.5:
        with zipfile.ZipFile(buffer, "w", draw.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as file:
            for name in names:
                info = zipfile.ZipInfo(name or "?")
                info.external_attr = draw.choice([0, 0, stat.S_IFREG, stat.S_IFLNK, stat.S_IFIFO]) << 16
                file.writestr(info, draw.randbytes(draw.randrange(3000)) * draw.choice([1, 1, 500]))
    else:
        with tarfile.open(fileobj=buffer, mode=draw.choice(["w", "w:gz", "w:bz2", "w:xz"])) as file:
            for name in names:
                info = tarfile.TarInfo(name)
                info.type = draw.choice(KINDS if draw.random() < 0.3 else KINDS[:1])
                info.linkname = draw.choice(["a.png", "/etc/passwd", "../.."])
                content = draw.randbytes(draw.randrange(3000)) * draw.choice([1, 1, 500])
                info.size = len(content) if info.type == tarfile.REGTYPE else 0
                file.addfile(info, io.BytesIO(content))
    data = buffer.getvalue()
    return mutations.mutated_bytes(data, draw) if draw.random() < 0.6 else data


def archives() -> Iterator[Trial]:
    """Unpack archives that nobody should: all lands in the folder, within the limit, or nothing does."""

    def trial(folder: Path, seed: int) -> None:
        limit, accepted = 400_000, 0
        for number in range(MUTANTS):
            draw = random.Random(f"archive {seed} {number}")
            box = folder / str(number)
            (box / "in").mkdir(parents=True)
            (box / "odd.zip").write_bytes(odd_archive(draw))
            try:
                unpack_archive(box / "odd.zip", box / "in" / "to", limit)
                accepted += 1
            except (ArchiveError, OSError) as error:
                expect("odd.zip" in str(error) or isinstance(error, OSError), f"no name: {error}")
                expect(not (box / "in" / "to").exists(), f"{number}: refused, and something is left")
            expect(sorted(p.name for p in box.iterdir()) == ["in", "odd.zip"], f"{number}: written outside")
            expect([p.name for p in (box / "in").iterdir()] in ([], ["to"]), f"{number}: left over")
            inside = [p for p in box.rglob("*") if p.is_symlink() or not (p.is_file() or p.is_dir())]
            expect(not inside, f"{number}: a link or device was unpacked")
            written = sum(p.stat().st_size for p in (box / "in").rglob("*") if p.is_file())
            expect(written <= limit, f"{number}: {written} bytes for {limit}")
        expect(not Path("/tmp/out").exists(), "written outside")
        expect(MUTANTS / 20 < accepted < MUTANTS * 0.9, f"{accepted} of {MUTANTS} accepted: nothing was tried")

    for seed in range(10):
        yield f"{MUTANTS} archives", seed, partial(trial, seed=seed)


MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "I;16", "F", "HSV", "LAB")
ODD_FILES: tuple[Callable[[Path], object], ...] = (
    os.mkfifo,
    Path.mkdir,
    Path.touch,
    lambda path: path.symlink_to("/dev/zero"),
    lambda path: path.symlink_to(path),
    lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"),
    lambda path: path.write_bytes(b"P6 100000 100000 255\n"),
    lambda path: path.write_bytes(b"BM" + b"\xff" * 60),
    lambda path: path.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>"),
)


def odd_picture(path: Path, draw: random.Random) -> None:
    """Write a picture of a mode, format and ending drawn at random, perhaps with one wrong byte, or no picture."""
    if draw.random() < 0.1:
        draw.choice(ODD_FILES)(path)
        return
    mode = draw.choice(MODES)
    size = draw.randrange(1, 40), draw.randrange(1, 40)
    image = Image.fromarray(np.frombuffer(draw.randbytes(3 * size[0] * size[1]), np.uint8).reshape(*size[::-1], 3))
    with suppress(OSError, ValueError):
        image = image.convert(mode)
    for form in draw.sample(["PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP", "PPM", "TGA", "ICO", "PCX", "IM", "PDF"], 12):
        buffer = io.BytesIO()  # Pillow leaves half a file where it cannot write a mode
        with suppress(OSError, ValueError, KeyError):
            image.save(buffer, form)
            break
    data = buffer.getvalue()
    path.write_bytes(mutations.mutated_bytes(data, draw) if draw.random() < 0.7 else data)


def pictures() -> Iterator[Trial]:
    """Read odd pictures: each is right, or refused in one line that names it, and no other program is started."""

    def trial(folder: Path, seed: int) -> None:
        programs: list[str] = []
        sys.addaudithook(lambda name, _: programs.append(name) if name in STARTING else None)
        read = 0
        for number in range(MUTANTS):
            draw = random.Random(f"picture {seed} {number}")
            path = folder / f"{number}{draw.choice(['.png', '.jpg', '.tif', '.gif', '.heic', ''])}"
            odd_picture(path, draw)
            try:
                size, array = image_size(path), read_image(path)
                expect(array.dtype == np.uint8 and array.shape == (*size, 3), f"{number}: {array.dtype} {array.shape}")
                read += 1
            except (ImageError, OSError) as error:
                expect(path.name in str(error) and "\n" not in str(error), f"{number}: {error}")
        expect(not programs, f"started {programs[:2]}")
        expect(MUTANTS / 20 < read < MUTANTS * 0.9, f"{read} of {MUTANTS} read: nothing was tried")

    for seed in range(10):
        yield f"{MUTANTS} pictures", seed, partial(trial, seed=seed)


STARTING = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork"}


def servers() -> Iterator[Trial]:
    """Let a mirror misbehave: the next one is asked; and alone, it is told why nothing came."""

    def trial(folder: Path, name: str, seed: int) -> None:
        from manas_lite.data import download

        download.sleep = lambda seconds: None
        bad = f"/{name.replace(' ', '-')}/{seed}"
        small = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2 * 10**6, 2 * 10**6))  # noqa: E731
        alone = child(lambda: do_download(folder / "alone", bad), small)
        refused(alone)
        expect("disk is full" not in alone.said, "more was written than an archive can hold")
        expect(not (folder / "alone" / "all").exists(), "a wrong set is kept")
        done(child(lambda: do_download(folder / "two", bad, "/good"), small))
        found = facts(folder / "two")
        expect({n: h for n, h in facts(uncut("download")[0]).items() if "/norain/" in n or "/rain/" in n}.items()
               <= found.items(), "not the set that the good mirror has")  # fmt: skip
        expect(not [n for n in found if ".part" in n or n.startswith(".")], f"left over: {[*found]}")

    def cut(folder: Path) -> None:
        done(child(lambda: do_download(folder, "/cut")))
        expect(len([*folder.rglob("*.png")]) == 12, "pictures are missing")

    yield "lines that are cut", 0, cut
    for seed in range(SEEDS):
        for name in BAD_SERVERS:
            yield name, seed, partial(trial, name=name, seed=seed)


GOES_ON = (
    "Killed at any moment and given again, it ends as if it had not been: the same weights, log and pictures bit for "
    "bit, and no temporary files."
)
PROMISES = {
    "kill search": f"A search. {GOES_ON}",
    "kill retrain": f"A retraining. {GOES_ON}",
    "kill demo": f"`manas-lite demo`. {GOES_ON}",
    "kill derain": f"`manas-lite derain FOLDER --sheet`. {GOES_ON}",
    "kill replace": f"`manas-lite derain --in-place`. {GOES_ON} No picture is derained twice.",
    "kill download": f"`python -m manas_lite.data get`. {GOES_ON}",
    "kill cache": f"Batches over a cache on disk. {GOES_ON}",
    "kill sweep": "A sweep. Killed at any moment and given again, all of its runs are done, listed and rendered.",
    "kill grade": "A grading. Killed at any moment and given again, the table has every mark.",
    "kill dask": "A sweep on a dask cluster. Killed at any moment and given again, all of its runs are done.",
    "full disk": "On a full disk a command ends in one line, or does without what it only keeps for speed. With space "
    "freed, the same command ends as if there had been enough.",
    "read-only": "Where nothing may be written, a command says so in one line and changes nothing. Pictures are only "
    "read.",
    "at once": "The same command several times at once in one folder: what is left is right. One that may not work "
    "says in one line who does.",
    "descriptors": "With too few open files a command ends in one line, or warns that a drawing was not made; the same "
    "command later ends as usual.",
    "documents": "A genotype, weights file, manifest, log, checkpoint or card with anything wrong in it is refused in "
    "one line that names the file and the place.",
    "archives": "What an archive holds lands in its folder and within its limit, or nothing of it does. Links and "
    "devices are never unpacked.",
    "pictures": "An odd or damaged picture is read as what it shows, or refused in one line that names it. No other "
    "program is started.",
    "servers": "When a mirror misbehaves, the next one is asked. When none is left, it is told why. No more is written "
    "than the archive can have.",
}
"""What is promised for each class."""

CLASSES: dict[str, Callable[[], Iterator[Trial]]] = {
    **{f"kill {job}": partial(kills, job) for job in (*CHEAP, "sweep", "grade")},
    "kill dask": kills_of_a_cluster,
    "full disk": full_disk,
    "read-only": read_only,
    "at once": at_once,
    "descriptors": descriptors,
    "documents": documents,
    "archives": archives,
    "pictures": pictures,
    "servers": servers,
}


# --- doing the trials ---


def attempt(trial: Callable[[Path], None]) -> str:
    """Return why a trial failed, or nothing; it happens in a process group of its own, in a folder of its own."""
    folder = Path(tempfile.mkdtemp(dir=WORLD.folder, prefix="trial-"))

    def work() -> None:
        os.setsid()
        signal.alarm(LIMIT_S)
        try:
            trial(folder)
        except Fault as fault:
            print(f"FAULT {fault}")

    numbers = []
    try:
        ended = child(work, watch=numbers.append)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(numbers[0], signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)
    if ended.code == -signal.SIGALRM:
        return f"took longer than {LIMIT_S} s"
    found = ended.said.partition("FAULT ")[2]
    why = " ".join((found or (ended.said if ended.code else "")).split())
    return why.replace(str(ROOT), ".").replace(str(WORLD.folder), "")[-500:]


def read_results(table: Path) -> dict[tuple[str, str, int], dict[str, str]]:
    if not table.exists():
        return {}
    with open(table, newline="", encoding="utf-8") as file:
        return {(row["class"], row["trial"], int(row["seed"])): row for row in csv.DictReader(file)}


def write_results(table: Path, rows: dict[tuple[str, str, int], dict[str, str]]) -> None:
    table.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows.values())
    checkpoint.write_atomic(table, text.getvalue().encode())


def page(rows: dict[tuple[str, str, int], dict[str, str]]) -> str:
    """Return docs/reliability.md."""
    lines = [HEAD, "| class | promise | tried | failed |", "|---|---|---:|---:|"]
    for name, promise in PROMISES.items():
        own = [row for row in rows.values() if row["class"] == name]
        lines.append(f"| {name} | {promise} | {len(own)} | {sum(row['ok'] != 'yes' for row in own)} |")
    failed = [row for row in rows.values() if row["ok"] != "yes"]
    lines += ["", "## What failed", ""]
    lines += [f"* {row['class']}, {row['trial']}, {row['seed']}: {row['reason'][:200]}" for row in failed] or [
        "Nothing."
    ]
    if BOUNDS.exists():
        with open(BOUNDS, newline="", encoding="utf-8") as file:
            bounds = [*csv.DictReader(file)]
        lines += ["", BOUNDS_HEAD, "| package | lowest | newest |", "|---|---|---|"]
        lines += [f"| {row['package']} | {row['lowest']} | {row['newest']} |" for row in bounds]
    return "\n".join(lines) + "\n"


HEAD = """\
# Reliability

What is promised when a computer, a disk, a file or a server behaves badly, and how often that was tried. Made by
`python scripts/torture.py --page` from `results/reliability/trials.csv`; `python scripts/torture.py` makes the trials.

A kill comes at the n-th time that a process opens, renames or removes a file, or when a file has reached n bytes, never
at a time. A trial of documents, archives or pictures is a hundred files. The full disk is a small file system in memory
where the script runs as root, and a limit on the size of files elsewhere. A killed process is one that the system ends
at once, as `kill -9` does; what a power failure leaves on a disk was not tried.
"""
BOUNDS_HEAD = """\
## Dependencies

`make bounds` installs the lowest versions that `pyproject.toml` allows, then the newest, and runs the tests named in
`scripts/bounds.py`. These were installed when the tests passed:
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", action="append", default=[], metavar="TEXT")
    parser.add_argument("--trials", type=int, default=10**6, help="at most this many trials of each class")
    parser.add_argument("--again", action="store_true", help="also those that went well before")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the table (default: %(default)s)")
    parser.add_argument("--page", action="store_true", help="write the page alone")
    options = parser.parse_args()
    if options.page:
        checkpoint.write_atomic(PAGE, page(read_results(options.results)).encode())
        return 0
    chosen = [name for name in CLASSES if not options.only or any(text in name for text in options.only)]
    failed = 0
    with world():
        for name in chosen:
            for what, seed, trial in [*CLASSES[name]()][: options.trials]:
                key, rows = (name, what, seed), read_results(options.results)
                if not options.again and key in rows and rows[key]["ok"] == "yes":
                    continue
                began, why = time.monotonic(), attempt(trial)
                rows = read_results(options.results)  # again: another call may have written meanwhile
                rows[key] = dict(zip(FIELDS, (name, what, str(seed), "no" if why else "yes", why), strict=True))
                write_results(options.results, rows)
                failed += bool(why)
                print(f"{name}: {what}, {seed}: {why or 'held'} ({time.monotonic() - began:.1f} s)", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
