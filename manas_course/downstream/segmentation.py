"""A small segmenter, trained by the kit on clean pictures once and then left as it is; and its scores.

It is no good segmenter, and need not be: it is asked how much rain takes from it, and how much deraining gives back.
`python data_scripts/segmenter.py` makes the bundled one; `python -m manas_course.downstream --street FOLDER` trains one
on a folder of your own.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from manas_course.downstream import ASSETS
from manas_course.downstream.masks import IGNORE, MaskedSet
from manas_lite.compute.runtime import Compute, ComputeSettings
from manas_lite.photos.images import to_tensor
from manas_lite.runs import checkpoint
from manas_lite.runs.progress import Progress
from manas_lite.runs.settings import to_dict

BUNDLED_SEGMENTER = ASSETS / "segmenter.safetensors"


@dataclass(frozen=True)
class SegmenterSettings:
    """How a segmenter is made."""

    widths: tuple[int, ...] = (16, 32, 48, 64)
    """Channels of each scale."""
    steps: int = 1500
    """Optimisation steps."""
    batch: int = 8
    """Crops per step."""
    side: int = 128
    """Side of a crop, in pixels."""
    rate: float = 1e-2
    """Adam's learning rate at the start; it falls to 0 along a cosine."""
    seed: int = 0


class Segmenter(nn.Module):
    """A U-shaped network: pictures (B, 3, H, W) in [0, 1] -> class scores (B, classes, H, W).

    It works at half the size of the picture.

    Source: O. Ronneberger et al., arXiv 1505.04597; the sizes are this kit's choice.
    """

    def __init__(self, classes: Sequence[str], widths: Sequence[int] = (16, 32, 48, 64)) -> None:
        super().__init__()
        self.classes, self.widths = tuple(classes), tuple(widths)
        self.down = nn.ModuleList(_block(a, b) for a, b in zip((3, *widths), widths, strict=False))
        self.up = nn.ModuleList(_block(a + b, b) for a, b in zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.head = nn.Conv2d(widths[0], len(self.classes), 1)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[2:]
        x = F.interpolate(x - 0.5, scale_factor=0.5, mode="area") if min(size) > 1 else x - 0.5
        skips = []
        for i, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2, ceil_mode=True) if i else x)
            skips.append(x)
        for block, skip in zip(self.up, skips[-2::-1], strict=True):
            x = block(torch.cat([F.interpolate(x, size=skip.shape[2:]), skip], dim=1))
        return F.interpolate(self.head(x), size=size, mode="bilinear", align_corners=False)


