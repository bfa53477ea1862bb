"""Quality without a clean picture: NIQE and PIQE, for photographs of real rain. Lower is better, for both.

Neither knows what rain is. NIQE measures how far the statistics of a picture's patches lie from those of pristine
photographs, PIQE how many of its lively blocks look noisy or blocky. Streaks disturb both; so does film grain, and a
blur that takes the streaks away with the texture may please them. Scores compare within one table only.

* NIQE: A. Mittal, R. Soundararajan and A. C. Bovik, "Making a completely blind image quality analyzer", IEEE Signal
  Processing Letters 20(3), 2013. The statistics of pristine photographs (`niqe.npz`) are those of the authors, as
  MMagic 1.2.0 ships them (Apache-2.0).
* PIQE: Venkatanath N. et al., "Blind image quality evaluation using perception based features", NCC 2015.

Both are computed on grey levels 0..255, as MATLAB's rgb2gray weighs colours. They are written here because pyiqa, which
has both, needs torchvision, timm, transformers and two dozen more packages.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import correlate, gaussian_filter
from scipy.special import gamma
from torch.nn import functional as F

from manas_course.downstream import ASSETS

PATCH = 96  # pixels, side of NIQE's patches: that of the pristine statistics
BLOCK = 16  # pixels, side of PIQE's blocks
GREY_WEIGHTS = np.array([0.299, 0.587, 0.114])


def niqe(picture: np.ndarray) -> float:
    """Return the NIQE of a picture, uint8 (H, W, 3) or (H, W): 2 to 4 for clean photographs, more for worse ones.

    Raises:
        ValueError: the picture is too small or too flat: two patches of 96 x 96 pixels, neither of one colour, are
            needed to have a covariance.
    """
    grey = np.round(_grey(picture))
    rows, columns = grey.shape[0] // PATCH, grey.shape[1] // PATCH
    if rows * columns < 2:
        raise ValueError(
            f"a picture of {grey.shape[1]}x{grey.shape[0]} pixels is too small for NIQE: it needs two patches of "
            f"{PATCH}x{PATCH}"
        )
    image = grey[: rows * PATCH, : columns * PATCH]
    pristine = _pristine()
    scales = []
    for scale in (1, 2):
        normal = _normalised(image, pristine.kernel)
        scales.append([_features(patch) for patch in _squares(normal, PATCH // scale)])
        image = _halved(image)
    features = np.concatenate(scales, axis=1)
    whole = features[~np.isnan(features).any(axis=1)]
    if len(whole) < 2:
        raise ValueError(f"too flat for NIQE: of {len(features)} patches only {len(whole)} show anything")
    mean = np.nanmean(features, axis=0)
    spread = (pristine.covariance + np.cov(whole, rowvar=False)) / 2
    away = pristine.mean - mean
    return float(np.sqrt(away @ np.linalg.pinv(spread) @ away))


def piqe(picture: np.ndarray) -> float:
    """Return the PIQE of a picture, uint8 (H, W, 3) or (H, W): 0..100, and 100 for one without a lively block.

    MATLAB grades under 20 as excellent and over 80 as bad.
    """
    grey = np.round(_grey(picture))
    if grey.max() == 0:
        return 100.0
    grey = np.pad(grey, [(0, -side % BLOCK) for side in grey.shape], mode="symmetric")
    grey = np.round(255 * (grey / grey.max()))
    mean = _blurred(grey)
    normal = (grey - mean) / (np.sqrt(np.abs(_blurred(grey * grey) - mean * mean)) + 1)
    blocks = _squares(normal, BLOCK)
    variance = blocks.var(axis=(1, 2), ddof=1)
    lively = variance > 0.1
    if not lively.any():
        return 100.0
    blocks, variance = blocks[lively], variance[lively]
    score = (_blocky(blocks) * (1 - variance) + _noisy(blocks, variance) * variance).sum()
    return float((score + 1) / (len(blocks) + 1) * 100)


def _grey(picture: np.ndarray) -> np.ndarray:
    array = np.asarray(picture)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
        raise ValueError(f"expected uint8 (H, W, 3) or (H, W), got {array.dtype} {array.shape}")
    return array @ GREY_WEIGHTS if array.ndim == 3 else array.astype(np.float64)


def _squares(image: np.ndarray, side: int) -> np.ndarray:
    """Return an image, whose sides are multiples of `side`, as squares (N, side, side), row by row."""
    rows, columns = (length // side for length in image.shape)
    return image.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(-1, side, side)


# --- NIQE ---


class _Pristine(NamedTuple):
    mean: np.ndarray  # (36,)
    covariance: np.ndarray  # (36, 36)
    kernel: np.ndarray  # (7, 7), a Gaussian


@cache
def _pristine() -> _Pristine:
    with np.load(ASSETS / "niqe.npz") as held:
        return _Pristine(held["mu_pris_param"].ravel(), held["cov_pris_param"], held["gaussian_window"])


def _normalised(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Take the local mean off and divide by the local deviation: equation 1."""
    mean = correlate(image, kernel, mode="nearest")
    deviation = np.sqrt(np.abs(correlate(image**2, kernel, mode="nearest") - mean**2))
    return (image - mean) / (deviation + 1)


