"""Downloads that survive cut lines, wrong bytes, quotas and interruptions; `get` turns them into a registered set.

Bytes arrive in `NAME.part` and become `NAME` only once size, kind and sha256 are right. They are counted while they
arrive: what sends more than an archive can hold is given up. No publisher of a rain set states a checksum: the first
file that proves right is recorded (trust on first use), and every later one must agree. What comes as many files, from
a model hub or a folder on Drive, is packed as a tar here, the same bytes for the same files.
"""

import datetime
import errno
import json
import os
import re
import shutil
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from time import sleep
from typing import Any
from urllib.parse import quote

from filelock import FileLock, Timeout
from tqdm import tqdm

from manas_lite.data import registry
from manas_lite.data.registry import Archive
from manas_lite.data.unpack import ArchiveError, is_archive, unpack_archive
from manas_lite.photos.hub import Address, HubError, data_files
from manas_lite.runs.checkpoint import clear_leftovers, sha256_of, write_atomic, write_whole
from manas_lite.runs.documents import LARGEST_JSON, document, one_line, read_json
from manas_lite.runs.settings import plain

ATTEMPTS = 6
"""Attempts without a byte after which a source is given up."""

TIMEOUT = (15, 60)
"""Seconds to connect, and between bytes."""

_PIECE = 1 << 16
_FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
_HTML = re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*<(?:!doctype html|html|head|\?xml)", re.IGNORECASE)
_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]+/([0-9]+|\*)")
_NUMBER = re.compile(r"[0-9]{1,18}")  # what str.isdigit takes for one may be none to int
_VALIDATOR = re.compile(r"(?!W/)[!-~][ -~]*")
_WEB_PAGE = "an HTML page came instead of the archive (a quota, a login, or a moved file)"


@dataclass(frozen=True)
class _Remembered:
    """What is kept of an archive that proved right."""

    size: int | None
    sha256: str | None
    source: str = ""
    first_seen: str = ""


@dataclass(frozen=True)
class _Record:
    archives: dict[str, _Remembered]


class DownloadError(RuntimeError):
    """A source did not deliver the file; the message says which and why."""


def get(
    name: str,
    root: str | os.PathLike[str] | None = None,
    *,
    given: str | os.PathLike[str] | None = None,
    cache: str | os.PathLike[str] | None = None,
    mirrors: Sequence[str] = (),
    progress: bool = True,
) -> Path:
    """Return the folder of a registered set, downloaded and unpacked where it is not there.

    Sources, in order: the archive at `given`, the verified one kept below `root`, the class cache, `mirrors`, then the
    registry's model hub, addresses and Google Drive. An archive that cannot be unpacked, or holds no pictures of the
    set, counts as none: the next source is asked. Two calls at once work one after the other.

    Args:
        name: the set's name in the registry.
        root: where sets are kept (see `data_folder`).
        given: an archive of the set that is there already.
        cache: a class cache, a folder or an address of archives beside their record.json; None takes
            $MANAS_LITE_CLASS_CACHE.
        mirrors: addresses to try first.

    Raises:
        DownloadError: no source delivers; the message ends in the steps to take by hand.
        ArchiveError: the archive at `given` must not be unpacked, or is of something else.
        ValueError: no set has this name.
    """
    chosen, base = registry.data_set(name), registry.data_folder(root)
    where, archives = base / chosen.folder, base / "archives"

    def complete() -> bool:
        return registry.holds_pictures(where) and not registry.count_differences(
            chosen, registry.list_set(chosen, base)
        )

    if complete():
        return where
    if not chosen.archives:
        raise DownloadError(f"{chosen.name} cannot be downloaded automatically.\n{registry.manual_steps(chosen, base)}")
    if given is not None and len(chosen.archives) != 1:
        raise ValueError(f"{chosen.name} comes in {len(chosen.archives)} archives: put them in {archives}")
    archives.mkdir(parents=True, exist_ok=True)
    fetched = []
    cache = cache or os.environ.get("MANAS_LITE_CLASS_CACHE")
    lock = FileLock(archives / ".lock")
    try:
        alone = lock.acquire(timeout=0)
    except Timeout:
        print(f"another download into {archives} is at work: waiting until it is done", file=sys.stderr)
        alone = lock.acquire()
    with alone:
        if complete():  # by the one that was waited for
            return where
        for item in map(registry.archive, chosen.archives):
            item = replace(item, mirrors=(*mirrors, *item.mirrors))
            into = base / item.into
            inner = where.relative_to(into) if where.is_relative_to(into) else Path()

            def look(files: Path, inner: Path = inner) -> None:
                if not registry.holds_pictures(files / inner):
                    raise ArchiveError(f"unpacks, but holds no folder {chosen.folder} of pictures: another archive")

            unpack = partial(unpack_archive, into=into, limit=item.unpacked_limit, progress=progress, look=look)
            if given is not None:
                path = Path(given)
                verify(path, item, archives)
                unpack(path)
            else:
                try:
                    path = fetch(item, archives, progress=progress, trust=False, use=unpack, cache=str(cache or ""))
                except DownloadError as error:
                    raise DownloadError(f"{error}\nBy hand:\n{registry.manual_steps(chosen, base)}") from error
            fetched.append((path, item))
        if complete():  # what is not the set must not become the measure
            for path, item in fetched:
                remember(path, item, archives, source=str(given or "download"))
    return where


