"""Pairing: names propose which picture is the clean twin of which, and the pictures confirm it.

Two pictures of one scene have hashes (`manas_lite.data.similarity`) of similarity SAME or more, two of different scenes
at most DIFFERENT. On Rain100L, Rain100H, Rain800 and SIRR, true pairs reach at least 0.70 and wrong ones at most 0.29,
except where two pictures of a set show one background.
"""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from manas_lite.data.grouping import LARGEST_ERROR
from manas_lite.data.listing import Listing, Photo
from manas_lite.data.matching import role_beside
from manas_lite.data.pictures import Picture
from manas_lite.data.similarity import SAME, looks, nearest, remembered, signature, thumbnail
from manas_lite.photos.images import ImageError
from manas_lite.runs.documents import first_few

DIFFERENT = 0.4
"""Similarity below which two pictures show different scenes."""

_SAMPLE = 9
_WINDOW = 512  # pixels a side: where a sample is asked for streaks
_SMALLER = 256  # where all pairs are
_TWICE = 0.5  # similarity of two parts of one file, as hashes of 48 x 48: photographs reach 0.44, pairs begin at 0.53
_TONES = 0.65  # correlation of their thumbnails: blurred photographs whose hashes agree by chance have less


def confirm(listing: Listing) -> None:
    """Move pairs of two scenes, or of two sizes, from the pairs of a listing to its problems.

    A pair whose pictures have no structure, or cannot be read, is left to whoever reads it.
    """
    pairs = listing.pairs
    if not pairs:
        return
    both = looks([picture for pair in pairs for picture in (pair.clean, pair.rainy)], strict=False)
    clean, rainy = both.hashes[::2], both.hashes[1::2]
    scores = (clean * rainy).sum(1)
    known = clean.any(1) & rainy.any(1)
    unequal = (both.sizes[::2] != both.sizes[1::2]).any(1) & both.sizes.reshape(-1, 4).all(1)
    wrong, doubtful = known & (scores < DIFFERENT), known & (scores >= DIFFERENT) & (scores < SAME)
    for i in np.flatnonzero(wrong):
        others = clean @ rainy[i]
        best = int(others.argmax())
        hint = f"; {pairs[best].clean} shows it" if others[best] >= SAME else ""
        reason = f"shows another scene than {pairs[i].clean}, its clean twin by name (similarity {scores[i]:.2f})"
        listing.problems.append((str(pairs[i].rainy), reason + hint))
    for i in np.flatnonzero(unequal & ~wrong):
        (height, width), (rainy_height, rainy_width) = both.sizes[2 * i], both.sizes[2 * i + 1]
        reason = f"is {rainy_width}x{rainy_height} but its clean picture {pairs[i].clean} is {width}x{height}"
        listing.problems.append((str(pairs[i].rainy), reason))
    if doubtful.any():
        first = pairs[int(np.flatnonzero(doubtful)[0])]
        listing.remarks.append(
            f"{listing.root}: {int(doubtful.sum())} pair(s) may not show one scene (similarity {DIFFERENT} to {SAME}), "
            f"such as {first.rainy} and {first.clean}; look at them"
        )
    files = np.array([str(pair.clean) for pair in pairs], object)
    likest, likeness = nearest(rainy, clean)
    fit = known & ~wrong & ~unequal
    closer = fit & (likeness >= SAME) & (likeness > scores + 0.05)  # frames of one camera, rightly named: up to 0.01
    crossed = [i for i in np.flatnonzero(closer) if files[likest[likest[i]]] == files[i] != files[likest[i]]]
    if crossed:
        named = first_few([f"{pairs[i].rainy} like {files[likest[i]]}" for i in crossed])
        listing.remarks.append(
            f"{listing.root}: {len(crossed)} rainy pictures look more like one another's clean pictures than like "
            f"their own, so these may be exchanged: {named}"
        )
    sample, seen = sampled(np.flatnonzero(fit).tolist()), []
    for i in sample:
        j = int(np.where(files == files[i], -1, clean @ rainy[i]).argmax())
        if clean[j] @ rainy[i] >= SAME and files[j] != files[i] and not _copies((pairs[i].clean, pairs[j].clean)):
            seen.append((i, j))
    if 2 * len(seen) > len(sample):
        i, j = seen[0]
        nearer = sum(bool(clean[j] @ rainy[i] > scores[i]) for i, j in seen)
        listing.remarks.append(
            f"{listing.root}: {len(seen)} of {len(sample)} sampled rainy pictures look like a second clean one too, as "
            f"frames of one camera do, and {nearer} even more: {pairs[i].rainy} like {pairs[i].clean} and {files[j]}. "
            "Names alone say which belong together"
        )
    listing.pairs = [pair for pair, bad in zip(pairs, wrong | unequal, strict=True) if not bad]


