"""Synthetic rain: several rainy versions of one clean picture, each a pure function of its seed.

A drop that falls while the shutter is open leaves a straight bright streak. Here a *layer* of rain is a Poisson scatter
of points blurred by one line-shaped kernel, and an image holds one to four layers: near streaks are longer, wider,
rarer and brighter than far ones. Streaks that overlap hide the background one behind the other, so the shares of light
that they let through multiply and their optical depths add. The streaks S stay in [0, 1) by themselves:

    S = 1 - exp(-sum of layers)

The recipe is this kit's choice, calibrated so that light, medium and heavy rain leave the bundled photographs at about
26, 21 and 14 dB (RGB): near Rain100L, near Rain800, and some 2 dB milder than Rain100H.

    streaks, parameters = rain_streaks(480, 640, "heavy", seed=0)    # the rain alone, (H, W)
    rainy = add_rain(clean, "heavy", seed=0)                         # over a picture, (H, W, 3)
    scene = rain_scene(clean, ("light", "medium", "heavy"), seed=0)  # R versions under one wind
    rainy = wild_rain(clean, seed=0)                                 # any rain: what rain-any is trained on
"""

import io
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from manas_lite.runs.settings import nearest

Image = NDArray[np.float32]
Seed = int | Sequence[int]
Level = str | float
Blend = Literal["screen", "add"]

VERSION = 1
"""Part of the key of cached rain: raise it whenever the same seed would draw another rain than before."""

BLENDS = ("screen", "add")
LEVELS = {"light": 1.0, "medium": 2.0, "heavy": 3.0}
MAX_WIND = 30.0  # degrees from the vertical: the range a wind is drawn from
JITTER = 8.0  # degrees: how far a version's rain leans from its scene's wind
GUST = 1.5  # degrees: how far a layer leans from its image's rain
TAPER = 0.5  # share of a streak over which its two ends fade out
DRY = 0.25  # share of pictures that `wild_rain` leaves as they are
ATMOSPHERE = 0.8  # brightness of fog too thick to see through

_LAYERS = (1, 2, 4)  # at levels 1, 2 and 3
_RANGES = np.array(
    # Each pair goes from the farthest layer to the nearest. The opacities are what the calibration set.
    #    length     width       density         opacity
    [
        [(9, 25), (1.0, 2.0), (0.005, 0.002), (0.28, 0.60)],
        [(15, 35), (1.0, 2.5), (0.018, 0.006), (0.09, 0.41)],
        [(25, 60), (1.0, 3.0), (0.050, 0.010), (0.04, 0.34)],
    ]
)


@dataclass(frozen=True)
class Layer:
    """One sheet of rain."""

    angle: float
    """Degrees from the vertical; positive where a streak's foot lies to the right of its head."""
    length: float
    """Length of a streak, in pixels."""
    width: float
    """Width of a streak across, in pixels: the full width at half maximum."""
    density: float
    """Streaks per pixel."""
    opacity: float
    """Mean optical depth of a streak at its centre."""


@dataclass(frozen=True)
class RainParameters:
    """How one rainy image came about."""

    level: float
    """The level as a number (see `rain_level`)."""
    seed: tuple[int, ...]
    """What the rain was drawn from."""
    angle: float
    """Mean angle of its layers, as in `Layer`."""
    layers: tuple[Layer, ...]
    """The sheets of rain, from the farthest to the nearest."""

    @property
    def density(self) -> float:
        """Streaks per pixel, all layers together."""
        return sum(layer.density for layer in self.layers)

    @property
    def length(self) -> float:
        """Mean length of a streak, in pixels; 0 where there is no rain."""
        return sum(layer.density * layer.length for layer in self.layers) / (self.density or 1)

    @property
    def width(self) -> float:
        """Mean width of a streak, in pixels; 0 where there is no rain."""
        return sum(layer.density * layer.width for layer in self.layers) / (self.density or 1)


