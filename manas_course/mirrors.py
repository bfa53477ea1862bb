"""A notebook's `data` as a web address: a lecturer's archive of pairs or photographs, fetched once and checked."""

import hashlib
import re
from functools import partial
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from manas_lite.data.download import fetch
from manas_lite.data.registry import Archive, data_folder
from manas_lite.data.unpack import unpack_archive

__all__ = ["local"]

LARGEST = 20 * 10**9  # bytes that an archive may unpack to
DRIVE = re.compile(r"https://drive\.google\.com/(?:file/d/|(?:open|uc)\?(?:\S*&)?id=)([\w-]+)")


def local(data: str, root: str | Path | None = None, *, progress: bool = True) -> str:
    """Return what `open_split` takes: `data` itself (a set's name, a folder), or where the archive at an address lies.

    The archive is downloaded (resumed after a cut, recognised when it is a web page, of the same sha256 as the first
    time), unpacked with suspicion, and kept: the next call fetches nothing.

    Args:
        data: a web address is that of a zip or tar with rainy/clean pairs or photographs, in any layout that
            `open_split` knows, or a Google Drive link to one.
        root: where it is kept (default: `manas_lite.data.registry.data_folder`, below `mirrors`).
        progress: show a bar.

    Raises:
        DownloadError: where the address does not deliver an archive, or one that must not be unpacked.
        ModuleNotFoundError: without the `data` extra.
    """
    if not re.match(r"https?://", data):
        return data
    digest = hashlib.sha256(data.encode()).hexdigest()[:8]
    stem = re.sub(r"[^\w-]+", "_", PurePosixPath(urlsplit(data).path).stem) or "archive"
    base = data_folder(root) / "mirrors"
    folder = base / f"{stem}-{digest}"
    if not folder.is_dir():
        drive = DRIVE.match(data)
        source = {"drive": drive[1]} if drive else {"mirrors": (data,)}
        item = Archive(name=f"{folder.name}.archive", into=folder.name, unpacked_limit=LARGEST, **source)
        unpack = partial(unpack_archive, into=folder, limit=LARGEST, progress=progress)
        fetch(item, base / "archives", progress=progress, use=unpack)
    tables = sorted(folder.rglob("pairs.csv"))
    return str(tables[0].parent if tables else folder)
