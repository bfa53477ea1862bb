"""The run directory: what a run was started with, what it logged, and what it cost.

    manifest.json   kind, settings, data hashes, versions, git commit, machine, seconds, peak memory
    log.jsonl       one JSON record per line
    data.json       size, times and hash of every picture, so that a changed one is noticed without reading all
    anything else   written whole or not at all

A directory belongs to the settings it was started with, and to one process at a time. It outlives versions of this
kit: a setting that did not exist when it was started had its default in effect.
"""

import contextlib
import hashlib
import json
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import torch
from filelock import FileLock, Timeout

from manas_lite.runs.checkpoint import LEFTOVER, sha256_of, write_atomic, write_whole
from manas_lite.runs.documents import LARGEST_MANIFEST, decode, document, one_line, read_bytes, read_json
from manas_lite.runs.environment import describe_environment, peak_memory
from manas_lite.runs.settings import completed, difference, plain

MANIFEST, LOG, LOCK, DATA = "manifest.json", "log.jsonl", ".lock", "data.json"
FORMAT = 2  # of the manifest and the log; manifests of format 1 do not say so
MANIFEST_EVERY = 15.0  # seconds between its updates while logging: what a killed run loses of its time
OLDER = (MANIFEST, LOG, "checkpoint.safetensors", "genotype.json", "weights.safetensors", "metrics.json")
"""Files whose temporary ones earlier versions named `.FILE.PROCESS.tmp`, before they had a name of their own."""

LARGEST_LOG = 2**30
"""The most bytes of a log, whose lines are JSON documents."""

LOCK_PATIENCE = 10.0  # seconds: data workers outlive a killed run by a few, and hold its lock till then


@dataclass(frozen=True)
class _Manifest:
    """What a manifest must hold to be continued; the rest of it is the run's record and facts of the machine."""

    kind: str
    seconds: float
    peak_memory: dict[str, int]
    notes: dict[str, Any]
    stretches: list[dict[str, Any]]
    format: int = 1
    seeds: dict[str, int] = field(default_factory=dict)
    finished: str | None = None
    stopped: str | None = None


@dataclass(frozen=True)
class _LogRecord:
    """What every line of a log must hold."""

    step: int
    kind: str = ""


@dataclass(frozen=True)
class DataTable:
    """What data.json holds."""

    files: dict[str, tuple[int, int, int, str]] = field(default_factory=dict)
    """By path: bytes, the times of the last change of contents and of the file's entry (ns), sha256."""


class BusyError(RuntimeError):
    """Another process is writing the run directory."""