def tell_swapped(listing: Listing) -> None:
    """Note the pairs of a listing whose clean picture has the streaks, one part of the set at a time.

    Where most pairs of a part have them there, clear streaks are enough. A single pair is named if it is brighter there
    too: of 321 true pairs of Rain100L, Rain100H, Rain800 and SIRR none is.
    """
    seen = _streaks_of([(pair.clean, pair.rainy) for pair in listing.pairs], _SMALLER)
    for part in dict.fromkeys(pair.part for pair in listing.pairs):
        own = np.array([pair.part == part for pair in listing.pairs]) & (seen[:, 0] > 0)
        most = 2 * np.count_nonzero(own & (seen[:, 1] < 0)) > own.sum()
        swapped = np.flatnonzero(own & (seen[:, 1 if most else 2] < 0))
        if len(swapped):
            listing.notes.append(
                f"{listing.root}: {len(swapped)} of {own.sum()} {part + ' ' if part else ''}pairs show rain where they "
                "should be clean, so rain and clean are probably swapped in them; look at them, and exchange the two "
                f"pictures or state the layout: {first_few([str(listing.pairs[i].rainy) for i in swapped])}"
            )


def leave_copies(listing: Listing) -> None:
    """Take exact copies out of the rainy versions of a clean picture, and name them in a remark."""
    both = looks([pair.rainy for pair in listing.pairs], strict=False)
    first: dict[object, Picture] = {}
    copies: dict[Picture, Picture] = {}
    order = sorted(range(len(listing.pairs)), key=lambda i: len(str(listing.pairs[i].rainy)))  # 3.png, 3 - Copy.png
    for pair, look, size in ((listing.pairs[i], both.hashes[i], both.sizes[i]) for i in order):
        known = first.setdefault((pair.clean, pair.part, look.tobytes(), *size), pair.rainy)
        if size.all() and known != pair.rainy and np.array_equal(known.read(), pair.rainy.read()):
            copies[pair.rainy] = known
    if copies:
        listing.pairs = [pair for pair in listing.pairs if pair.rainy not in copies]
        named = first_few([f"{copy} of {known}" for copy, known in copies.items()])
        listing.remarks.append(
            f"{listing.root}: {len(copies)} rainy picture(s) are exact copies of another one of the same scene, and "
            f"are left out: {named}"
        )


def shown_twice(pictures: Sequence[Picture]) -> np.ndarray:
    """Tell of each picture, bool (n,), whether two halves or thirds of it, beside or above each other, are alike."""
    return remembered("twice ", [(picture,) for picture in pictures], _inner_likeness, 1)[:, 0] > _TWICE


def _inner_likeness(image: np.ndarray) -> tuple[float]:
    best = 0.0
    for axis, count in ((1, 2), (1, 3), (0, 2), (0, 3)):
        side = image.shape[axis] // count
        parts = [image.take(range(k * side, (k + 1) * side), axis) for k in range(count if side else 0)]
        for one, other in combinations([(signature(part, 48), _tones(part)) for part in parts], 2):
            if one[1] @ other[1] > _TONES:
                best = max(best, float(one[0] @ other[0]))
    return (best,)


def _tones(image: np.ndarray) -> np.ndarray:
    """Return a thumbnail of a picture as a vector of mean 0 and length 1."""
    small = thumbnail(image, 48).ravel()
    small = small - small.mean()
    return small / max(float(np.linalg.norm(small)), 1e-6)


def alike(pairs: Sequence[tuple[Picture, Picture]]) -> bool:
    """Tell whether most of a sample of pairs show one scene each."""
    sample = sampled(pairs)
    hashes = looks([picture for pair in sample for picture in pair], strict=False).hashes
    scores = (hashes[::2] * hashes[1::2]).sum(1)[hashes[::2].any(1) & hashes[1::2].any(1)]
    return len(scores) > 0 and float(np.median(scores)) >= SAME


def clear_side(first: int, second: int, count: int) -> int | None:
    """Return 0 or 1, the place of the clear majority of `count` votes: more than half, and three times the other."""
    if 2 * max(first, second) <= count or max(first, second) < 3 * min(first, second):
        return None
    return int(second > first)


# --- which of two pictures is the rainy one ---


def rainy_half(left: np.ndarray, right: np.ndarray) -> str:
    """Return "left" or "right", whichever has the brighter differences: rain adds light to an equal exposure."""
    difference = right.astype(np.float32).mean(-1) - left.astype(np.float32).mean(-1)
    gain, loss = float((difference.clip(0) ** 2).sum()), float((difference.clip(max=0) ** 2).sum())
    return "right" if gain >= loss else "left"