def _features(patch: np.ndarray) -> list[float]:
    """Return 18 numbers: the shape of the values' distribution, and of products of neighbours in four directions."""
    alpha, left, right = _asymmetric_gaussian(patch)
    found = [alpha, (left + right) / 2]
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
        alpha, left, right = _asymmetric_gaussian(patch * np.roll(patch, shift, axis=(0, 1)))
        found += [alpha, (right - left) * gamma(2 / alpha) / gamma(1 / alpha), left, right]
    return found


@cache
def _shapes() -> tuple[np.ndarray, np.ndarray]:
    """Return candidate shapes of a generalised Gaussian, and the ratio of moments that belongs to each."""
    shapes = np.arange(0.2, 10.001, 0.001)
    inverse = 1 / shapes
    return shapes, gamma(2 * inverse) ** 2 / (gamma(inverse) * gamma(3 * inverse))


def _asymmetric_gaussian(values: np.ndarray) -> tuple[float, float, float]:
    """Return shape, left and right scale by moment matching: equation 7. They are NaN for values of one sign."""
    shapes, ratios = _shapes()
    with np.errstate(invalid="ignore", divide="ignore"):
        low, high = values[values < 0], values[values > 0]
        left = np.sqrt(np.mean(low**2)) if low.size else np.nan
        right = np.sqrt(np.mean(high**2)) if high.size else np.nan
        lean = left / right
        ratio = np.mean(np.abs(values)) ** 2 / np.mean(values**2) * (lean**3 + 1) * (lean + 1) / (lean**2 + 1) ** 2
    alpha = shapes[np.argmin((ratios - ratio) ** 2)]
    width = np.sqrt(gamma(1 / alpha) / gamma(3 / alpha))
    return float(alpha), float(left * width), float(right * width)


def _halved(image: np.ndarray) -> np.ndarray:
    """Return MATLAB's imresize(image, 0.5): the cubic kernel (a = -0.5) stretched by two, with the edges mirrored."""
    wider = torch.from_numpy(np.pad(image, 4, mode="symmetric"))[None, None]
    return F.interpolate(wider, scale_factor=0.5, mode="bicubic", antialias=True)[0, 0, 2:-2, 2:-2].numpy()


# --- PIQE ---


def _blurred(image: np.ndarray) -> np.ndarray:
    return gaussian_filter(image, 7 / 6, mode="nearest", radius=3)


def _blocky(blocks: np.ndarray) -> np.ndarray:
    """Return whether six pixels in a row, somewhere on a block's border, hardly differ."""
    borders = np.stack([blocks[:, 0], blocks[:, :, -1], blocks[:, -1], blocks[:, :, 0]], axis=1)
    segments = np.lib.stride_tricks.sliding_window_view(borders, 6, axis=2)
    return (segments.std(axis=-1, ddof=1) < 0.1).any(axis=(1, 2))


def _noisy(blocks: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Return whether a block's two middle columns vary as the rest of it does."""
    middle = blocks[:, :, 7:9].reshape(len(blocks), -1)
    around = np.delete(blocks, (7, 9), axis=2).reshape(len(blocks), -1)  # the columns that MATLAB's code leaves
    deviation = np.sqrt(variance)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.nan_to_num(middle.std(axis=1, ddof=1) / around.std(axis=1, ddof=1), posinf=np.inf)
        return deviation > 2 * np.abs(deviation - ratio) / np.maximum(deviation, ratio)
