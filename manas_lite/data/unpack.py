"""Unpacking archives that strangers made: nothing leaves the folder, nothing links, nothing fills the disk.

All limits are counted while the archive is read: bytes, members, and how deep folders are nested.
"""

import bz2
import errno
import glob
import gzip
import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from filelock import FileLock, Timeout
from tqdm import tqdm

from manas_lite.runs.documents import about

MEMBERS = 90_000
"""Members that an archive may hold, folders included; the largest registered one holds some 32,000 pictures."""

DEPTH = 32
"""Folders that a member may lie in."""

_ENDINGS = {".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz"}
_RATIO, _SMALL = 100, 64 << 20  # bytes unpacked per byte of the archive, which pictures never reach, and for free
_PIECE = 1 << 20
_RESERVE = 64 << 20  # bytes left free on the disk
_SLACK = 4 << 20  # bytes of a tar that are no content: padding at its end, and long headers
_HEADER = 4096  # bytes of a tar per member that are no content
_ODD_NAMES = {errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EILSEQ}


class _Member(NamedTuple):
    """What an archive says of one of its members."""

    name: str
    size: int
    folder: bool
    regular: bool
    opened: Callable[[], Any]


@dataclass
class _Spent:
    """What has been unpacked of an archive and of those in it."""

    members: int = 0
    size: int = 0


class ArchiveError(ValueError):
    """An archive is broken, or no careful person would unpack it; the message names it and the member."""


def is_archive(path: str | os.PathLike[str]) -> bool:
    """Tell whether the file's own bytes, not its name, are those of a zip or tar."""
    return _tar_opener(Path(path)) is not None or zipfile.is_zipfile(path)


def unpack_archive(
    path: str | os.PathLike[str],
    into: str | os.PathLike[str],
    limit: int,
    progress: bool = False,
    look: Callable[[Path], object] = Path.stat,
) -> Path:
    """Unpack a zip or tar (also compressed) into the folder `into` and return it; archives in it become folders.

    Files are unpacked beside `into` and moved there at the end, so an interruption leaves no half-filled folder. What
    a killed process left beside it is removed.

    Args:
        into: the folder to fill; files that are there already stay, or are replaced by those of the same name.
        limit: bytes that the members may hold in all; fewer of an archive that is much smaller.
        look: is called with the folder of what was unpacked, before anything is moved; an error of it refuses the lot.

    Raises:
        ArchiveError: the archive is damaged, or holds absolute members, `..`, links and devices, encrypted members,
            more than `limit` bytes, more than `MEMBERS` members, folders nested deeper than `DEPTH`, or two members for
            one place. Nothing is left of it then. What a member really holds is counted, for an archive may lie.
        OSError: the disk has no room for it.
    """
    path, into = Path(path), Path(into)
    limit = min(limit, _SMALL + _RATIO * (path.stat().st_size if path.is_file() else 0))
    into.parent.mkdir(parents=True, exist_ok=True)
    for leftover in into.parent.glob(f".{glob.escape(into.name)}.*.unpacking"):
        with suppress(Timeout), FileLock(leftover / ".lock", timeout=0):  # the system frees the lock of one that died
            shutil.rmtree(leftover, ignore_errors=True)
    workspace = Path(tempfile.mkdtemp(dir=into.parent, prefix=f".{into.name}.", suffix=".unpacking"))
    try:
        with FileLock(workspace / ".lock"):
            with about(path, ArchiveError):
                _unpack(path, workspace / "files", limit, progress, spent := _Spent())
                for inner in sorted(p for p in (workspace / "files").rglob("*") if p.suffix.lower() in _ENDINGS):
                    if inner.is_file() and is_archive(inner):  # as repositories of data hold them, one level deep
                        with about(inner.name, ArchiveError):
                            _unpack(inner, inner.with_suffix(""), limit, progress, spent)
                        inner.unlink()
                look(workspace / "files")
                _check_room(workspace / "files", into)
            _move_all(workspace / "files", into)
    finally:
        shutil.rmtree(workspace, ignore_errors=True)
    return into


def _unpack(path: Path, folder: Path, limit: int, progress: bool, spent: _Spent) -> None:
    free, before = shutil.disk_usage(folder.parent).free, spent.size
    name, names = folder.name, set[str]()
    try:
        folder.mkdir(exist_ok=True)
        with (
            _members(path) as (stated, members),
            tqdm(total=stated or None, unit="B", unit_scale=True, desc="unpacking", disable=not progress) as bar,
        ):
            for member in members:
                spent.members += 1
                if spent.members > MEMBERS:
                    raise ArchiveError(
                        f"holds {spent.members:,} members or more, and {MEMBERS:,} are the most of a set"
                    )
                if member.folder:
                    continue
                spent.size += member.size
                total = max(before + stated, spent.size)
                if total > limit:
                    raise ArchiveError(f"unpacks to {total:,} bytes, more than the {limit:,} this set can need")
                if total - before + _RESERVE > free:
                    raise OSError(
                        errno.ENOSPC,
                        f"{path}: needs {total:,} bytes below {folder.parents[1]}, where {free:,} are free",
                    )
                target = folder / (name := _safe_name(member))
                target.parent.mkdir(parents=True, exist_ok=True)
                again = name in names  # else it must be new: A.png and a.png are one file on some disks
                names.add(name)
                with member.opened() as source, open(target, "wb") if again else open(target, "xb") as file:
                    _copy(source, file, member)
                bar.update(member.size)
    except (ArchiveError, MemoryError):
        raise
    except Exception as error:  # decoders let slip whatever their arithmetic on broken bytes raises
        number = error.errno if isinstance(error, OSError) else None
        if number in _ODD_NAMES:
            raise ArchiveError(
                f"{name[-80:]!r} cannot be made beside what else it holds ({os.strerror(number)})"
            ) from None
        if number not in (None, errno.EINVAL):
            raise  # the disk's fault; decoders raise OSError without a number
        raise ArchiveError(f"is broken or of an unknown kind ({error}); download it again") from error


