"""`check`: what a folder of deraining data really holds, in one report; and bad files, found before training does."""

import os
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from manas_lite.data.grouping import Parts, group_scenes
from manas_lite.data.layouts import list_folder
from manas_lite.data.listing import Listing, Pair
from manas_lite.data.pictures import Picture
from manas_lite.data.registry import DataSet, count_differences
from manas_lite.data.similarity import hide_bar
from manas_lite.metrics import psnr
from manas_lite.photos.images import ImageError, conversions, to_tensor


@dataclass
class Report:
    """What was met while every picture of a listing was decoded."""

    counts: Counter[str] = field(default_factory=Counter)
    """How many pictures were read, converted in each way, and refused."""
    problems: list[tuple[str, str]] = field(default_factory=list)
    """(file, reason) of what was refused."""

    def refuse(self, path: str, reason: str) -> None:
        """Count and name a file that cannot be used."""
        self.counts["refused"] += 1
        self.problems.append((path, reason))

    def __str__(self) -> str:
        lines = [f"{count:6,}  {what}" for what, count in sorted(self.counts.items())]
        return "\n".join(lines + [f"        {reason}" for _, reason in self.problems])


def audit_listing(listing: Listing, strict: bool = True, progress: bool | None = None) -> tuple[Listing, Report]:
    """Decode every picture of a listing once; return the listing without bad ones, and the report.

    Args:
        strict: True raises at the first bad file, naming it. False leaves out the pairs it belongs to and counts it.
        progress: show a bar; None: from 500 pictures on.

    Raises:
        ImageError, FileNotFoundError: a file is bad and `strict` is on.
        ValueError: a file has no twin and `strict` is on.
        LeakError: a file is sealed.
    """
    report = Report()
    for path, reason in listing.problems:
        if strict:
            raise ValueError(f"{path} {reason}; mend it, take it away, or pass strict=False to leave it out")
        report.refuse(path, f"{path} {reason}")
    seen: dict[Path, bool] = {}  # file -> usable: the other half of a file, or a clean picture under many rains
    hidden = hide_bar(len(listing.pairs) + len(listing.photos), progress)

    def usable(*pictures: Picture) -> bool:
        for picture in pictures:  # all of them: each is to be counted
            if picture.path not in seen:
                seen[picture.path] = _readable(picture, report, strict)
        return all(seen[picture.path] for picture in pictures)

    pairs = [p for p in tqdm(listing.pairs, desc="checking pictures", disable=hidden) if usable(p.clean, p.rainy)]
    photos = [p for p in tqdm(listing.photos, desc="checking pictures", disable=hidden) if usable(p.picture)]
    return replace(listing, pairs=pairs, photos=photos, problems=[]), report


def _readable(picture: Picture, report: Report, strict: bool) -> bool:
    try:
        picture.read()
        kinds = conversions(picture.path)
    except (ImageError, FileNotFoundError) as error:
        if strict:
            raise
        report.refuse(str(picture.path), str(error))
        return False
    report.counts["read"] += 1
    report.counts.update(f"converted: {kind}" for kind in kinds)
    return True


@dataclass(frozen=True)
class PartReport:
    """What one part of a set holds."""

    part: str
    """"train", "val", "test" or "all"."""
    pairs: int
    scenes: int
    sizes: dict[tuple[int, int], int]
    """(height, width) -> number of clean pictures of that size."""
    rains: dict[int, int]
    """R -> number of scenes with that many rainy versions."""
    psnr_y: float | None
    """Mean PSNR of the rainy pictures in dB on luma; None without pairs."""
    psnr_rgb: float | None
    """Mean PSNR of the rainy pictures in dB in RGB; None without pairs."""