@dataclass(frozen=True)
class RainScene:
    """R rainy versions of one clean picture; images are float32 in [0, 1]."""

    clean: Image
    """The picture, (H, W, 3)."""
    rainy: Image
    """The picture under each rain, (R, H, W, 3)."""
    streaks: Image
    """Each rain alone, (R, H, W)."""
    parameters: tuple[RainParameters, ...]
    """How each rain was drawn."""
    wind: float
    """Degrees from the vertical; the versions' own angles are jittered about it."""


def rain_level(level: Level) -> float:
    """Return a level as a number: 0 is no rain, light is 1, medium 2, heavy 3.

    Between two named levels the ranges of length, width, density and opacity are interpolated linearly and the number
    of layers is rounded up. From 0 to 1, and beyond 3, only the density grows, in proportion to the level.
    """
    if isinstance(level, str):
        if level not in LEVELS:
            raise ValueError(f"unknown rain level {level!r}: {nearest(level, LEVELS)}, or a number >= 0")
        return LEVELS[level]
    number = float(level)
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"a rain level is a finite number >= 0 (heavy is 3), got {level!r}")
    return number


def rain_streaks(
    height: int, width: int, level: Level, seed: Seed, *, wind: float | None = None
) -> tuple[Image, RainParameters]:
    """Draw the rain alone: the same arguments give the same bytes, in any process.

    Args:
        height, width: pixels, at least 1.
        level: `light`, `medium`, `heavy` or a number >= 0 (see `rain_level`).
        seed: an int >= 0, or a sequence of them such as (run seed, scene, version).
        wind: angle of the rain in degrees from the vertical, in (-90, 90); None draws it from -30 to 30.

    Returns:
        The streaks (height, width), float32 in [0, 1), and how they were drawn.
    """
    if height < 1 or width < 1:
        raise ValueError(f"an image has at least one pixel, got {height} x {width}")
    entropy, rng = _random(seed)
    parameters = _draw_parameters(rain_level(level), entropy, _wind(wind, rng), rng)
    return _draw_streaks(height, width, parameters.layers, rng), parameters


def add_rain(
    clean: NDArray[Any],
    level: Level,
    seed: Seed,
    *,
    blend: Blend = "screen",
    wind: float | None = None,
    depth: ArrayLike | None = None,
    fog: float = 0.0,
) -> Image:
    """Return a picture under rain, float32 (H, W, 3) in [0, 1].

    Args:
        clean: the picture (H, W, 3), uint8 or float in [0, 1].
        level, seed, wind: see `rain_streaks`. Level 0 is the identity (of the foggy picture, with fog).
        blend: see `composite`.
        depth, fog: see `add_fog`; None leaves fog out.

    Example:
    >>> add_rain(np.full((64, 48, 3), 0.5), "heavy", seed=0).shape
    (64, 48, 3)
    """
    background = _background(clean, depth, fog)
    height, width, _ = background.shape
    streaks, _ = rain_streaks(height, width, level, seed, wind=wind)
    return composite(background, streaks, blend)


def rain_scene(
    clean: NDArray[Any],
    levels: Sequence[Level] = ("light", "medium", "heavy"),
    seed: Seed = 0,
    *,
    blend: Blend = "screen",
    wind: float | None = None,
    jitter: float = JITTER,
    depth: ArrayLike | None = None,
    fog: float = 0.0,
) -> RainScene:
    """Return one clean picture under R = len(levels) rains, as multi-to-one training reads it.

    Version r has the seed (*seed, r), so it does not depend on how many versions follow.

    Args:
        clean, seed, blend, depth, fog: see `add_rain`.
        levels: the level of each version.
        wind: the wind of all versions, see `rain_streaks`.
        jitter: degrees from 0 to 45 that the angle of a version may differ from the wind.
    """
    if isinstance(levels, str) or not len(levels):
        raise ValueError(f"levels must be a sequence such as ('light', 'heavy'), got {levels!r}")
    if not 0 <= jitter <= 45:
        raise ValueError(f"jitter is an angle of 0 to 45 degrees, got {jitter}")
    background = _background(clean, depth, fog)
    height, width, _ = background.shape
    entropy, rng = _random(seed)
    wind = _wind(wind, rng)
    streaks, parameters = [], []
    for version, level in enumerate(levels):
        angle = float(np.clip(wind + jitter * rng.uniform(-1, 1), -89, 89))
        layer, drawn = rain_streaks(height, width, level, (*entropy, version), wind=angle)
        streaks.append(layer)
        parameters.append(drawn)
    rainy = np.stack([composite(background, layer, blend) for layer in streaks])
    return RainScene(as_float(clean), rainy, np.stack(streaks), tuple(parameters), wind)