def streaks(left: np.ndarray, right: np.ndarray) -> float:
    """Return how much brighter than dark the fine differences are: above 0 the right picture has bright streaks.

    It is the skewness of the difference of the two high-pass filtered grey pictures (H, W), each divided by its
    contrast at large scale, so that a darker exposure or haze changes nothing.

    Source: this kit's choice. Streaks of rain are thin, few and bright: their distribution has a long bright tail.
    """
    from scipy.ndimage import gaussian_filter

    greys = [image.astype(np.float32).mean(-1) for image in (left, right)]
    fine = [grey - gaussian_filter(grey, 2.0) for grey in greys]
    contrasts = [max(float(gaussian_filter(grey, 8.0).std()), 1e-3) for grey in greys]
    difference = fine[1] / contrasts[1] - fine[0] / contrasts[0]
    difference -= difference.mean()
    spread = float(difference.std())
    limit = 2 * float(np.prod([(f / c).std() for f, c in zip(fine, contrasts, strict=True)])) ** 0.5
    if spread == 0 or spread > limit:  # more differs than the pictures hold: one is blurred
        return 0.0
    return float(np.mean(difference**3)) / spread**3


def rain_votes(pairs: Sequence[tuple[Picture, Picture]]) -> tuple[int, int, int]:
    """Return in how many of a sample of pairs the first picture has the rain, in how many the second; and the sample.

    Clear streaks decide. Faint ones decide where the brightness agrees, which never decides alone.
    """
    seen, votes, _ = _streaks_of(pairs, _WINDOW).T
    return int((votes < 0).sum()), int((votes > 0).sum()), int(seen.sum())


