"""Synthetic rain: several rainy versions of one clean picture, each a pure function of its seed.

A drop that falls while the shutter is open leaves a straight bright streak. Here a *layer* of rain is a Poisson
scatter of points blurred by one line-shaped kernel, and an image holds one to four layers: near streaks are longer,
wider, rarer and brighter than far ones. Overlapping streaks hide the background one behind the other, so each lets
through a share of the light and the shares multiply: optical depths add, `S = 1 - exp(-sum of layers)`, and S stays in
[0, 1) by itself. The recipe and its ranges are this kit's choice, set so that `light`, `medium` and `heavy` cost the
bundled photographs as many decibels as Rain100L, Rain800 and nearly Rain100H cost theirs (about 26, 21, 14 dB, RGB).

    streaks, parameters = rain_streaks(480, 640, "heavy", seed=0)    # the rain alone, (H, W)
    rainy = add_rain(clean, "heavy", seed=0)                         # over a picture, (H, W, 3)
    scene = rain_scene(clean, ("light", "medium", "heavy"), seed=0)  # R versions under one wind
"""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.fft
from numpy.typing import NDArray

Image = NDArray[np.float32]
Seed = int | Sequence[int]
Level = str | float
Blend = Literal["screen", "add"]

BLENDS = ("screen", "add")
LEVELS = {"light": 1.0, "medium": 2.0, "heavy": 3.0}
MAX_WIND = 30.0  # degrees from the vertical: the range a wind is drawn from
JITTER = 8.0  # degrees: how far a version's rain leans from its scene's wind
GUST = 1.5  # degrees: how far a layer leans from its image's rain
TAPER = 0.5  # share of a streak, at its two ends, over which it fades out
ATMOSPHERE = 0.8  # brightness of fog too thick to see through


@dataclass(frozen=True)
class _Recipe:
    """What a level of rain is made of: ranges from the far layer to the near one."""

    layers: int
    length: tuple[float, float]  # pixels
    width: tuple[float, float]  # pixels, full width at half maximum
    density: tuple[float, float]  # share of pixels where a streak is centred, over all layers
    opacity: tuple[float, float]  # optical depth of one streak at its centre


_RECIPES = (  # at levels 1, 2, 3; the opacities are what the calibration set
    _Recipe(1, (9, 25), (1.0, 2.0), (0.005, 0.002), (0.15, 0.30)),
    _Recipe(2, (15, 35), (1.0, 2.5), (0.015, 0.005), (0.10, 0.30)),
    _Recipe(4, (25, 60), (1.0, 3.0), (0.040, 0.015), (0.05, 0.20)),
)


@dataclass(frozen=True)
class Layer:
    """One sheet of rain: `angle` in degrees from the vertical (positive: the foot of a streak lies to the right of
    its head), `length` and `width` in pixels, `density` in streaks a pixel, `opacity` the optical depth of a streak."""

    angle: float
    length: float
    width: float
    density: float
    opacity: float


@dataclass(frozen=True)
class RainParameters:
    """How one rainy image came about. `level` is a number (see `rain_level`), `angle` in degrees from the vertical."""

    level: float
    seed: tuple[int, ...]
    angle: float
    layers: tuple[Layer, ...]

    def _mean(self, name: str) -> float:
        weights = [layer.density for layer in self.layers]
        total = sum(weights)
        return (
            sum(w * getattr(layer, name) for w, layer in zip(weights, self.layers)) / total if total else 0.0
        )

    @property
    def length(self) -> float:
        """Mean length of a streak, pixels."""
        return self._mean("length")

    @property
    def width(self) -> float:
        """Mean width of a streak, pixels."""
        return self._mean("width")

    @property
    def density(self) -> float:
        """Streaks a pixel, all layers together."""
        return sum(layer.density for layer in self.layers)


@dataclass(frozen=True)
class RainScene:
    """R rainy versions of one clean picture.

    clean (H, W, 3), rainy (R, H, W, 3) and streaks (R, H, W) are float32 in [0, 1]; `wind` is the angle, in degrees
    from the vertical, that the versions' own angles are jittered about.
    """

    clean: Image
    rainy: Image
    streaks: Image
    parameters: tuple[RainParameters, ...]
    wind: float


