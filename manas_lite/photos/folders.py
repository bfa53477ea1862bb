"""Many pictures at once: derain one folder (the frames of a video, say) into another, and say how long that takes."""

import hashlib
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from torch import nn

from manas_lite.compute.footprint import is_out_of_memory
from manas_lite.compute.runtime import ComputeSettings
from manas_lite.draw.sheets import contact_sheet, thumbnail
from manas_lite.photos.images import check_ending, image_size, is_hidden, write_image
from manas_lite.photos.inference import DivergedNetworkError, check_replacing, derain, seconds_per_pixel
from manas_lite.photos.photographs import PHOTOGRAPHS, open_photograph
from manas_lite.photos.zoo import fingerprint
from manas_lite.runs.checkpoint import clear_leftovers, write_atomic
from manas_lite.runs.documents import first_few
from manas_lite.runs.progress import Progress
from manas_lite.runs.record import BusyError

LONG = 10.0
"""Seconds that somebody waits without having been told."""

SHEET = 200
"""Pictures of one contact sheet: at most 100 rows of 500 pixels, of the 65,500 that a JPEG can hold."""

QUICK = 500_000
"""Pixels that no network of this kit needs `LONG` seconds for: not worth a measurement."""


@dataclass(frozen=True)
class FolderResult:
    """What became of the pictures in a folder."""

    written: tuple[Path, ...]
    """The derained files."""
    failed: tuple[tuple[Path, str], ...]
    """(file, reason) of those left out."""

    def __str__(self) -> str:
        return f"{len(self.written)} of {len(self.written) + len(self.failed)} pictures derained"