def _block(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


def train_segmenter(
    data: MaskedSet,
    settings: SegmenterSettings | None = None,
    *,
    compute: ComputeSettings | None = None,
    progress: bool = True,
) -> Segmenter:
    """Train a segmenter on the clean training pictures of `data`, and never on rain.

    It sees random crops, flips and brightness. The loss is a cross-entropy in which a class weighs as the root of its
    rarity. The same seed gives the same network on CPU.
    """
    settings = settings or SegmenterSettings()
    runtime = Compute(compute or ComputeSettings())
    pairs = [(photo.picture.read(), photo.truth()) for photo in data.train]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        net = Segmenter(data.classes, settings.widths)
    net = runtime.prepare(net.train())
    optimizer = torch.optim.Adam(net.parameters(), settings.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    rng = np.random.default_rng(settings.seed)
    weight = _rarity([mask for _, mask in pairs], len(data.classes)).to(runtime.device)
    with runtime.session(), Progress(settings.steps, "segmenter", show=progress) as bar:
        for _ in range(settings.steps):
            drawn = [_crop(*pairs[rng.integers(len(pairs))], settings.side, rng) for _ in range(settings.batch)]
            pictures, truth = (torch.stack(part).to(runtime.device) for part in zip(*drawn, strict=True))
            loss = F.cross_entropy(net(pictures), truth, weight, ignore_index=IGNORE)
            if not torch.isfinite(loss):  # a batch without a labelled pixel
                continue
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            bar.step(loss=loss.item())
    return net.eval().cpu()


def _rarity(masks: Sequence[np.ndarray], classes: int) -> Tensor:
    """Return one over the root of each class's share of the pixels, 1 on average; 0 for a class that is nowhere."""
    counts = sum(np.bincount(mask.ravel(), minlength=256)[:classes] for mask in masks)
    share = np.asarray(counts) / np.sum(counts)
    weight = np.divide(1, np.sqrt(share), out=np.zeros(classes), where=share > 0)
    return torch.from_numpy(weight / (weight * share).sum()).float()


def _crop(picture: np.ndarray, mask: np.ndarray, side: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return a square of `side` pixels, from a part of the picture up to three times as large, maybe mirrored."""
    height, width = mask.shape
    size = int(min(side * 2 ** rng.uniform(-0.25, 1.5), height, width))
    top, left = rng.integers(height - size + 1), rng.integers(width - size + 1)
    square = slice(top, top + size), slice(left, left + size)
    part, truth = to_tensor(picture[square]), torch.from_numpy(mask[square].astype(np.float32))
    part = F.interpolate(part[None], size=(side, side), mode="bilinear", antialias=True, align_corners=False)[0]
    truth = F.interpolate(truth[None, None], size=(side, side), mode="nearest")[0, 0].long()
    if rng.random() < 0.5:
        part, truth = part.flip(-1), truth.flip(-1)
    return (part * rng.uniform(0.7, 1.2)).clamp(0, 1), truth


@torch.inference_mode()
def segment(net: Segmenter, picture: np.ndarray) -> np.ndarray:
    """Return the likeliest class of each pixel, uint8 (H, W), of a picture, uint8 (H, W, 3)."""
    return net(to_tensor(picture)[None])[0].argmax(0).numpy().astype(np.uint8)


def confusion(predicted: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """Return counts of pixels, (classes, classes): row the true class, column the predicted; IGNORE counts nowhere."""
    known = truth != IGNORE
    pairs = classes * truth[known].astype(np.int64) + predicted[known]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def scores(matrix: np.ndarray, classes: Sequence[str]) -> dict[str, float]:
    """Return `miou`, `accuracy` (of pixels) and each class's `iou_NAME`, of a confusion matrix summed over pictures.

    A class that is neither true nor predicted anywhere is NaN and left out of the mean, as torchmetrics does. (It is a
    dependency of the tests alone, which hold these numbers to its.)
    """
    hit = matrix.diagonal().astype(float)
    union = matrix.sum(0) + matrix.sum(1) - hit
    each = np.divide(hit, union, out=np.full(len(hit), np.nan), where=union > 0)
    total = matrix.sum()
    miou, accuracy = (np.nanmean(each), hit.sum() / total) if total else (np.nan, np.nan)
    found = {"miou": float(miou), "accuracy": float(accuracy)}
    return found | {f"iou_{name}": float(value) for name, value in zip(classes, each, strict=True)}


def save_segmenter(path: Path, net: Segmenter, settings: SegmenterSettings, data: MaskedSet) -> None:
    """Write the weights, the classes, and what it was trained by and on, in one safetensors file."""
    checkpoint.write(path, {"net": net.state_dict()}, {"kind": "segmenter", **_origin(settings, data)})


def was_trained_so(path: Path, settings: SegmenterSettings, data: MaskedSet) -> bool:
    """Return whether a saved segmenter comes of these settings and of the training frames and masks of `data`."""
    origin = _origin(settings, data)
    _, meta = checkpoint.read(path)
    return {name: meta.get(name) for name in origin} == origin


def _origin(settings: SegmenterSettings, data: MaskedSet) -> dict[str, Any]:
    digest = hashlib.sha256()  # another set's frames may have the same names
    for photo in data.train:
        digest.update(photo.picture.path.read_bytes())
        digest.update(photo.mask.read_bytes())
    return {
        "classes": list(data.classes),
        "settings": to_dict(settings),
        "data": data.name,
        "pictures": [photo.name for photo in data.train],
        "sha256": digest.hexdigest(),
    }


def load_segmenter(path: Path = BUNDLED_SEGMENTER, data: MaskedSet | None = None) -> Segmenter:
    """Return a saved segmenter, in eval mode.

    Raises:
        CheckpointError: the file holds no segmenter.
        ValueError: it was trained on other classes than those of `data`, or on test pictures of `data`.
    """
    tensors, meta = checkpoint.read(path)
    if meta.get("kind") != "segmenter":
        raise checkpoint.CheckpointError(f"{path} holds no segmenter but {meta.get('kind', 'something else')}")
    if data is not None:
        if tuple(meta["classes"]) != data.classes:
            raise ValueError(f"{path} knows the classes {', '.join(meta['classes'])}, not those of {data.name}")
        seen = set(meta["pictures"]) & {photo.name for photo in data.test}
        if seen:
            raise ValueError(f"{path} was trained on test pictures ({', '.join(sorted(seen)[:3])}): train it anew")
    net = Segmenter(meta["classes"], meta["settings"]["widths"])
    net.load_state_dict(tensors["net"])
    return net.eval()