def rain_level(level: Level) -> float:
    """A level as a number: 0 is no rain, light is 1, medium 2, heavy 3, and more is more streaks than heavy.

    Between two named levels the ranges of length, width, density and opacity are interpolated linearly and the number
    of layers is rounded up; from 0 to 1, and beyond 3, the density alone grows, in proportion to the level.
    """
    if isinstance(level, str):
        if level not in LEVELS:
            near = difflib.get_close_matches(level, LEVELS, n=1, cutoff=0.0)[0]
            raise ValueError(
                f"unknown rain level {level!r}, did you mean {near!r}? Give one of {tuple(LEVELS)} or a number"
            )
        return LEVELS[level]
    number = float(level)
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"a rain level is a finite number >= 0 (heavy is 3), got {level!r}")
    return number


def rain_streaks(
    height: int, width: int, level: Level, seed: Seed, *, wind: float | None = None
) -> tuple[Image, RainParameters]:
    """The rain alone: a streak layer (height, width), float32 in [0, 1), and the parameters it was drawn with.

    Args:
        level: 'light', 'medium', 'heavy' or a number >= 0 (see `rain_level`).
        seed: an int >= 0, or a sequence of them such as (run seed, scene, version).
        wind: angle of the rain in degrees from the vertical, in (-90, 90); drawn from +-30 when None.

    Same arguments, same bytes, in any process. Streaks are drawn on a canvas larger than the image by one streak, so
    those that start outside reach in and the density is the same up to the edge.
    """
    if height < 1 or width < 1:
        raise ValueError(f"an image has at least one pixel, got {height} x {width}")
    entropy = _entropy(seed)
    rng = np.random.default_rng(entropy)
    parameters = _draw_parameters(rain_level(level), entropy, _wind(wind, rng), rng)
    return _draw_streaks(height, width, parameters.layers, rng), parameters


def add_rain(
    clean: NDArray,
    level: Level,
    seed: Seed,
    *,
    blend: Blend = "screen",
    wind: float | None = None,
    depth: NDArray | None = None,
    fog: float = 0.0,
) -> Image:
    """`clean` (H, W, 3), uint8 or float in [0, 1], under rain: float32 (H, W, 3) in [0, 1].

    Args:
        level, seed, wind: as in `rain_streaks`. Level 0 is the identity (of the foggy picture, with fog).
        blend: 'screen', `1 - (1 - B)(1 - S)`: bright skies hide rain, as they do; or 'add', `min(B + S, 1)`.
        depth, fog: distances (H, W) >= 0 in any unit, and the fog's extinction in that unit (see `add_fog`).

    >>> clean = np.full((64, 64, 3), 0.5)
    >>> add_rain(clean, "heavy", seed=0).shape
    (64, 64, 3)
    """
    background = _background(clean, depth, fog)
    streaks, _ = rain_streaks(*background.shape[:2], level, seed, wind=wind)
    return composite(background, streaks, blend)


def rain_scene(
    clean: NDArray,
    levels: Sequence[Level] = ("light", "medium", "heavy"),
    seed: Seed = 0,
    *,
    blend: Blend = "screen",
    wind: float | None = None,
    jitter: float = JITTER,
    depth: NDArray | None = None,
    fog: float = 0.0,
) -> RainScene:
    """One clean picture under R = len(levels) rains: one wind, angles within `jitter` degrees of it, other streaks.

    Version r is drawn from the seed (*seed, r), so it does not depend on how many versions there are.
    Other arguments as in `add_rain`. Multi-to-one training reads such scenes (MANAS, section 5 of this kit's method).
    """
    if isinstance(levels, str) or not len(levels):
        raise ValueError(f"levels must be a sequence such as ('light', 'heavy'), got {levels!r}")
    if not 0 <= jitter <= 45:
        raise ValueError(f"jitter is an angle of 0 to 45 degrees, got {jitter}")
    background = _background(clean, depth, fog)
    entropy = _entropy(seed)
    rng = np.random.default_rng(entropy)
    wind = _wind(wind, rng)
    streaks, parameters = [], []
    for version, level in enumerate(levels):
        angle = wind + jitter * np.random.default_rng((*entropy, version)).uniform(-1, 1)
        layer, drawn = rain_streaks(
            *background.shape[:2], level, (*entropy, version), wind=float(np.clip(angle, -89, 89))
        )
        streaks.append(layer)
        parameters.append(drawn)
    rainy = np.stack([composite(background, layer, blend) for layer in streaks])
    return RainScene(as_float(clean), rainy, np.stack(streaks), tuple(parameters), wind)


