"""Downloads that survive cut lines, wrong bytes, quotas and interruptions; `get` turns them into a registered set.

Bytes arrive in `NAME.part` and become `NAME` only once size, kind and sha256 are right. No publisher of a
rain set states a checksum: the first file that proves right is recorded (trust on first use), and every later
one must agree.
"""

import datetime
import errno
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from manas_lite.data.registry import (
    Archive,
    archive,
    count_differences,
    data_folder,
    data_set,
    holds_pictures,
    list_set,
    manual_steps,
)
from manas_lite.data.unpack import is_archive, unpack_archive
from manas_lite.runs.checkpoint import sha256_of, write_atomic

ATTEMPTS = 6
"""Attempts without a byte after which a source is given up."""

TIMEOUT = (15, 60)
"""Seconds to connect, and between bytes."""

_PIECE = 1 << 16
_FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
_HTML = re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*<(?:!doctype html|html|head|\?xml)", re.IGNORECASE)
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_WEB_PAGE = "an HTML page came instead of the archive (a quota, a login, or a moved file)"
Wait = Callable[[float], None]


class DownloadError(RuntimeError):
    """A source did not deliver the file; the message says which and why."""


def get(
    name: str,
    root: str | os.PathLike[str] | None = None,
    *,
    given: str | os.PathLike[str] | None = None,
    mirrors: Sequence[str] = (),
    progress: bool = True,
    wait: Wait = time.sleep,
) -> Path:
    """Return the folder of a registered set, downloaded and unpacked where it is not there.

    Sources, in order: the archive at `given`, the verified one kept below `root`, `mirrors` and those of the
    registry, Google Drive. Between attempts `wait` pauses for a number of seconds.

    Args:
        root: where sets are kept (see `data_folder`).
        given: an archive of the set that is there already.
        mirrors: addresses to try first.

    Raises:
        DownloadError: no source delivers; the message ends in the steps to take by hand.
        ArchiveError: the archive must not be unpacked.
        ValueError: no set has this name.
    """
    chosen, base = data_set(name), data_folder(root)
    where, archives = base / chosen.folder, base / "archives"
    if holds_pictures(where) and not count_differences(chosen, list_set(chosen, base)):
        return where
    if not chosen.archives:
        raise DownloadError(f"{chosen.name} cannot be downloaded automatically.\n{manual_steps(chosen, base)}")
    if given is not None and len(chosen.archives) != 1:
        raise ValueError(f"{chosen.name} comes in {len(chosen.archives)} archives: put them in {archives}")
    fetched = []
    for item in map(archive, chosen.archives):
        item = replace(item, mirrors=(*mirrors, *item.mirrors))
        if given is not None:
            archives.mkdir(parents=True, exist_ok=True)
            path = Path(given)
            verify(path, item, archives)
        else:
            try:
                path = fetch(item, archives, progress=progress, wait=wait, trust=False)
            except DownloadError as error:
                raise DownloadError(f"{error}\nBy hand:\n{manual_steps(chosen, base)}") from error
        unpack_archive(path, base / item.into, item.unpacked_limit, progress=progress)
        fetched.append((path, item))
    if not holds_pictures(where):
        raise DownloadError(
            f"{path} was unpacked, but holds no folder {chosen.folder} of pictures; it is another archive than "
            f"expected. Take it away to try again, or look below {base / item.into}, and name the right folder to "
            "open_split"
        )
    if not count_differences(chosen, list_set(chosen, base)):  # what is not the set must not become the measure
        for path, item in fetched:
            remember(path, item, archives, source=str(given or "download"))
    return where