def wild_rain(clean: NDArray[Any], seed: Seed) -> Image:
    """Return a picture (H, W, 3), uint8 or float in [0, 1], under rain of any kind, float32 in [0, 1].

    The named levels are three narrow recipes, and a network that is trained on them alone fails on other rain. Here the
    number of layers, their angles (one wind, or several at once), lengths, widths, cover and brightness are drawn anew,
    as wide as in the published sets; streaks are sharp or blurred, lie in mist, and darken what is brighter than they
    are; what a camera does afterwards (JPEG) follows. One picture in four stays dry, so that a network learns to leave
    it alone.

    Source: this kit's choice; scripts/rain_statistics.py compares its statistics with those of real sets.
    """
    from scipy.ndimage import gaussian_filter  # a quarter of a second, which only drawing rain should cost

    picture = as_float(clean)
    _, rng = _random(seed)
    if rng.uniform() < DRY:
        return picture
    scale = 2 ** rng.uniform(-0.7, 0.7)  # of the drops in pixels: near and far rain, small and large pictures
    wind, one_wind = rng.uniform(-45, 45), rng.uniform() < 0.6
    cover = math.exp(rng.uniform(math.log(0.03), math.log(2.0)))  # area of streaks per area of picture
    strength = math.exp(rng.uniform(math.log(0.1), math.log(1.5)))
    layers = []
    for share in rng.dirichlet(np.ones(int(rng.integers(1, 6)))):
        length = scale * math.exp(rng.uniform(math.log(8), math.log(45)))
        width = max(0.7, scale * math.exp(rng.uniform(math.log(0.8), math.log(4))))
        angle = wind + GUST * rng.uniform(-1, 1) if one_wind else rng.uniform(-45, 45)
        layers.append(Layer(angle, length, width, share * cover / (length * width), strength * rng.uniform(0.5, 1.5)))
    height, width, _ = picture.shape
    streaks = _draw_streaks(height, width, tuple(layers), rng)
    if rng.uniform() < 0.3:
        streaks = gaussian_filter(streaks, rng.uniform(0.3, 1.2))
    if rng.uniform() < 0.4:  # drops too far away to be seen one by one
        streaks = streaks + (1 - streaks) * rng.uniform(0, 0.6) * gaussian_filter(streaks, 12 * scale)
    brightness = rng.uniform(0.65, 1.0)
    rainy = picture + streaks[..., None] * (np.float32(brightness) - picture)
    if rng.uniform() < 0.5:  # light that is added, as most published sets do it
        rainy = picture + streaks[..., None] * np.float32(brightness)
    rainy = np.clip(rainy, 0, 1).astype(np.float32)
    return _jpeg(rainy, int(rng.integers(60, 97))) if rng.uniform() < 0.3 else rainy