class RunDirectory:
    """A run's folder, open for writing within a `with` block; the same call on the same folder continues it.

    Args:
        path: the folder; made if missing.
        record: what the run is started with (settings, data hashes): anything JSON can hold, and dataclasses. It goes
            into the manifest, and a folder that was started with another record is refused.
        kind: what sort of run it is, such as "search".
        defaults: values that parts of the record have by default, in the same nested form. They stand for what an
            older run's record lacks.

    Raises:
        ValueError: where the folder was started with another record or kind, naming what differs, or by a later
            version of this kit.
        BusyError: where another process is writing it (the system frees the lock of one that died).

    Example:
    >>> with RunDirectory("runs/try", {"settings": {"seed": 0}}) as run:    # doctest: +SKIP
    ...     run.log({"step": 0, "loss": 0.5})
    ...     seconds = run.finish()
    """

    def __init__(
        self,
        path: str | Path,
        record: Mapping[str, Any],
        *,
        kind: str = "run",
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = Path(path)
        self.record: dict[str, Any] = plain(record)
        self.defaults: dict[str, Any] = plain(defaults or {})
        self.kind = kind
        self.manifest: dict[str, Any] = {}
        self._lock = FileLock(self.path / LOCK, timeout=LOCK_PATIENCE)
        self._log: BinaryIO | None = None
        self._began = self._saved = 0.0  # of this stretch, on the monotonic clock
        self._seconds_before = 0.0
        self.saved_step = 0  # of the last checkpoint: where a run that is cut now goes on

    # --- opening and closing ---

    def __enter__(self) -> Self:
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            raise BusyError(
                f"{self.path} is being written by another run{self._holder()}: wait for it, stop it, or use another "
                "name or runs_dir"
            ) from None
        try:
            self._open()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._close_log()
            if error is not None:
                self.manifest["stopped"] = f"{type(error).__name__}: {error}".removesuffix(": ")
                with contextlib.suppress(OSError):  # a full disk must not hide the error itself
                    self._save_manifest()
            elif self.manifest["finished"] is None:
                self._save_manifest()
        finally:
            self._lock.release()

    def _open(self) -> None:
        for pattern in (LEFTOVER, *(f".{name}.[0-9]*.tmp" for name in OLDER)):
            for leftover in self.path.glob(pattern):  # of a process killed while writing; anyone else's stay
                leftover.unlink()
        self._began = time.monotonic()
        now = _now()
        if (self.path / MANIFEST).exists():
            self.manifest = read_manifest(self.path)
            self._check()
            self._seconds_before = self.manifest["seconds"]
        else:
            own = {"kind": self.kind, "format": FORMAT, "started": now, "finished": None, "stopped": None}
            own |= {"seconds": 0.0, "peak_memory": {}, "seeds": dict(_seeds(self.record)), "notes": {}, "stretches": []}
            clash = sorted({*own, *describe_environment()} & set(self.record))
            if clash:
                raise ValueError(f"the record uses names of the manifest itself: {', '.join(clash)}; rename them")
            self.manifest = {**own, **self.record}
        self.manifest |= {"finished": None, "stopped": None}
        self.manifest["stretches"].append({"started": now, "seconds": 0.0, **describe_environment()})
        self._keep_lines(lambda line: line.endswith(b"\n"))  # the last one may be cut in the middle
        self._save_manifest()

    def _check(self) -> None:
        """Refuse to continue a run that is another one."""
        if self.manifest["kind"] != self.kind:
            text = f"{self.path} holds a run of kind {self.manifest['kind']!r}, not {self.kind!r}: use another name"
            raise ValueError(one_line(text))
        # What older runs did not have, and what is off or has its default here, differs in nothing.
        here = {key: value for key, value in self.record.items() if value is not None or key in self.manifest}
        there = {key: self.manifest[key] for key in here if key in self.manifest}
        if found := difference(completed(here, self.defaults), completed(there, self.defaults)):
            text = f"{self.path} was started with other settings: {'; '.join(map(str, found))}"
            raise ValueError(one_line(f"{text}. Use another name or runs_dir, or delete the folder to start again"))

    def _holder(self) -> str:
        with contextlib.suppress(OSError, ValueError, KeyError, IndexError):
            stretch = read_manifest(self.path)["stretches"][-1]
            return f" (process {stretch['process']} on {stretch['host']}, since {stretch['started']})"
        return ""

    # --- the manifest ---

    @property
    def seconds(self) -> float:
        """Seconds that this run has taken, over all stretches; a killed one counts up to its last saved manifest."""
        return self._seconds_before + time.monotonic() - self._began

    def note(self, **facts: Any) -> None:
        """Add facts to the manifest's `notes`."""
        self.manifest["notes"].update(plain(facts))
        self._save_manifest()

    def finish(self) -> float:
        """Mark the run as done; return the seconds that it took, over all stretches."""
        self.manifest["finished"] = _now()
        self._save_manifest()
        return self.manifest["seconds"]

    def _save_manifest(self) -> None:
        self._saved = time.monotonic()
        total, stretch = self.seconds, self.manifest["stretches"][-1]
        stretch |= {"seconds": round(total - self._seconds_before, 3), "threads": torch.get_num_threads()}
        peak = self.manifest["peak_memory"]
        for name, size in peak_memory().items():
            peak[name] = max(size, peak.get(name, 0))
        self.manifest["seconds"] = round(total, 3)
        self.manifest |= {key: value for key, value in stretch.items() if key not in ("started", "seconds")}
        self.write_json(MANIFEST, self.manifest)

    # --- the log ---

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one record to log.jsonl. It must hold an integer `step`, by which `truncate_log` knows it."""
        if type(record.get("step")) is not int:
            raise ValueError(f"log record {dict(record)!r} has no integer 'step'")
        self._log = self._log or open(self.path / LOG, "ab", buffering=0)  # noqa: SIM115 - till __exit__
        write_whole(self._log, _encoded(to_json(record) + "\n"))
        if time.monotonic() - self._saved > MANIFEST_EVERY:
            self._save_manifest()

    def truncate_log(self, step: int, ended: bool = True) -> None:
        """Drop the records of `step` and later: a run that continues at `step` writes them again.

        Where the epoch before `step` is not `ended`, its record is dropped too. Warns where a step has no record.
        """
        self._close_log()
        first = (step, False) if ended else (step - 1, True)

        def early(record: dict[str, Any]) -> bool:
            return (record["step"], record.get("kind") == "epoch") < first

        records = self.read_log()
        if not all(map(early, records)):
            self._keep_lines(lambda line: early(json.loads(line)))
        if (held := len({record["step"] for record in filter(early, records)})) < step:
            lost = f"{self.path / LOG} holds {held} of the {step} steps that the run has done: it is damaged"
            warnings.warn(f"{lost}. All else is whole, but curves will lack the others", stacklevel=2)

    def read_log(self) -> list[dict[str, Any]]:
        """Return all records so far."""
        return read_log(self.path)

    def _keep_lines(self, wanted: Callable[[bytes], bool]) -> None:
        lines = _lines(self.path)
        kept = [line for line in lines if wanted(line)]
        if kept != lines:
            write_atomic(self.path / LOG, b"".join(kept))

    def _close_log(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None

    # --- other files ---

    def write_json(self, name: str, data: Any) -> None:
        """Write a JSON file into the folder, atomically."""
        write_json(self.path / name, data)

    def write_text(self, name: str, text: str) -> None:
        """Write a text file into the folder, atomically."""
        write_atomic(self.path / name, text.encode())


# --- files ---


def write_json(path: str | Path, data: Any) -> None:
    """Write a JSON file, atomically; see `plain` for what it may hold."""
    write_atomic(path, _encoded(to_json(data, indent=2) + "\n"))


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """Return the manifest of a run directory; ValueError where a run cannot be continued by it."""
    path = Path(folder) / MANIFEST
    manifest = read_json(path, LARGEST_MANIFEST)
    return manifest | vars(document(_Manifest, manifest, path, newest=FORMAT, more=True))


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """Return the records of a run directory's log.jsonl; a last line that was cut in the middle is left out."""
    records = []
    for number, line in enumerate(_lines(path), start=1):
        if not line.endswith(b"\n"):
            break
        place = f"{Path(path) / LOG}, line {number}"
        record = decode(line, f"{place}: not a JSON record")
        document(_LogRecord, record, place, more=True)
        records.append(record)
    return records


def _lines(folder: str | Path) -> list[bytes]:
    log = Path(folder) / LOG
    return read_bytes(log, LARGEST_LOG).splitlines(keepends=True) if log.exists() else []


def to_json(data: Any, indent: int | None = None) -> str:
    """Return data as JSON; see `plain` for what it may hold."""
    return json.dumps(plain(data), indent=indent, allow_nan=False, ensure_ascii=False)


def _encoded(text: str) -> bytes:
    r"""Return a JSON text as bytes; of a file's name that is no text, half a character is written as JSON's \\udcff."""
    return text.encode("utf-8", "backslashreplace")


def run_path(runs_dir: str | Path, name: str) -> Path:
    """Return the folder of a run; ValueError where `name` is no name of one folder in `runs_dir`."""
    if name in ("", ".", "..") or any(mark in name for mark in "/\\\0") or name != name.strip():
        raise ValueError(
            f"{name!r} is no name of a run: give a word without slashes, and the folder of runs by runs_dir"
        )
    return Path(runs_dir) / name


def look_at(paths: Iterable[str | Path], known: DataTable) -> DataTable:
    """Return sizes, times and hashes of files. Those whose size and times are as in `known` are not read again."""
    found = {}
    for path in map(Path, paths):
        stat, facts = path.stat(), known.files.get(str(path.absolute()))
        marks = stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
        if facts is None or facts[:3] != marks:
            facts = (*marks, sha256_of(path))
        found[str(path.absolute())] = facts
    return DataTable(found)


def hash_files(paths: Iterable[str | Path], table: DataTable | None = None) -> dict[str, Any]:
    """Return one sha256 over the names (without folders), sizes and contents of files, in any order.

    Args:
        table: what `look_at` found, with these files among it; None looks at them now.

    Returns:
        {"sha256": hexadecimal digits, "files": their number, "bytes": their size}.
    """
    every = [*map(Path, paths)]
    files = (look_at(every, DataTable()) if table is None else table).files
    entries = []
    for path in every:
        size, *_, digest = files[str(path.absolute())]
        entries.append((path.name, size, digest))
    total = hashlib.sha256(json.dumps(sorted(entries)).encode()).hexdigest()
    return {"sha256": total, "files": len(entries), "bytes": sum(size for _, size, _ in entries)}


def _seeds(record: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, int]]:
    """Yield every integer named `seed` or `..._seed` in a record, with its dotted place."""
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from _seeds(value, f"{where}{key}.")
        elif (key == "seed" or key.endswith("_seed")) and isinstance(value, int):
            yield f"{where}{key}", value


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