def fetch(item: Archive, folder: Path, *, progress: bool = True, wait: Wait = time.sleep, trust: bool = True) -> Path:
    """Return the verified archive in a folder: the one already there, else from its mirrors in turn, else from Drive.

    Args:
        folder: where it is kept, with the record of what proved right.
        trust: record a first download at once. False leaves that to a caller who first looks into it (`remember`).

    Raises:
        DownloadError: all sources have failed; the message gives the reason of each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / item.name
    failures = []
    if path.exists():
        try:
            verify(path, item, folder)
            return path
        except DownloadError as error:
            failures.append(str(error))
    sources: list[tuple[str, Callable[[Path], None]]] = [
        (url, partial(fetch_url, url, size=item.size, progress=progress, wait=wait)) for url in item.mirrors
    ]
    if item.drive:
        sources.append((f"Drive file {item.drive}", partial(fetch_drive, item.drive, progress=progress, wait=wait)))
    for number, (name, source) in enumerate(sources):
        part = folder / f"{item.name}.{number}.part"  # a part for each source: their bytes must not be mixed
        arrived = False
        try:
            source(part)
            arrived = True
            verify(part, item, folder)
        except DownloadError as error:
            failures.append(f"{name}: {error}")
            if arrived:
                part.unlink()  # or it would be resumed
            continue
        os.replace(part, path)
        if trust:
            remember(path, item, folder, source=name)
        for left in folder.glob(f"{item.name}.*.part*"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        return path
    reasons = "\n".join(f"  - {reason}" for reason in failures) or "  - it has no source to download from"
    raise DownloadError(f"{item.name} could not be downloaded:\n{reasons}")


def verify(path: Path, item: Archive, records: Path) -> None:
    """Check kind, size and sha256 against the registry and the record in a folder; raise DownloadError where wrong."""
    record_file = records / "record.json"
    known = _read_record(record_file).get(item.name, {})
    size, expected = item.size or known.get("size"), item.sha256 or known.get("sha256")
    origin = f"the first download; if that one was wrong, take its entry out of {record_file}"
    found = path.stat().st_size
    with open(path, "rb") as file:
        page = _HTML.match(file.read(512))
    if page:
        raise DownloadError(_WEB_PAGE)
    if size is not None and found != size:
        stated = "the registry" if item.size else origin
        raise DownloadError(f"{path.name}: {found:,} bytes, expected {size:,} (from {stated})")
    if not is_archive(path):
        raise DownloadError(f"{path.name}: {found:,} bytes that are neither a zip nor a tar")
    if expected is not None and (digest := sha256_of(path)) != expected:
        stated = "the registry" if item.sha256 else origin
        raise DownloadError(f"{path.name}: sha256 {digest}, expected {expected} (from {stated})")


def remember(path: Path, item: Archive, records: Path, source: str) -> None:
    """Keep size and sha256 of an archive that proved right, so that every later one must agree (`verify`)."""
    record_file = records / "record.json"
    known = _read_record(record_file)
    if item.name not in known:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        size, digest = path.stat().st_size, sha256_of(path)
        known[item.name] = {"size": size, "sha256": digest, "source": source, "first_seen": now}
        write_atomic(record_file, json.dumps(known, indent=1).encode())


def fetch_url(url: str, part: Path, size: int | None, progress: bool = True, wait: Wait = time.sleep) -> None:
    """Download a URL to `part`, going on where an earlier attempt was cut; raise DownloadError where that fails.

    A line that is cut is taken up again, as long as each attempt brings bytes; 429 and 5xx are waited for, as
    the server asks (at most a minute); a server without ranges, or a file that has changed, starts from the
    beginning.
    """
    import requests

    failures = 0
    with requests.Session() as session:
        while True:
            before = part.stat().st_size if part.exists() else 0
            try:
                if _attempt(session, url, part, size, progress):
                    return
                reason = "the line was cut"
                delay = 0.5 * 2**failures
            except _Busy as busy:
                reason, delay = str(busy), min(busy.seconds or 2.0**failures, 60.0)
            except requests.RequestException as error:
                _raise_if_full(error)
                reason, delay = f"{type(error).__name__}: {error}", 0.5 * 2**failures
            except OSError as error:
                _raise_if_full(error)
                raise
            after = part.stat().st_size if part.exists() else 0
            failures = 0 if after > before else failures + 1
            if failures >= ATTEMPTS:
                raise DownloadError(f"{reason} ({ATTEMPTS} attempts without a byte; what came is kept in {part.name})")
            wait(delay)


def fetch_drive(file_id: str, part: Path, progress: bool = True, wait: Wait = time.sleep) -> None:
    """Download a Google Drive file by its id with gdown (the arguments that versions 5.2 and 6 share)."""
    import gdown

    folder = part.with_name(part.name + ".gdown")  # its own: gdown resumes any NAME*.part it finds
    folder.mkdir(exist_ok=True)
    output = folder / "file"
    for attempt in range(ATTEMPTS):
        before = _bytes_below(folder)
        try:
            done = gdown.download(id=file_id, output=str(output), resume=True, quiet=not progress, use_cookies=False)
        except Exception as error:  # gdown raises its own classes, requests' and KeyError, by version
            _raise_if_full(error)
            if type(error).__name__ == "FileURLRetrievalError":
                raise DownloadError(f"Drive refuses (quota or permission): {_first_line(error)}") from error
            reason = _first_line(error)
        else:
            if done and output.is_file():
                os.replace(output, part)
                shutil.rmtree(folder)
                return
            reason = "gdown brought no file"
        if _bytes_below(folder) == before and attempt >= 2:
            break
        wait(0.5 * 2**attempt)
    raise DownloadError(f"{reason} (what came is kept in {folder.name})")


class _Busy(Exception):
    """The server asks to wait, for a number of seconds if it says so."""

    def __init__(self, status: int, retry_after: str) -> None:
        super().__init__(f"the server answers {status}")
        self.seconds = float(retry_after) if retry_after.isdigit() else None


def _attempt(session: Any, url: str, part: Path, size: int | None, progress: bool) -> bool:
    """Make one request; return True when the file is complete, False when the line was cut."""
    marker = part.with_name(part.name + ".etag")
    offset = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"}
    if offset and not marker.exists():
        offset = 0  # nothing says that the bytes here belong to the file there
    if offset:
        headers |= {"Range": f"bytes={offset}-", "If-Range": marker.read_text()}
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        status = response.status_code
        if status == 429 or status >= 500:
            raise _Busy(status, response.headers.get("Retry-After", ""))
        if status == 416:  # nothing after what we have: begin anew, unless that was all of it
            total = response.headers.get("Content-Range", "").rpartition("/")[2]
            if total == str(offset):
                return True
            part.unlink()
            return False
        if status not in (200, 206):
            raise DownloadError(f"the server answers {status} {response.reason}")
        if response.headers.get("Content-Type", "").startswith("text/html"):
            raise DownloadError(_WEB_PAGE)
        found = _RANGE.match(response.headers.get("Content-Range", ""))
        if status == 206 and (not found or int(found[1]) != offset):
            raise DownloadError("the server sent another range than was asked for")
        if status == 200:
            offset = 0
        stated = response.headers.get("Content-Length")
        total = offset + int(stated) if stated and stated.isdigit() else None
        if size is not None and total is not None and total != size:
            raise DownloadError(f"the server offers {total:,} bytes, expected {size:,}")
        validator = response.headers.get("ETag") or response.headers.get("Last-Modified")
        if validator and not validator.startswith("W/"):
            marker.write_text(validator)
        else:
            marker.unlink(missing_ok=True)
        with (
            open(part, "ab" if offset else "wb") as file,
            tqdm(total=total, initial=offset, unit="B", unit_scale=True, desc=part.name, disable=not progress) as bar,
        ):
            for chunk in response.iter_content(_PIECE):
                file.write(chunk)
                bar.update(len(chunk))
        have = part.stat().st_size
    if total is not None and have < total:
        return False
    marker.unlink(missing_ok=True)
    return True


def _raise_if_full(error: BaseException) -> None:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _FULL:
            raise OSError(cause.errno, "the disk is full; what has arrived is kept, so free some space and go on")
        cause = cause.__cause__ or cause.__context__


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _bytes_below(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def _read_record(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (json.JSONDecodeError, TypeError, ValueError) as error:
        raise DownloadError(f"{path}: the record of downloads is damaged; move it away to trust anew") from error