def derain_folder(
    folder: Path,
    output: Path,
    net: nn.Module,
    *,
    sheet: Path | None = None,
    say: Callable[[str], None] = print,
    complain: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
    **options: Any,
) -> FolderResult:
    """Derain every picture directly in `folder` into `output`, which is made where it is missing, under its own name.

    A picture that cannot be read, or needs more memory than there is, or whose result is there already, is left out
    and counted; the others are done. The same call after one that was killed does the rest, and ends as one call would.

    Args:
        folder: the folder of pictures. Hidden files, and those whose ending is no picture's, are left out and named.
        output: the folder for the results. Where it is `folder`, `in_place` is needed, and links stay as they are.
        say: is told how long it will take, and each file that is written.
        complain: is told each picture that is left out, and why.
        sheet: also write a contact sheet, before and after, to this file; numbered ones for more than SHEET pictures.
        options: those of `derain`.

    Raises:
        ValueError: the folder has no pictures, `output` is a file, the sheet's ending cannot be written, or a sheet is
            wanted of pictures that are replaced.
        FileExistsError: the sheet exists, or `output` is `folder`.
        OSError: a folder cannot be written to. All of these are raised before any work.
        BusyError: another process replaces the pictures of this folder.
        DivergedNetworkError: the network answers with NaN; no other picture would come right.
    """
    if output.exists() and not output.is_dir():
        raise ValueError(f"{folder} is a folder, so {output} must be one too, and it is a file")
    in_place, overwrite = options.get("in_place", False), options.get("overwrite", False)
    check_replacing(folder, output, overwrite, in_place)
    if in_place and sheet:
        raise ValueError("a contact sheet shows the originals too: name another output folder, or leave the sheet out")
    pictures, others = _listed(folder)
    if hidden := sorted(p.name for p in folder.iterdir() if p.suffix.lower() in PHOTOGRAPHS and is_hidden(p.name)):
        say(f"{len(hidden)} hidden or system files are left out, such as {hidden[0]}")
    if others:
        say(f"{len(others)} files are left out, whose endings are no picture's: {first_few(others)}")
    written: list[Path] = []
    failed: list[tuple[Path, str]] = []
    own = {os.path.realpath(picture) for picture in pictures if in_place and not picture.is_symlink()}
    for link in [picture for picture in pictures if in_place and picture.is_symlink()]:
        pictures.remove(link)
        if (file := os.path.realpath(link)) in own:
            say(f"{link} is a link to {os.path.basename(file)}, which is derained once")
        else:
            failed.append((link, f"{link}: is a link to {file}, no picture of this folder: derain that one itself"))
            complain(f"skipped: {failed[-1][1]}")
    sheets = [] if sheet is None else _sheets(sheet, len(pictures))
    # The files that a call is going to make stand in a journal until it ends: those that are there when the same call
    # is given again are its own, and whole. What is replaced in place is done when it is no longer as it was.
    choices = [options.get(name) for name in ("strength", "scale", "keep_location", "in_place")]
    journal = output / f".derain-{_mark(fingerprint(net), *choices)[:16]}.unfinished"
    with _alone(output) if in_place else nullcontext():
        known = set(journal.read_text("utf-8", errors="replace").split()) if journal.exists() else set()

        def done(picture: Path) -> bool:
            if in_place:
                return _mark(picture.name) in known and _stamp(picture) not in known
            return not overwrite and _stamp(picture) in known and (output / picture.name).exists()

        for path in sheets:
            if path.exists() and not overwrite and _mark(path) not in known:
                raise FileExistsError(f"{path} exists: name another contact sheet, or set overwrite (--overwrite)")
        for place in {output, *(path.parent for path in sheets)}:
            place.mkdir(parents=True, exist_ok=True)
            if not os.access(place, os.W_OK | os.X_OK):
                raise PermissionError(f"{place}: may not be written to; name another folder")
            clear_leftovers(place)
        marks = {_mark(path) for path in sheets}
        for picture in pictures:
            if _mark(picture.name) not in known and (in_place or not (output / picture.name).exists()):
                marks |= {_mark(picture.name), _stamp(picture)}
        known |= marks
        write_atomic(journal, "\n".join(sorted(known)).encode())
        left = [picture for picture in pictures if not done(picture)]
        warn_if_long(left, net, scale=options.get("scale", 1.0), compute=options.get("compute"), say=say)
        rows: list[tuple[str, list[np.ndarray]]] = []
        with Progress(len(pictures), "derain") as bar:
            for picture in pictures:
                try:
                    path = output / picture.name
                    if picture in left:
                        try:
                            derain(picture, net, output=path, **options)
                        except FileExistsError:
                            if not done(picture):  # the same call in another process has made it meanwhile
                                raise
                    if sheets:
                        rows.append((picture.name, [thumbnail(open_photograph(p).pixels) for p in (picture, path)]))
                except DivergedNetworkError:
                    raise
                except (ValueError, OSError, MemoryError, RuntimeError) as error:
                    full = is_out_of_memory(error)
                    if isinstance(error, RuntimeError) and not full:
                        raise
                    reason = f"{picture}: needs more memory than there is {error}".rstrip() if full else str(error)
                    failed.append((picture, reason))
                    complain(f"skipped: {reason}")
                else:
                    written.append(path)
                    if not bar.live:
                        say(str(path))
                bar.step()
        for i, path in enumerate(sheets):
            if part := rows[i * SHEET : (i + 1) * SHEET]:
                say(f"contact sheet: {write_image(path, contact_sheet(part))}")
    journal.unlink(missing_ok=True)  # last of all: without it, the same call is a new one
    return FolderResult(tuple(written), tuple(failed))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let no other process replace the pictures of a folder meanwhile: it would take derained ones for originals."""
    path = folder / ".derain.lock"
    try:
        with FileLock(path, timeout=0):  # the system frees the lock of a process that died
            yield
            path.unlink(missing_ok=True)
    except Timeout:
        raise BusyError(f"{folder} is being derained in place by another process: wait for it, or stop it") from None


def _mark(*facts: object) -> str:
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _stamp(picture: Path) -> str:
    """Return a mark that another file of the same name does not have."""
    facts = picture.lstat()
    return _mark(picture.name, facts.st_size, facts.st_mtime_ns)


def _sheets(sheet: Path, pictures: int) -> list[Path]:
    """Return the files of a contact sheet: itself, and `name-2.jpg`, ... where one cannot hold all."""
    check_ending(sheet)
    more = range(2, -(-pictures // SHEET) + 1)
    return [sheet, *(sheet.with_stem(f"{sheet.stem}-{i}") for i in more)]


def _listed(folder: Path) -> tuple[list[Path], list[str]]:
    """Return the pictures directly in a folder, by name, and the names of the other files; hidden ones are neither."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    shown = sorted(path for path in folder.iterdir() if not is_hidden(path.name))
    pictures = [path for path in shown if path.suffix.lower() in PHOTOGRAPHS]
    others = [path.name for path in shown if path.suffix.lower() not in PHOTOGRAPHS and path.is_file()]
    if not pictures:
        files = f", but {len(others)} other files: {first_few(others)}" if others else ""
        raise ValueError(f"{folder} holds no image ({', '.join(sorted(PHOTOGRAPHS))}){files}")
    return pictures, others


def warn_if_long(
    pictures: list[Path],
    net: nn.Module,
    *,
    scale: float = 1.0,
    compute: ComputeSettings | None = None,
    say: Callable[[str], None] = print,
    rate: Callable[[nn.Module, ComputeSettings | None], float] = seconds_per_pixel,
) -> float | None:
    """Say how long deraining these files will take, where that is longer than `LONG` seconds, and return the seconds.

    `rate` measures the seconds per pixel. It is not called, and None is returned, for what is quick anywhere. Files
    that cannot be read count nothing.
    """
    pixels = 0
    for picture in pictures:
        with suppress(ValueError, OSError):
            pixels += math.prod(image_size(picture))
    if not 0 < scale <= 1 or pixels * scale**2 <= QUICK:  # such a scale is refused by `derain` in a moment
        return None
    seconds = rate(net, compute) * pixels * scale**2
    if seconds > LONG:
        count = "1 picture" if len(pictures) == 1 else f"{len(pictures)} pictures"
        at = "" if scale == 1 else f" at scale {scale:g}"
        say(f"{count}, {pixels / 1e6:.1f} megapixels{at}: about {duration(seconds)} here")
    return seconds


def duration(seconds: float) -> str:
    """Return a duration in rounded words.

    Example:
        >>> duration(42), duration(200), duration(9000)
        ('40 s', '3 min', '2.5 h')
    """
    if seconds < 90:
        return f"{round(seconds, -1):.0f} s" if seconds >= 10 else f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
