"""Bad files: what is wrong with a set's pictures, found before training stumbles over it, and counted."""

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from tqdm import tqdm

from manas_lite.data.listing import Listing, Pair
from manas_lite.data.pictures import LeakError, Picture
from manas_lite.photos.images import ImageError, conversions

__all__ = ["Report", "audit_listing", "unmatched"]


@dataclass
class Report:
    """Counts by what was met: pictures read, each kind of conversion, each refusal (named in `problems`)."""

    counts: Counter[str] = field(default_factory=Counter)
    problems: list[tuple[str, str]] = field(default_factory=list)

    def refuse(self, path: str, reason: str) -> None:
        """Counts and names a file that cannot be used."""
        self.counts["refused"] += 1
        self.problems.append((path, reason))

    def __str__(self) -> str:
        lines = [f"{count:6,}  {what}" for what, count in sorted(self.counts.items())]
        return "\n".join(lines + [f"        {reason}" for _, reason in self.problems])


def unmatched(listing: Listing) -> str | None:
    """A sentence naming the files that cannot be paired, or None where every file has its place."""
    if not listing.problems:
        return None
    shown = "; ".join(f"{path} {reason}" for path, reason in listing.problems[:5])
    more = f"; and {len(listing.problems) - 5} more" if len(listing.problems) > 5 else ""
    return f"{listing.root}: {shown}{more}"


def audit_listing(listing: Listing, strict: bool = True, progress: bool | None = None) -> tuple[Listing, Report]:
    """Decodes every picture of a listing once; returns the listing without bad ones, and the report.

    strict: True raises at the first bad file, naming it (ImageError, FileNotFoundError, or ValueError for a file
      without its twin); False leaves out the pairs it belongs to and counts it. A LeakError is always raised.
    """
    report = Report()
    for path, reason in listing.problems:
        if strict:
            raise ValueError(f"{path} {reason}; add its twin, take it away, or pass strict=False to leave it out")
        report.refuse(path, f"{path} {reason}")
    seen: dict[Path, str | None] = {}
    hidden = len(listing.pairs) + len(listing.photos) < 500 if progress is None else not progress

    def usable(*pictures: Picture) -> bool:
        verdicts = [_check(picture, seen, report, strict) for picture in pictures]  # all: each is to be counted
        return all(verdicts)

    pairs = []
    for pair in tqdm(listing.pairs, desc="checking pictures", disable=hidden):
        if usable(pair.clean, pair.rainy) and _same_size(pair, report, strict):
            pairs.append(pair)
    photos = [p for p in tqdm(listing.photos, desc="checking pictures", disable=hidden) if usable(p.picture)]
    return replace(listing, pairs=pairs, photos=photos, problems=[]), report


def _check(picture: Picture, seen: dict[Path, str | None], report: Report, strict: bool) -> bool:
    if picture.path in seen:  # the other half of a file, or a clean picture under many rains
        return seen[picture.path] is None
    try:
        picture.read()
        kinds = conversions(picture.path)
    except LeakError:
        raise
    except (ImageError, FileNotFoundError) as error:
        if strict:
            raise
        seen[picture.path] = str(error)
        report.refuse(str(picture.path), str(error))
        return False
    seen[picture.path] = None
    report.counts["read"] += 1
    for kind in kinds:
        report.counts[f"converted: {kind}"] += 1
    return True


def _same_size(pair: Pair, report: Report, strict: bool) -> bool:
    (rainy_height, rainy_width), (height, width) = pair.rainy.size(), pair.clean.size()
    if (rainy_height, rainy_width) == (height, width):
        return True
    reason = f"{pair.rainy} is {rainy_width}x{rainy_height} but its clean picture {pair.clean} is {width}x{height}"
    if strict:
        raise ImageError(f"{reason}; a pair must have one size (strict=False leaves it out)")
    report.refuse(str(pair.rainy), reason)
    return False