def composite(background: NDArray, streaks: NDArray, blend: Blend = "screen") -> Image:
    """Lay a streak layer (H, W) in [0, 1], drawn here or loaded, over a picture (H, W, 3): float32 in [0, 1].

    'screen' is `1 - (1 - B)(1 - S)`, 'add' is `min(B + S, 1)`.
    """
    picture = as_float(background)
    if blend not in BLENDS:
        raise ValueError(f"unknown blend {blend!r}: choose one of {BLENDS}")
    layer = np.asarray(streaks, np.float32)
    if layer.shape != picture.shape[:2]:
        raise ValueError(f"streaks of shape {layer.shape} do not cover a picture of shape {picture.shape}")
    if not (layer.min() >= 0 and layer.max() <= 1):  # NaN fails both
        raise ValueError("streaks must lie in [0, 1]: divide an 8-bit layer by 255")
    layer = layer[..., None]
    if blend == "add":
        return np.minimum(picture + layer, 1)
    return picture + layer * (1 - picture)  # the same as 1 - (1 - B)(1 - S), and exact where S = 0


def add_fog(clean: NDArray, depth: NDArray, fog: float) -> Image:
    """Fog that thickens with distance, `J = t I + (1 - t) 0.8` with `t = exp(-fog * depth)` (Koschmieder's law).

    depth (H, W) >= 0 is a distance in any unit, fog >= 0 the extinction per that unit; `np.ones((H, W))` is an even
    mist. From a stereo pair's disparity d, depth is proportional to 1 / d.
    """
    picture = as_float(clean)
    depth = np.asarray(depth, np.float32)
    if depth.shape != picture.shape[:2]:
        raise ValueError(
            f"a depth map of shape {depth.shape} does not cover a picture of shape {picture.shape}"
        )
    if not (np.isfinite(depth).all() and depth.min() >= 0):
        raise ValueError("depth must be finite and >= 0: fill unknown distances first")
    if not (math.isfinite(fog) and fog >= 0):
        raise ValueError(f"fog must be a finite number >= 0, got {fog}")
    through = np.exp(-np.float32(fog) * depth)[..., None]
    return through * picture + (1 - through) * np.float32(ATMOSPHERE)


def as_float(picture: NDArray) -> Image:
    """uint8, or float in [0, 1], of shape (H, W, 3) -> float32 in [0, 1]; anything else is an error."""
    array = np.asarray(picture)
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ValueError(f"a picture has shape (H, W, 3) with H, W >= 1, got {array.shape}")
    if array.dtype == np.uint8:
        return array.astype(np.float32) / 255
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"a picture is uint8, or float in [0, 1], got {array.dtype}")
    if not (array.min() >= 0 and array.max() <= 1):  # NaN fails both
        raise ValueError(
            f"a float picture lies in [0, 1], got [{array.min()}, {array.max()}]: divide by 255?"
        )
    return array.astype(np.float32)


def _background(clean: NDArray, depth: NDArray | None, fog: float) -> Image:
    if depth is None:
        if fog:
            raise ValueError("fog needs a depth map; np.ones((H, W)) gives an even mist")
        return as_float(clean)
    return add_fog(clean, depth, fog)


def _entropy(seed: Seed) -> tuple[int, ...]:
    try:
        numbers = (
            tuple(operator.index(n) for n in seed) if isinstance(seed, Sequence) else (operator.index(seed),)
        )
    except TypeError:
        numbers = ()
    if not numbers or min(numbers) < 0:
        raise ValueError(f"a seed is an int >= 0 or a sequence of them, got {seed!r}")
    return numbers