def composite(background: NDArray[Any], streaks: ArrayLike, blend: Blend = "screen") -> Image:
    """Lay streaks S over a picture B: float32 (H, W, 3) in [0, 1].

        screen:  1 - (1 - B) (1 - S)
        add:     min(B + S, 1)

    With `screen` rain vanishes against a bright sky, as it does.

    Args:
        background: B, (H, W, 3), uint8 or float in [0, 1].
        streaks: S, (H, W) in [0, 1], drawn here or loaded.
        blend: `screen` or `add`.
    """
    picture = as_float(background)
    if blend not in BLENDS:
        raise ValueError(f"unknown blend {blend!r}: choose one of {BLENDS}")
    layer = np.asarray(streaks, np.float32)
    if layer.shape != picture.shape[:2]:
        raise ValueError(f"streaks of shape {layer.shape} do not cover a picture of {picture.shape[:2]}")
    if not (layer.min() >= 0 and layer.max() <= 1):  # NaN fails both
        raise ValueError("streaks must lie in [0, 1]: divide an 8-bit layer by 255")
    light = layer[..., None] if blend == "add" else layer[..., None] * (1 - picture)  # B + S(1 - B) = screen
    return np.minimum(picture + light, 1)


def add_fog(clean: NDArray[Any], depth: ArrayLike, fog: float) -> Image:
    """Return a picture I in fog that thickens with distance (Koschmieder), float32 (H, W, 3) in [0, 1].

        J = t I + (1 - t) 0.8,     t = exp(-fog * depth)

    Args:
        clean: I, (H, W, 3), uint8 or float in [0, 1].
        depth: distances (H, W) >= 0 in any unit; `np.ones((H, W))` is an even mist. From a stereo pair's disparity d,
            depth is proportional to 1 / d.
        fog: extinction >= 0 per unit of depth.
    """
    picture = as_float(clean)
    distance = np.asarray(depth, np.float32)
    if distance.shape != picture.shape[:2]:
        raise ValueError(f"a depth map of {distance.shape} does not cover a picture of {picture.shape[:2]}")
    if not (np.isfinite(distance).all() and distance.min() >= 0):
        raise ValueError("depth must be finite and >= 0: fill unknown distances first")
    if not (math.isfinite(fog) and fog >= 0):
        raise ValueError(f"fog must be a finite number >= 0, got {fog}")
    haze = -np.expm1(-np.float32(fog) * distance)[..., None]
    return picture + haze * (np.float32(ATMOSPHERE) - picture)


def as_float(picture: NDArray[Any]) -> Image:
    """Return a picture (H, W, 3), uint8 or float in [0, 1], as float32 in [0, 1]; ValueError for anything else."""
    array = np.asarray(picture)
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ValueError(f"a picture has shape (H, W, 3) with H, W >= 1, got {array.shape}")
    if array.dtype == np.uint8:
        return array.astype(np.float32) / np.float32(255)
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"a picture is uint8, or float in [0, 1], got {array.dtype}")
    if not (array.min() >= 0 and array.max() <= 1):  # NaN fails both
        raise ValueError(f"a float picture lies in [0, 1], got {array.min()} to {array.max()}")
    return array.astype(np.float32)


def _background(clean: NDArray[Any], depth: ArrayLike | None, fog: float) -> Image:
    if depth is not None:
        return add_fog(clean, depth, fog)
    if fog:
        raise ValueError("fog needs a depth map; np.ones((H, W)) gives an even mist")
    return as_float(clean)


def _random(seed: Seed) -> tuple[tuple[int, ...], np.random.Generator]:
    """Return a seed as a tuple of numbers, and a generator that they seed."""
    try:
        numbers = tuple(map(operator.index, seed if isinstance(seed, Sequence) else (seed,)))
    except TypeError:
        numbers = ()
    if not numbers or min(numbers) < 0:
        raise ValueError(f"a seed is an int >= 0 or a sequence of them, got {seed!r}")
    return numbers, np.random.default_rng((len(numbers), *numbers))  # NumPy pads with zeros: (1,) is not (1, 0)


def _wind(wind: float | None, rng: np.random.Generator) -> float:
    drawn = rng.uniform(-MAX_WIND, MAX_WIND)  # in any case, so that giving a wind leaves the rest alone
    if wind is None:
        return float(drawn)
    if not -90 < wind < 90:
        raise ValueError(f"wind is an angle from the vertical in (-90, 90) degrees, got {wind}")
    return float(wind)