def record(name: str, root: str | os.PathLike[str] | None = None) -> Path:
    """Write size, sha256 and revision of a set's archives, as they proved right here, into the table; return its file.

    Raises:
        DownloadError: they have not proved right.
    """
    known, found = _read_record(registry.data_folder(root) / "archives" / "record.json"), {}
    for each in registry.data_set(name).archives:
        if each not in known:
            raise DownloadError(f"{each} did not prove right yet: get {name}, with all the pairs that it should have")
        found[each] = {"size": known[each].size, "sha256": known[each].sha256}
        if known[each].source.startswith("hub:"):
            found[each]["hub"] = known[each].source.removeprefix("hub:")
    return registry.record_archives(found)


def fetch(
    item: Archive,
    folder: Path,
    *,
    progress: bool = True,
    trust: bool = True,
    use: Callable[[Path], object] = Path.stat,
    cache: str = "",
) -> Path:
    """Return the verified archive in a folder: the one already there, else from its sources in turn.

    An archive that is there, but wrong or damaged, is set aside under another name.

    Args:
        folder: where it is kept, with the record of what proved right.
        trust: record a first download at once. False leaves that to a caller who first looks into it (`remember`).
        use: is called with each archive that seems right, and unpacks it, say; an ArchiveError of it says that this
            one is damaged, and the next source is asked.
        cache: a folder, or an address, of verified archives to ask first.

    Raises:
        DownloadError: all sources have failed; the message gives the reason of each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    clear_leftovers(folder)
    known = _read_record(folder / "record.json").get(item.name)  # a damaged one is no fault of the archives
    path = folder / item.name
    failures = []
    if path.exists():
        try:
            verify(path, item, folder)
            use(path)
            return path
        except (DownloadError, ArchiveError) as error:
            names = (path.with_name(f"{path.name}.damaged{number or ''}") for number in count())
            aside = path.replace(next(name for name in names if not name.exists()))
            failures.append(f"{error} (it is set aside as {aside})")
            print(f"{failures[-1]}; fetching it anew", file=sys.stderr)
    most = item.size or item.unpacked_limit
    sources: list[tuple[str, Callable[[Path], None]]] = []
    if cache:
        sources.append((f"class cache {cache}", partial(_fetch_cached, item, cache, progress=progress, most=most)))
    if item.hub:  # a revision that was taken once is taken again
        hub = Address.parse(known.source if known and known.source.startswith("hub:") else item.hub)
        sources.append((str(hub), partial(_fetch_hub, hub, skip=item.hub_skip, most=most)))
    sources += [(url, partial(fetch_url, url, size=item.size, most=most, progress=progress)) for url in item.mirrors]
    for kind, drive in {"file": item.drive, "folder": item.drive_folder}.items():
        if drive:
            bring = partial(fetch_drive, drive, progress=progress, most=most, folder=kind == "folder")
            sources.append((f"Drive {kind} {drive}", bring))
    for number, (name, source) in enumerate(sources):
        part = folder / f"{item.name}.{number}.part"  # a part for each source: their bytes must not be mixed
        arrived = False
        try:
            source(part)
            arrived = True
            verify(part, item, folder)
            os.replace(part, path)
            use(path)
        except (DownloadError, HubError, ModuleNotFoundError, ValueError) as error:  # also an address that is none
            if isinstance(error, HubError):
                _raise_if_full(error)
            extra = ": pip install 'manas_lite[data]'" if getattr(error, "name", None) else ""
            failures.append(f"{name}: {str(error).removeprefix(f'{name}: ')}{extra}")
            if arrived:  # or it would be resumed, or taken for right
                part.unlink(missing_ok=True)
                path.unlink(missing_ok=True)
            continue
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
    known = _read_record(record_file).get(item.name, _Remembered(None, None))
    size, expected = item.size or known.size, item.sha256 or known.sha256
    origin = f"the first download; if that one was wrong, take its entry out of {record_file}"
    if not path.is_file():
        raise DownloadError(f"{path}: is no regular file, as an archive is, but nothing, a folder, a pipe or a device")
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
        with suppress(tarfile.TarError), tarfile.open(path, "r:") as tar:
            packed = tar.pax_headers.get("comment", "")  # `_pack` wrote it, unless this tar came from somewhere else
            if item.hub and packed.startswith(f"hub:{Address.parse(item.hub).repository}@"):
                source = packed
        known[item.name] = _Remembered(path.stat().st_size, sha256_of(path), source, now)
        write_atomic(record_file, json.dumps(plain(known), indent=1).encode())


def _fetch_cached(item: Archive, cache: str, part: Path, progress: bool, most: int) -> None:
    """Copy an archive, and the record that it must agree with, from a class cache."""
    records = part.with_name(f"{part.name}.class")
    shutil.rmtree(records, ignore_errors=True)
    records.mkdir()
    for name, to in (("record.json", records / "record.json"), (item.name, part)):
        if "://" in cache:
            fetch_url(f"{cache.rstrip('/')}/{quote(name)}", to, None, progress and to == part, most)
        elif (Path(cache) / name).is_file():
            shutil.copyfile(Path(cache) / name, to)
        else:
            raise DownloadError(f"{name} is not there")
    if item.name not in _read_record(records / "record.json"):
        raise DownloadError(f"its record.json does not state {item.name}: get the set where the cache is made")
    try:
        verify(part, item, records)
    except DownloadError:
        part.unlink()  # or it would be resumed
        raise


def _fetch_hub(address: Address, part: Path, skip: Sequence[str], most: int) -> None:
    """Download a repository of data from a model hub, and pack it as a tar that remembers its revision."""
    folder = part.with_name(f"{part.name}.hub")
    revision, names = data_files(address, folder, skip, most)
    if not address.pinned:
        print(f"{address} is not pinned: this is revision {revision}; --record keeps it in the table", file=sys.stderr)
    _pack(folder, names, part, str(Address(address.repository, revision)))


def _pack(folder: Path, names: Iterable[str], part: Path, source: str) -> None:
    """Pack files of a folder into a tar whose bytes depend on them and on `source` alone; remove the folder."""
    with tarfile.open(part, "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": source}) as tar:
        for name in sorted(names):
            info = tarfile.TarInfo(name)
            info.size = (folder / name).stat().st_size
            with open(folder / name, "rb") as file:
                tar.addfile(info, file)
    shutil.rmtree(folder)


def fetch_url(url: str, part: Path, size: int | None, progress: bool = True, most: int | None = None) -> None:
    """Download a URL to `part`, going on where an earlier attempt was cut.

    A line that is cut is taken up again, as long as each attempt brings bytes. 429 and 5xx are waited for, as
    the server asks (at most a minute). A server without ranges, or a file that has changed, starts from the
    beginning. Bytes are written as they come over the line, whatever coding the server says that they are in.

    Args:
        part: the file to write.
        size: bytes that the file must have, where known.
        most: bytes that may be written, where `size` is not known.

    Raises:
        DownloadError: the address does not deliver, or sends more than it may.
        OSError: the disk is full.
    """
    import requests
    import urllib3

    failures = 0
    with requests.Session() as session:
        while True:
            before = part.stat().st_size if part.exists() else 0
            try:
                if _attempt(session, url, part, size, size or most, progress):
                    return
                reason = "the line was cut"
                delay = 0.5 * 2**failures
            except _Busy as busy:
                reason, delay = str(busy), min(busy.seconds or 2.0**failures, 60.0)
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                _raise_if_full(error)
                reason, delay = f"{type(error).__name__}: {error}", 0.5 * 2**failures
            except OSError as error:
                _raise_if_full(error)
                raise
            after = part.stat().st_size if part.exists() else 0
            failures = 0 if after > before else failures + 1
            if failures >= ATTEMPTS:
                raise DownloadError(f"{reason} ({ATTEMPTS} attempts without a byte; what came is kept in {part.name})")
            sleep(delay)


def fetch_drive(file_id: str, part: Path, progress: bool = True, most: int | None = None, folder: bool = False) -> None:
    """Download a Google Drive file by its id with gdown (the arguments that versions 5.2 and 6 share).

    Args:
        file_id: the file, or the folder, whose files are packed as a tar. gdown 5 refuses folders of over 50 files.
        part: the file to write.
        most: bytes that may be written. On Windows, which limits no file, more is refused only when it has come.
        folder: the id is that of a folder.

    Raises:
        DownloadError: Drive does not deliver.
    """
    import gdown

    home = part.with_name(part.name + ".gdown")  # its own: gdown resumes any NAME*.part it finds
    home.mkdir(exist_ok=True)
    output = home / "file"
    download = gdown.download_folder if folder else gdown.download
    for attempt in range(ATTEMPTS):
        before = _bytes_below(home)
        try:
            with _no_file_beyond(most):
                done = download(id=file_id, output=str(output), resume=True, quiet=not progress, use_cookies=False)
        except Exception as error:  # gdown raises its own classes, requests' and KeyError, by version
            _refuse_beyond(most, home)
            _raise_if_full(error)
            reason = f"{type(error).__name__}: {one_line(str(error))}"
            if reason.startswith("FileURLRetrievalError"):
                raise DownloadError(f"Drive refuses (quota or permission): {reason}") from error
        else:
            if done and output.exists():
                _refuse_beyond(None if most is None else most + 1, home)
                if folder:
                    names = [path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()]
                    _pack(output, names, part, f"Drive folder {file_id}")
                else:
                    os.replace(output, part)
                shutil.rmtree(home)
                return
            reason = "gdown brought nothing"
        if _bytes_below(home) == before and attempt >= 2:
            break
        sleep(0.5 * 2**attempt)
    raise DownloadError(f"{reason} (what came is kept in {home.name})")


@contextmanager
def _no_file_beyond(most: int | None) -> Iterator[None]:
    """Let the system refuse, with an OSError, what would make any file of this process larger than `most` bytes."""
    if most is None or os.name != "posix":
        yield
        return
    import resource

    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    limits = [limit for limit in (most, *old) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_FSIZE, (min(limits), old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def _refuse_beyond(most: int | None, folder: Path) -> None:
    """Give a download up that has written `most` bytes and would go on; nothing of it is kept."""
    if most is not None and _bytes_below(folder) >= most:
        shutil.rmtree(folder)
        raise DownloadError("it is more than this archive can have")


class _Busy(Exception):
    """The server asks to wait, for a number of seconds if it says so."""

    def __init__(self, status: int, retry_after: str) -> None:
        super().__init__(f"the server answers {status}")
        self.seconds = float(retry_after) if _NUMBER.fullmatch(retry_after) else None


def _attempt(session: Any, url: str, part: Path, size: int | None, most: int | None, progress: bool) -> bool:
    """Make one request; return True when the file is complete, False when the line was cut."""
    marker = part.with_name(part.name + ".etag")
    offset = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"}
    if offset and not marker.exists():
        offset = 0  # nothing says that the bytes here belong to the file there
    if offset:
        headers |= {"Range": f"bytes={offset}-", "If-Range": marker.read_text("ascii")}
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
        total = offset + int(stated) if stated and _NUMBER.fullmatch(stated) else None
        if size is not None and total is not None and total != size:
            raise DownloadError(f"the server offers {total:,} bytes, expected {size:,}")
        if most is not None and total is not None and total > most:
            raise DownloadError(f"the server offers {total:,} bytes, more than the {most:,} that this archive can have")
        validator = response.headers.get("ETag") or response.headers.get("Last-Modified")
        if validator and _VALIDATOR.fullmatch(validator):
            marker.write_text(validator, "ascii")
        else:
            marker.unlink(missing_ok=True)
        have = offset
        with (
            open(part, "ab" if offset else "wb", buffering=0) as file,  # what has come is on the disk, whatever follows
            tqdm(total=total, initial=offset, unit="B", unit_scale=True, desc=part.name, disable=not progress) as bar,
        ):
            while piece := response.raw.read1(_PIECE, decode_content=False):
                have += len(piece)
                if most is not None and have > most:
                    file.truncate(0)  # nothing of it is worth going on with
                    raise DownloadError(f"the server sends more than the {most:,} bytes that this archive can have")
                write_whole(file, piece)
                bar.update(len(piece))
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


def _bytes_below(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def _read_record(path: Path) -> dict[str, _Remembered]:
    if not path.exists():
        return {}
    try:
        return document(_Record, {"archives": read_json(path, LARGEST_JSON)}, path).archives
    except ValueError as error:
        raise DownloadError(
            f"{path}: the record of downloads is damaged ({error}); move it away to trust anew"
        ) from error
