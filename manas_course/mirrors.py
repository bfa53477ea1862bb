"""Real sets in a notebook: a published one by name, or an archive at a web address; fetched once and checked."""

import hashlib
import re
from functools import partial
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from manas_lite.data.download import fetch, get
from manas_lite.data.registry import Archive, data_folder
from manas_lite.data.unpack import unpack_archive
from manas_lite.runs.record import read_json

__all__ = ["fetched", "local", "receipts"]

LARGEST = 20 * 10**9  # bytes that an archive may unpack to
DRIVE = re.compile(r"https://drive\.google\.com/(?:file/d/|(?:open|uc)\?(?:\S*&)?id=)([\w-]+)")


def fetched(wanted: str, *, progress: bool = True) -> str:
    """Download a published set or the archive at an address, and return what `open_split` takes.

    What is there already is not downloaded again.

    Args:
        wanted: the name of a registered set, such as "rain100l", or an address as `local` takes it.
        progress: show bars.

    Raises:
        DownloadError: where no source delivers; the message ends in the steps to take by hand.
        ValueError: where it is neither an address nor the name of a set.
    """
    if re.match(r"https?://", wanted):
        return local(wanted, progress=progress)
    get(wanted, progress=progress)
    return wanted


def receipts() -> list[str]:
    """Return a line per archive that was downloaded: its name, size, sha256, and where it came from."""
    lines = []
    for record in (data_folder() / part / "archives" / "record.json" for part in ("", "mirrors")):
        if record.is_file():
            for name, kept in read_json(record).items():
                size = f"{kept['size']:,} bytes"
                lines.append(f"{name}: {size}, sha256 {kept['sha256']}, from {kept['source']} on {kept['first_seen']}")
    return lines


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