@contextmanager
def _members(path: Path) -> Iterator[tuple[int, Iterator[_Member]]]:
    """Yield the bytes that the archive states (0 where only reading it tells) and an iterator over its members."""
    if not path.is_file():
        raise ArchiveError("is no regular file; name the archive itself")
    if opener := _tar_opener(path):
        with opener(path, "rb") as file:
            yield 0, _tar_members(_Counted(file))
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield sum(info.file_size for info in archive.infolist()), _zip_members(archive)
    else:
        raise ArchiveError("is neither a zip nor a tar; unpack it by hand into the set's folder")


def _tar_opener(path: Path) -> Callable[..., Any] | None:
    """Return what opens the file so that its first bytes are a tar's header, or None where nothing does."""
    for opener in (open, gzip.open, bz2.open, lzma.open):
        with (
            suppress(tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError),
            opener(path, "rb") as file,
        ):
            tarfile.TarInfo.frombuf(file.read(tarfile.BLOCKSIZE), "utf-8", "surrogateescape")
            return opener
    return None


class _Counted:
    """A tar's decompressed bytes, of which no more may be read than its headers have stated so far."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.allowed = file, _SLACK

    def read(self, count: int) -> bytes:
        piece = self.file.read(count)
        self.allowed -= len(piece)
        if self.allowed < 0:
            raise ArchiveError("holds more bytes than its members state, which is refused")
        return piece


class _Header(tarfile.TarInfo):
    """A member's header. tarfile takes a damaged or missing one for the end of the archive; here it is an error."""

    @classmethod
    def fromtarfile(cls, tarfile_: Any) -> Any:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # the two empty blocks of a tar's end
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"its list of members ends in {error}") from error


def _tar_members(stream: _Counted) -> Iterator[_Member]:
    with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header) as archive:  # type: ignore[call-overload]
        for info in archive:
            stream.allowed += _HEADER + (0 if info.isdir() else info.size)  # within the limit, or no more is read
            yield _Member(info.name, info.size, info.isdir(), info.isreg(), partial(archive.extractfile, info))
    while stream.read(_PIECE):  # to the end, where a compressed file has its checksum
        pass


def _zip_members(archive: zipfile.ZipFile) -> Iterator[_Member]:
    for info in archive.infolist():
        if info.flag_bits & 1:
            raise ArchiveError(f"member {info.filename!r} is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # zipfile unpacks others unbounded
            method = f"by method {info.compress_type}, not by deflate"
            raise ArchiveError(f"member {info.filename!r} is packed {method}; pack the archive anew")
        regular = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
        yield _Member(info.filename, info.file_size, info.is_dir(), regular, partial(archive.open, info))


def _safe_name(member: _Member) -> str:
    """Return the path of a member below the folder to fill; refuse a member that is no file in it."""
    parts = PurePosixPath(member.name.replace("\\", "/")).parts
    if not member.regular:
        raise ArchiveError(f"member {member.name!r} is a link or device, which is refused")
    if not parts or parts[0].startswith("/") or ".." in parts or ":" in parts[0] or "\0" in member.name:
        raise ArchiveError(f"member {member.name!r} would be written outside the folder, which is refused")
    if len(parts) - 1 > DEPTH:
        depth = f"{len(parts) - 1:,} folders deep"
        raise ArchiveError(f"member {member.name[:40]!r}... lies {depth}, and {DEPTH} are the most")
    return "/".join(parts)


def _copy(source: IO[bytes], file: IO[bytes], member: _Member) -> None:
    name, size, written = member.name, member.size, 0
    while chunk := source.read(_PIECE):
        written += len(chunk)
        if written > size:
            raise ArchiveError(f"member {name!r} holds more than the {size:,} bytes it states, which is refused")
        file.write(chunk)
    if written != size:
        raise ArchiveError(f"member {name!r} ends after {written:,} of {size:,} bytes; download it again")


def _check_room(source: Path, into: Path) -> None:
    """Raise ArchiveError where a file would have to take the place of a folder that is there, or a folder of a file."""
    for path in source.rglob("*"):
        place = into / path.relative_to(source)
        if place.exists() and place.is_dir() != path.is_dir():
            raise ArchiveError(f"holds {path.name!r}, and {place} is in its way: only one of them is a folder")


def _move_all(source: Path, into: Path) -> None:
    """Move a file or a tree, merging with folders that are there: two archives may fill one."""
    if not (source.is_dir() and into.is_dir()):
        os.replace(source, into)
        return
    for child in sorted(source.iterdir()):
        _move_all(child, into / child.name)