@dataclass(frozen=True)
class CheckReport:
    """What `check` found; its `str()` is the report for a person."""

    root: str
    layouts: tuple[str, ...]
    parts: tuple[PartReport, ...]
    files: Report
    notes: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{self.root}", f"layout: {', '.join(self.layouts)}", ""]
        lines += [f"{'part':<6}{'pairs':>8}{'scenes':>8}{'PSNR Y':>9}{'PSNR RGB':>10}  sizes (width x height)"]
        for part in self.parts:
            scores = [f"{x:.2f}" if x is not None else "-" for x in (part.psnr_y, part.psnr_rgb)]
            common = sorted(part.sizes.items(), key=lambda item: (-item[1], item[0]))
            sizes = ", ".join(f"{w}x{h} ({n:,})" for (h, w), n in common[:4])
            more = f" and {len(common) - 4} more" if len(common) > 4 else ""
            lines.append(f"{part.part:<6}{part.pairs:>8,}{part.scenes:>8,}{scores[0]:>9}{scores[1]:>10}  {sizes}{more}")
        lines += ["", "rainy versions a scene (R): number of scenes"]
        for part in self.parts:
            table = ", ".join(f"{rains}: {count:,}" for rains, count in sorted(part.rains.items()))
            lines.append(f"{part.part:<6}{table or 'photographs without rain of their own'}")
        lines += ["", "files", str(self.files)]
        lines += ["", *(f"note: {note}" for note in self.notes)] if self.notes else []
        return "\n".join(lines)


def check(
    folder: str | os.PathLike[str] | Listing,
    *,
    layout: str | None = None,
    strict: bool = False,
    registered: DataSet | None = None,
    progress: bool | None = None,
) -> CheckReport:
    """Decode every picture of a folder and report counts, sizes, mean PSNR of the rainy pictures, and scenes.

    PSNR is of the rainy against the clean picture, per pair, then averaged, in both conventions of
    `manas_lite.metrics`.

    Args:
        folder: a folder, a CSV file of pairs, or a listing of either.
        layout: how the folder is laid out where detection should not decide.
        strict: True stops at the first bad file; False counts them.
        registered: the set that this should be, whose counts are compared.
        progress: show bars; None: from 500 pictures on.
    """
    listing = folder if isinstance(folder, Listing) else list_folder(folder, layout)
    listing, files = audit_listing(listing, strict, progress)
    notes = listing.notes + listing.remarks + (count_differences(registered, listing) if registered else [])
    if listing.hidden:
        first = listing.hidden[0]
        notes.append(f"{len(listing.hidden)} hidden picture(s), which are no data, such as {first}")
    scenes = group_scenes(listing, registered.group if registered else "auto")
    order = {"train": 0, "val": 1, "test": 2}
    names = {pair.part for pair in listing.pairs} | {photo.part for photo in listing.photos}
    parts = []
    for name in sorted(names, key=lambda part: order.get(part or "", 3)):
        pairs = [pair for pair in listing.pairs if pair.part == name]
        clean = [pair.clean for pair in pairs] + [photo.picture for photo in listing.photos if photo.part == name]
        title, own = name or "all", scenes.get(name, ())
        bar = tqdm(pairs, desc=f"PSNR of {title}", disable=hide_bar(len(pairs), progress))
        scores = np.array([_scores(pair) for pair in bar]).reshape(-1, 2)
        finite = scores[np.isfinite(scores).all(axis=1)]
        if len(finite) < len(pairs):
            notes.append(f"{title}: {len(pairs) - len(finite)} pair(s) are identical and not in the mean PSNR")
        psnr_y, psnr_rgb = finite.mean(axis=0).tolist() if len(finite) else (None, None)
        sizes, rains = Counter(picture.size() for picture in clean), Counter(len(scene.rainy) for scene in own)
        count = len(own) or len(clean)  # a photograph becomes a scene
        parts.append(PartReport(title, len(pairs), count, dict(sizes), dict(rains), psnr_y, psnr_rgb))
    return CheckReport(str(listing.root), tuple(listing.layouts), tuple(parts), files, tuple(notes))


def scene_table(parts: Parts) -> str:
    """Return a table with one line per scene: part, R, name, labels of its rainy versions."""
    lines = [f"{'part':<6}{'R':>3}  scene: rainy versions"]
    for part, scenes in parts.items():
        for scene in scenes:
            labels = ", ".join(scene.labels)
            lines.append(f"{part or 'all':<6}{len(scene.rainy):>3}  {scene.name}: {labels}")
    return "\n".join(lines)


def _scores(pair: Pair) -> tuple[float, float]:
    """Return the PSNR in dB of one pair: on Y, in RGB."""
    rainy, clean = (to_tensor(picture.read())[None] for picture in (pair.rainy, pair.clean))
    with torch.no_grad():
        return float(psnr(rainy, clean, convention="y")), float(psnr(rainy, clean, convention="rgb"))