def _wind(wind: float | None, rng: np.random.Generator) -> float:
    drawn = rng.uniform(
        -MAX_WIND, MAX_WIND
    )  # drawn in any case: giving the wind leaves the other draws alone
    if wind is None:
        return float(drawn)
    if not -90 < wind < 90:
        raise ValueError(f"wind is an angle from the vertical in (-90, 90) degrees, got {wind}")
    return float(wind)


def _recipe(level: float) -> _Recipe:
    below = _RECIPES[min(max(int(level), 1), 3) - 1]
    above = _RECIPES[min(max(math.ceil(level), 1), 3) - 1]
    share = level - int(level) if 1 <= level <= 3 else 0.0
    scale = level if level < 1 else max(level / 3, 1)  # of the density

    def between(name: str) -> tuple[float, float]:
        (a, b), (c, d) = getattr(below, name), getattr(above, name)
        return a + share * (c - a), b + share * (d - b)

    far, near = between("density")
    layers = math.ceil(below.layers + share * (above.layers - below.layers))
    return _Recipe(
        layers, between("length"), between("width"), (far * scale, near * scale), between("opacity")
    )


def _draw_parameters(
    level: float, seed: tuple[int, ...], angle: float, rng: np.random.Generator
) -> RainParameters:
    recipe, layers = _recipe(level), []
    for index in range(recipe.layers):
        nearness = (
            index + rng.uniform()
        ) / recipe.layers  # stratified: the layers share out the depth between them
        length, width, density, opacity = (
            far + nearness * (near - far)
            for far, near in (recipe.length, recipe.width, recipe.density, recipe.opacity)
        )
        lean = angle + GUST * rng.uniform(-1, 1)
        layers.append(Layer(lean, length, width, density / recipe.layers, opacity))
    return RainParameters(level, seed, angle, tuple(layers))


def _draw_streaks(height: int, width: int, layers: tuple[Layer, ...], rng: np.random.Generator) -> Image:
    """Poisson points times line kernels, summed over layers in the Fourier domain: one inverse transform for all."""
    kernels = [_line_kernel(layer) for layer in layers]
    reach = max(max(k.shape) for k in kernels) // 2
    canvas = tuple(scipy.fft.next_fast_len(side + 2 * reach, real=True) for side in (height, width))
    total: NDArray | None = None
    for layer, kernel in zip(layers, kernels):
        count = rng.poisson(
            layer.density * canvas[0] * canvas[1]
        )  # uniform points, Poisson many: a Poisson process
        where = rng.integers(canvas[0] * canvas[1], size=count)
        depth = layer.opacity * rng.uniform(0.5, 1.5, size=count)
        points = np.bincount(where, depth, canvas[0] * canvas[1]).astype(np.float32).reshape(canvas)
        padded = np.zeros(canvas, np.float32)
        rows, columns = kernel.shape
        padded[:rows, :columns] = kernel
        padded = np.roll(padded, (-(rows // 2), -(columns // 2)), axis=(0, 1))
        spectrum = scipy.fft.rfft2(points) * scipy.fft.rfft2(padded)
        total = spectrum if total is None else total + spectrum
    optical = scipy.fft.irfft2(total, s=canvas)[reach : reach + height, reach : reach + width]
    optical[optical < 1e-5] = 0  # rounding of the transform: where no drop fell there is exactly no rain
    return -np.expm1(-optical.astype(np.float32))


def _line_kernel(layer: Layer) -> Image:
    """A soft line through the middle of an odd square, peak 1: tapering along its length, Gaussian across."""
    sigma = layer.width / 2.3548  # full width at half maximum of a Gaussian
    half = layer.length / 2
    reach = math.ceil(half + 3 * sigma)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    lean = math.radians(layer.angle)
    along = x * math.sin(lean) + y * math.cos(lean)
    across = x * math.cos(lean) - y * math.sin(lean)
    taper = np.clip((half - np.abs(along)) / (TAPER * half), 0, 1)
    return taper * np.exp(-0.5 * (across / sigma) ** 2)
