"""Quality without a clean picture: NIQE and PIQE, for photographs of real rain. Lower is better, for both.

Neither knows what rain is. NIQE measures how far the statistics of a picture's patches lie from those of pristine
photographs, PIQE how many of its lively blocks look noisy or blocky. Streaks disturb both; so does film grain, and a
blur that takes the streaks away with the texture may please them. Scores compare within one table only.

* NIQE: A. Mittal, R. Soundararajan and A. C. Bovik, "Making a completely blind image quality analyzer", IEEE Signal
  Processing Letters 20(3), 2013. The statistics of pristine photographs (`niqe.npz`) are those of the authors, as
  MMagic 1.2.0 ships them (Apache-2.0).
* PIQE: Venkatanath N. et al., "Blind image quality evaluation using perception based features", NCC 2015.

Both are computed on grey levels 0..255, as MATLAB's rgb2gray weighs colours.
"""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.ndimage import correlate, correlate1d, gaussian_filter
from scipy.special import gamma

__all__ = ["niqe", "piqe"]

PATCH = 96
"""Side of NIQE's patches, pixels: that of the pristine statistics."""

BLOCK = 16
"""Side of PIQE's blocks, pixels."""

_GREY = np.array([0.299, 0.587, 0.114])


def niqe(picture: np.ndarray) -> float:
    """NIQE of a picture, uint8 (H, W, 3) or (H, W); about 2 to 4 for clean photographs, more for worse ones.

    Raises ValueError for pictures too small or too flat: two patches of 96 x 96 pixels, neither of one colour, are
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
        normal = _normalised(image, pristine.window)
        side = PATCH // scale
        patches = normal.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(-1, side, side)
        scales.append([_features(patch) for patch in patches])
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
    """PIQE of a picture, uint8 (H, W, 3) or (H, W), in 0..100: under 20 excellent, over 80 bad, as MATLAB grades it.

    100 for a picture without a lively block.
    """
    grey = np.round(_grey(picture))
    if grey.max() == 0:
        return 100.0
    grey = np.pad(grey, [(0, -side % BLOCK) for side in grey.shape], mode="symmetric")
    grey = np.round(255 * (grey / grey.max()))
    mean = _blurred(grey)
    normal = (grey - mean) / (np.sqrt(np.abs(_blurred(grey * grey) - mean * mean)) + 1)
    rows, columns = (side // BLOCK for side in grey.shape)
    blocks = normal.reshape(rows, BLOCK, columns, BLOCK).swapaxes(1, 2).reshape(-1, BLOCK, BLOCK)
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
    return array @ _GREY if array.ndim == 3 else array.astype(np.float64)


# --- NIQE ---


class _Pristine(NamedTuple):
    mean: np.ndarray  # (36,)
    covariance: np.ndarray  # (36, 36)
    window: np.ndarray  # (7, 7)


@cache
def _pristine() -> _Pristine:
    file = Path(__file__).resolve().parents[1] / "assets" / "downstream" / "niqe.npz"
    with np.load(file) as held:
        return _Pristine(held["mu_pris_param"].ravel(), held["cov_pris_param"], held["gaussian_window"])


def _normalised(image: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Local mean taken off, divided by the local deviation: equation 1."""
    mean = correlate(image, window, mode="nearest")
    deviation = np.sqrt(np.abs(correlate(image**2, window, mode="nearest") - mean**2))
    return (image - mean) / (deviation + 1)


def _features(patch: np.ndarray) -> list[float]:
    """18 numbers: the shape of the values' distribution, and of the products of neighbours in four directions."""
    alpha, left, right = _asymmetric_gaussian(patch)
    found = [alpha, (left + right) / 2]
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
        alpha, left, right = _asymmetric_gaussian(patch * np.roll(patch, shift, axis=(0, 1)))
        found += [alpha, (right - left) * gamma(2 / alpha) / gamma(1 / alpha), left, right]
    return found


@cache
def _shapes() -> tuple[np.ndarray, np.ndarray]:
    """Candidate shapes of a generalised Gaussian, and the ratio of moments that belongs to each."""
    shapes = np.arange(0.2, 10.001, 0.001)
    inverse = 1 / shapes
    return shapes, gamma(2 * inverse) ** 2 / (gamma(inverse) * gamma(3 * inverse))


def _asymmetric_gaussian(values: np.ndarray) -> tuple[float, float, float]:
    """Shape, left and right scale by moment matching: equation 7. NaN for values of one sign."""
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
    """MATLAB's imresize(image, 0.5): the cubic kernel (a = -0.5) stretched by two, edges mirrored."""
    x = np.array([1.75, 1.25, 0.75, 0.25, 0.25, 0.75, 1.25, 1.75])
    kernel = np.where(x <= 1, 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        # Eight taps, the fourth on an even pixel: of the pixels that scipy centres on, every second is wanted.
        image = np.moveaxis(correlate1d(image, kernel, axis=axis, mode="reflect", origin=-1), axis, 0)[::2]
        image = np.moveaxis(image, 0, axis)
    return image


# --- PIQE ---


def _blurred(image: np.ndarray) -> np.ndarray:
    return gaussian_filter(image, 7 / 6, mode="nearest", radius=3)


def _blocky(blocks: np.ndarray) -> np.ndarray:
    """Whether six pixels in a row, somewhere on a block's border, hardly differ."""
    borders = np.stack([blocks[:, 0], blocks[:, :, -1], blocks[:, -1], blocks[:, :, 0]], axis=1)
    segments = np.lib.stride_tricks.sliding_window_view(borders, 6, axis=2)
    return (segments.std(axis=-1, ddof=1) < 0.1).any(axis=(1, 2))


def _noisy(blocks: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Whether a block's two middle columns vary as the rest of it does."""
    middle = blocks[:, :, 7:9].reshape(len(blocks), -1)
    around = np.delete(blocks, (7, 9), axis=2).reshape(len(blocks), -1)  # the columns that MATLAB's code leaves
    deviation = np.sqrt(variance)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.nan_to_num(middle.std(axis=1, ddof=1) / around.std(axis=1, ddof=1), posinf=np.inf)
        return deviation > 2 * np.abs(deviation - ratio) / np.maximum(deviation, ratio)
