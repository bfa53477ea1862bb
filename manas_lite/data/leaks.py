"""The leak report: backgrounds of a test set that a training set also shows, whatever their JPEG, crop or rain.

A network that trained on a test picture's background is not tested by it. Pictures are compared by the perceptual
hash of `manas_lite.data.similarity`, clean ones where a set has them.
"""

import os
from dataclasses import dataclass

from manas_lite.data.layouts import list_folder
from manas_lite.data.listing import Listing
from manas_lite.data.pictures import Picture
from manas_lite.data.similarity import SAME, clusters, signatures, similar_pairs


@dataclass(frozen=True)
class LeakReport:
    """Test pictures that the training set also shows."""

    train_pictures: int
    test_pictures: int
    test_backgrounds: int
    """Distinct backgrounds of the test set."""
    leaking_backgrounds: int
    """Distinct backgrounds of the leaking pictures."""
    matches: tuple[tuple[Picture, Picture, float], ...]
    """(test picture, the most similar training picture, similarity in [-1, 1]) per leaking picture."""

    def __str__(self) -> str:
        head = (
            f"{len(self.matches)} of {self.test_pictures} test pictures ({self.leaking_backgrounds} of "
            f"{self.test_backgrounds} backgrounds) are also among the {self.train_pictures} training pictures"
        )
        rows = [f"  {score:5.3f}  {test}\n         {train}" for test, train, score in self.matches]
        return "\n".join([head, *rows])


def find_leaks(
    train: str | os.PathLike[str] | Listing,
    test: str | os.PathLike[str] | Listing,
    threshold: float = SAME,
    progress: bool | None = None,
) -> LeakReport:
    """Compare every test picture with every training picture.

    Args:
        threshold: similarity that counts, in (0, 1].
        progress: show bars; None: from 500 pictures on.
    """
    if not 0 < threshold <= 1:  # nan too
        raise ValueError(f"the threshold is a similarity above 0 and at most 1, got {threshold}")
    train_pictures, test_pictures = (_pictures(data) for data in (train, test))
    train_hashes, test_hashes = signatures(train_pictures, progress), signatures(test_pictures, progress)
    best: dict[int, tuple[int, float]] = {}
    for i, j, score in similar_pairs(test_hashes, train_hashes, threshold):
        best.setdefault(i, (j, score))  # the pairs come best first
    links = [(i, j) for i, j, _ in similar_pairs(test_hashes, test_hashes, threshold)]
    backgrounds = clusters(len(test_pictures), links)
    return LeakReport(
        train_pictures=len(train_pictures),
        test_pictures=len(test_pictures),
        test_backgrounds=len(backgrounds),
        leaking_backgrounds=sum(any(i in best for i in group) for group in backgrounds),
        matches=tuple((test_pictures[i], train_pictures[j], score) for i, (j, score) in sorted(best.items())),
    )


def _pictures(data: str | os.PathLike[str] | Listing) -> list[Picture]:
    listing = data if isinstance(data, Listing) else list_folder(data)
    clean = [pair.clean for pair in listing.pairs] or [photo.picture for photo in listing.photos]
    return list(dict.fromkeys(clean))