def _streaks_of(pairs: Sequence[tuple[Picture, Picture]], window: int) -> np.ndarray:
    """Return for each pair, float32 (n, 3): 1 if it could be compared; -1 if the first picture has the rain, 1 if the
    second has it, 0 if nothing says it; and the same where streaks and brightness agree clearly.
    """

    def vote(*images: np.ndarray) -> tuple[float, float, float]:
        top, left = (max(0, side - window) // 2 for side in images[0].shape[:2])
        first, second = (image[top : top + window, left : left + window] for image in images)  # the middle
        if first.shape != second.shape:
            return 0, 0, 0
        score = streaks(first, second)
        agreed = score * (1 if rainy_half(first, second) == "right" else -1) > 0
        clear, side = abs(score) > 0.2, float(np.sign(score))
        return 1, side * (clear or (abs(score) > 0.05 and agreed)), side * (clear and agreed)

    return remembered(f"streaks {window} ", pairs, vote, 3)


def sampled(items: Sequence[Any]) -> Sequence[Any]:
    """Return at most nine items, evenly spread."""
    return items[:: max(1, len(items) // _SAMPLE)][:_SAMPLE]


# --- pairs among pictures whose names and folders say nothing ---


class Home(NamedTuple):
    """Pictures that may be one side of pairs: those of a folder, or those of a folder with the same words."""

    folder: PurePosixPath
    """From the root."""
    words: str
    """What their names hold beside numbers, or "" for all of a folder."""

    def __str__(self) -> str:
        return f"{self.folder}/{self.words}*" if self.words else str(self.folder)


def _homes(root: Path, photos: Sequence[Photo]) -> list[Home]:
    whole = [Home(PurePosixPath(p.picture.path.parent.relative_to(root)), "") for p in photos]
    words = [Home(home.folder, re.sub(r"\d+", "", p.picture.path.stem)) for home, p in zip(whole, photos, strict=True)]
    sizes, kinds = Counter(whole), Counter(home.folder for home in set(words))
    return [w if 1 < kinds[w.folder] <= sizes[home] / 2 else home for home, w in zip(whole, words, strict=True)]


def look_alikes(root: Path, photos: Sequence[Photo]) -> tuple[list[Home], list[tuple[Home, Home, str]]]:
    """Return the home of each photograph, and (rainy home, clean home, why) of those that show the same scenes.

    Two homes show the same scenes where half of the sampled pictures of the smaller one have a look-alike in the
    other, most of which are no mere copies.

    Raises:
        ValueError: two homes show the same scenes, and neither names nor pictures say which is the rainy one.
    """
    homes = _homes(root, photos)
    members: dict[Home, list[int]] = {}
    for i, home in enumerate(homes):
        members.setdefault(home, []).append(i)
    if len(members) < 2:
        return homes, []
    hashes = looks([photo.picture for photo in photos], strict=False).hashes
    matches: dict[tuple[Home, Home], list[tuple[Picture, Picture]]] = {}
    for home, own in sorted(members.items(), key=lambda item: len(item[1])):
        scores = hashes[list(sampled(own))] @ hashes.T
        for other, theirs in members.items():
            if other == home or (other, home) in matches:
                continue
            best = scores[:, theirs].argmax(1)
            found = [
                (photos[i].picture, photos[theirs[j]].picture)
                for row, i, j in zip(scores, sampled(own), best, strict=True)
                if row[theirs[j]] >= SAME
            ]
            if 2 * len(found) >= len(scores) and 2 * sum(map(_copies, found)) <= len(found):
                matches[home, other] = found
    decided, open_ones = [], []
    for (first, second), found in matches.items():
        side, why = _rainy_side(first, second, found)
        if side is None:
            open_ones.append((first, second))
        else:
            decided.append((first, second, why) if side == 0 else (second, first, why))
    rainy, clean = ({edge[k] for edge in decided} for k in (0, 1))
    for first, second in open_ones:
        if not {first, second} <= rainy and not {first, second} <= clean:
            layout = stated_roles(first, second)
            raise ValueError(
                f"{root}: the pictures of {first} and {second} show the same scenes, so they look like pairs, and "
                "their names and streaks do not say for sure which are the rainy ones: say it with "
                f"layout={layout!r} (rainy:clean; --layout {layout}), the other way round, or with layout='photos' "
                "where they are photographs without rain"
            )
    return homes, [edge for edge in decided if edge[1] not in rainy]


def unpaired(root: Path, photos: Sequence[Photo]) -> list[str]:
    """Return a remark where half of the photographs show the same scenes as others, of which they are no copies.

    Raises:
        ValueError: most of a sample of them differ by streaks of rain.
    """
    likest, scores = nearest(looks([photo.picture for photo in photos], strict=False).hashes)
    found = [(photos[i].picture, photos[likest[i]].picture) for i in np.flatnonzero(scores >= SAME).tolist()]
    sample = [pair for pair in sampled(found) if not _copies(pair)]
    if not sample or 2 * len(found) < len(photos) or 2 * len(sample) < len(sampled(found)):
        return []
    left, right, count = rain_votes(sample)
    first, second = sample[0]
    text = f"{root}: {len(found)} of {len(photos)} photographs show the scene of another: {first} and {second}, say"
    if 2 * (left + right) > count:
        raise ValueError(
            f"{text}. Their streaks differ, so they look like pairs: name them in a pairs.csv with the columns rainy "
            "and clean, or by layout='RAINY:CLEAN' with words of their names; or say layout='photos' where they are "
            "photographs without rain"
        )
    return [f"{text}. All are taken for photographs without rain; if they are pairs, name them in a pairs.csv"]


def stated_roles(rainy: Home, clean: Home) -> str:
    """Return the layout by which a user says which of two homes is the rainy one: RAINY:CLEAN."""
    if rainy.folder == clean.folder:
        return ":".join("".join(re.findall(r"[^\W_]+", home.words)) for home in (rainy, clean))
    names = zip(reversed(rainy.folder.parts), reversed(clean.folder.parts), strict=False)
    return ":".join(next((pair for pair in names if pair[0] != pair[1]), (str(rainy), str(clean))))


def _copies(pair: tuple[Picture, Picture]) -> bool:
    """Tell whether two pictures are one, in another size or quality."""
    try:
        first, second = (Image.fromarray(picture.read()) for picture in pair)
    except (ImageError, OSError):
        return False
    width, height = min(first.size, second.size)
    size = (width, height) if first.size == second.size else (width // 2 or 1, height // 2 or 1)  # a scaler's own blur
    small = [np.asarray(image.resize(size, Image.Resampling.BOX), np.float32) for image in (first, second)]
    return float(np.mean((small[0] - small[1]) ** 2)) <= LARGEST_ERROR


def _rainy_side(first: Home, second: Home, found: Sequence[tuple[Picture, Picture]]) -> tuple[int | None, str]:
    """Return 0 or 1, the place of the rainy one of two homes, and why; None where names and pictures do not agree."""
    one, two, count = rain_votes(found)
    seen = clear_side(one, two, count)
    role, other = role_beside(str(first), str(second)), role_beside(str(second), str(first))
    named = None if role == other else int(role == "clean" or other == "rainy")  # one of the two names is enough
    if named is not None and seen not in (None, named):
        return None, ""
    votes = f"{max(one, two)} of {count} sampled pairs show streaks there"
    return (seen, votes) if named is None else (named, "the names say so" + f", and {votes}" * (seen is not None))
