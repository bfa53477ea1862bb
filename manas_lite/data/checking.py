"""`check`: what a folder of deraining data really holds, in one report."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from manas_lite.data.audit import Report, audit_listing
from manas_lite.data.getting import count_differences
from manas_lite.data.grouping import Parts, group_scenes
from manas_lite.data.layouts import list_folder
from manas_lite.data.listing import Listing, Pair, Photo
from manas_lite.data.registry import DataSet
from manas_lite.metrics import psnr
from manas_lite.photos.images import to_tensor

__all__ = ["CheckReport", "PartReport", "check", "scene_table"]


@dataclass(frozen=True)
class PartReport:
    """One part of a set ("train", "val", "test" or "all"). PSNR in dB, mean over pairs; None without pairs.

    sizes: (height, width) -> clean pictures of that size. rains: R -> scenes with that many rainy versions.
    """

    part: str
    pairs: int
    scenes: int
    sizes: dict[tuple[int, int], int]
    rains: dict[int, int]
    psnr_y: float | None
    psnr_rgb: float | None


@dataclass(frozen=True)
class CheckReport:
    """What `check` found; `str()` of it is the report for a person."""

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
    """Decodes every picture of a folder and reports counts, sizes, mean PSNR of the rainy pictures, and scenes.

    PSNR is of the rainy against the clean picture, per pair, then averaged, in both conventions of
    `manas_lite.metrics`. strict: True stops at the first bad file; False counts them. registered: the set that this
    should be, whose counts are compared.
    """
    listing, files = audit_listing(
        folder if isinstance(folder, Listing) else list_folder(folder, layout), strict, progress
    )
    notes = list(listing.notes) + (count_differences(registered, listing) if registered else [])
    scenes = group_scenes(listing, registered.group if registered else "auto")
    order = {"train": 0, "val": 1, "test": 2}
    names = {pair.part for pair in listing.pairs} | {photo.part for photo in listing.photos}
    parts = []
    for name in sorted(names, key=lambda part: order.get(part or "", 3)):
        pairs = [pair for pair in listing.pairs if pair.part == name]
        photos = [photo for photo in listing.photos if photo.part == name]
        parts.append(_part(name or "all", pairs, photos, scenes, name, notes, progress))
    return CheckReport(str(listing.root), tuple(listing.layouts), tuple(parts), files, tuple(notes))


def scene_table(parts: Parts) -> str:
    """One line a scene: part, R, name, labels of its rainy versions."""
    lines = [f"{'part':<6}{'R':>3}  scene: rainy versions"]
    for part, scenes in parts.items():
        for scene in scenes:
            labels = ", ".join(scene.labels)
            lines.append(f"{part or 'all':<6}{len(scene.rainy):>3}  {scene.name}: {labels}")
    return "\n".join(lines)


def _part(
    title: str,
    pairs: Sequence[Pair],
    photos: Sequence[Photo],
    scenes: Parts,
    name: str | None,
    notes: list[str],
    progress: bool | None,
) -> PartReport:
    hidden = len(pairs) < 500 if progress is None else not progress
    scores = np.array([_scores(pair) for pair in tqdm(pairs, desc=f"PSNR of {title}", disable=hidden)])
    finite = scores[np.isfinite(scores).all(axis=1)] if pairs else scores
    if len(finite) < len(pairs):
        notes.append(f"{title}: {len(pairs) - len(finite)} pair(s) are identical and not in the mean PSNR")
    own = scenes.get(name, ())
    return PartReport(
        part=title,
        pairs=len(pairs),
        scenes=len(own) or len(photos),
        sizes=dict(Counter(item.size() for item in [p.clean for p in pairs] + [p.picture for p in photos])),
        rains=dict(Counter(len(scene.rainy) for scene in own)),
        psnr_y=float(finite[:, 0].mean()) if len(finite) else None,
        psnr_rgb=float(finite[:, 1].mean()) if len(finite) else None,
    )


def _scores(pair: Pair) -> tuple[float, float]:
    """PSNR in dB of one pair: on Y, in RGB."""
    rainy, clean = (to_tensor(picture.read())[None] for picture in (pair.rainy, pair.clean))
    with torch.no_grad():
        return float(psnr(rainy, clean, convention="y")), float(psnr(rainy, clean, convention="rgb"))