def _draw_parameters(level: float, seed: tuple[int, ...], angle: float, rng: np.random.Generator) -> RainParameters:
    anchor = min(max(level, 1.0), 3.0)
    below, above = math.floor(anchor) - 1, math.ceil(anchor) - 1
    share = anchor - math.floor(anchor)
    count = math.ceil(_LAYERS[below] + share * (_LAYERS[above] - _LAYERS[below]))
    ranges = _RANGES[below] + share * (_RANGES[above] - _RANGES[below])  # (4 quantities, farthest and nearest)
    ranges[2] *= level / anchor  # the density alone, beyond the named levels
    far, near = ranges.T
    layers = []
    for index in range(count):
        nearness = (index + rng.uniform()) / count  # stratified: each layer has its own share of depth
        length, width, density, opacity = (far + nearness * (near - far)).tolist()
        lean = angle + GUST * rng.uniform(-1, 1)
        layers.append(Layer(lean, length, width, density / count, opacity))
    return RainParameters(level, seed, angle, tuple(layers))


def _draw_streaks(height: int, width: int, layers: tuple[Layer, ...], rng: np.random.Generator) -> Image:
    """Return Poisson points convolved with line kernels; the layers add up in the Fourier domain.

    The canvas is larger than the image by one streak, so that streaks which start outside reach in and the rain is as
    dense at the edge as in the middle.
    """
    import scipy.fft  # a quarter of a second, which only drawing rain should cost

    kernels = [_line_kernel(layer) for layer in layers]
    reach = max(len(kernel) for kernel in kernels) // 2
    rows, columns = (scipy.fft.next_fast_len(side + 2 * reach, real=True) for side in (height, width))
    total: Any = 0
    for layer, kernel in zip(layers, kernels, strict=True):
        # As many points as a Poisson number says, each anywhere, are a Poisson process: it costs by points, not pixels.
        count = rng.poisson(layer.density * rows * columns)
        where = rng.integers(rows * columns, size=count)
        depths = layer.opacity * rng.uniform(0.5, 1.5, size=count)
        points = np.bincount(where, depths, rows * columns).astype(np.float32).reshape(rows, columns)
        centred = np.zeros((rows, columns), np.float32)
        centred[: len(kernel), : len(kernel)] = kernel
        centred = np.roll(centred, (-(len(kernel) // 2), -(len(kernel) // 2)), axis=(0, 1))
        total = total + scipy.fft.rfft2(points) * scipy.fft.rfft2(centred)
    optical = scipy.fft.irfft2(total, s=(rows, columns))[reach : reach + height, reach : reach + width]
    optical = np.where(optical < 1e-5, np.float32(0), optical)  # rounding: no drop there, so exactly no rain
    return -np.expm1(-optical)


def _jpeg(picture: Image, quality: int) -> Image:
    """Return a picture as it comes back from a JPEG file."""
    from PIL import Image as Pictures

    file = io.BytesIO()
    Pictures.fromarray(np.rint(picture * 255).astype(np.uint8)).save(file, "JPEG", quality=quality)
    return np.asarray(Pictures.open(file, formats=["JPEG"]), np.float32) / np.float32(255)


def _line_kernel(layer: Layer) -> Image:
    """Return a soft line through the middle of an odd square, peak 1: tapered along, Gaussian across."""
    sigma = layer.width / math.sqrt(8 * math.log(2))  # from the full width at half maximum
    half = layer.length / 2
    reach = math.ceil(half + 3 * sigma)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    lean = math.radians(layer.angle)
    along = x * math.sin(lean) + y * math.cos(lean)
    across = x * math.cos(lean) - y * math.sin(lean)
    ends = np.clip((half - np.abs(along)) / (TAPER * half), 0, 1)
    return (ends * np.exp(-0.5 * (across / sigma) ** 2)).astype(np.float32)
