"""Unpacking archives that strangers made: nothing leaves the folder, nothing links, nothing fills the disk."""

import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

from tqdm import tqdm

_PIECE = 1 << 20
_RESERVE = 64 << 20  # bytes left free on the disk
Member = tuple[str, int, Callable[[], IO[bytes]]]


class ArchiveError(ValueError):
    """An archive is broken, or no careful person would unpack it; the message names it and the member."""


def is_archive(path: str | os.PathLike[str]) -> bool:
    """Tell whether the file's own bytes, not its name, are those of a zip or tar."""
    return zipfile.is_zipfile(path) or tarfile.is_tarfile(path)


def unpack_archive(
    path: str | os.PathLike[str], into: str | os.PathLike[str], limit: int, progress: bool = False
) -> Path:
    """Unpack a zip or tar (also compressed) into the folder `into` and return it.

    Files are unpacked beside `into` and moved there at the end, so an interruption leaves no half-filled folder.

    Raises:
        ArchiveError: before anything is written, for absolute members, `..`, links and devices, encrypted members,
            and more than `limit` bytes in all. What a member really holds is counted too, for an archive may lie.
        OSError: the disk has no room for it.
    """
    path, into = Path(path), Path(into)
    into.parent.mkdir(parents=True, exist_ok=True)
    workspace = Path(tempfile.mkdtemp(dir=into.parent, prefix=f".{into.name}.", suffix=".unpacking"))
    try:
        with _members(path) as members:
            total = sum(size for _, size, _ in members)
            if total > limit:
                raise ArchiveError(f"{path}: unpacks to {total:,} bytes, more than the {limit:,} this set can need")
            free = shutil.disk_usage(into.parent).free
            if total + _RESERVE > free:
                raise OSError(f"{path}: needs {total:,} bytes below {into.parent}, where {free:,} are free")
            with tqdm(total=total, unit="B", unit_scale=True, desc="unpacking", disable=not progress) as bar:
                for name, size, opened in members:
                    target = workspace / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with opened() as source, open(target, "wb") as file:
                        _copy(source, file, size, f"{path}: member {name!r}")
                    bar.update(size)
        _move_all(workspace, into)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError) as error:
        raise ArchiveError(f"{path}: is broken or of an unknown kind ({error}); download it again") from error
    finally:
        shutil.rmtree(workspace, ignore_errors=True)
    return into


@contextmanager
def _members(path: Path) -> Iterator[list[Member]]:
    """Yield name, stated size and opener of every file, all names checked."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield [_zip_member(path, archive, info) for info in archive.infolist() if not info.is_dir()]
    elif tarfile.is_tarfile(path):
        with tarfile.open(path) as archive:
            yield [
                _member(path, info.name, info.size, partial(archive.extractfile, info), info.isreg())
                for info in archive
                if not info.isdir()
            ]
    else:
        raise ArchiveError(f"{path}: is neither a zip nor a tar; unpack it by hand into the set's folder")


def _zip_member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    if info.flag_bits & 1:
        raise ArchiveError(f"{path}: member {info.filename!r} is encrypted")
    regular = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
    return _member(path, info.filename, info.file_size, partial(archive.open, info), regular)


def _member(path: Path, name: str, size: int, opened: Callable[[], Any], regular: bool) -> Member:
    if not regular:
        raise ArchiveError(f"{path}: member {name!r} is a link or device, which is refused")
    return _safe_name(path, name), size, opened


def _safe_name(path: Path, name: str) -> str:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or parts[0].startswith("/") or ".." in parts or ":" in parts[0] or "\0" in name:
        raise ArchiveError(f"{path}: member {name!r} would be written outside the folder, which is refused")
    return "/".join(parts)


def _copy(source: IO[bytes], file: IO[bytes], size: int, what: str) -> None:
    written = 0
    while chunk := source.read(_PIECE):
        written += len(chunk)
        if written > size:
            raise ArchiveError(f"{what} holds more than the {size:,} bytes it states, which is refused")
        file.write(chunk)
    if written != size:
        raise ArchiveError(f"{what} ends after {written:,} of {size:,} bytes; download it again")


def _move_all(source: Path, into: Path) -> None:
    """Move the tree, merging with folders that are there: two archives may fill one."""
    if not into.exists():
        os.replace(source, into)
        source.mkdir()  # for the clean-up
        os.chmod(into, 0o755)
        return
    for child in sorted(source.iterdir()):
        target = into / child.name
        if child.is_dir() and target.is_dir():
            _move_all(child, target)
        else:
            os.replace(child, target)
