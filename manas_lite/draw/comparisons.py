"""Photographs side by side: before and after, and one scene under several rains."""

import math
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from manas_lite.draw.style import BLACK, ORANGE, VERMILION, Drawing, styled
from manas_lite.metrics import SSIM_SIDE, psnr, ssim
from manas_lite.rain import LEVELS, RainScene

Crop = tuple[int, int, int, int]  # top, left, height, width


@styled
def comparison(rainy: Any, derained: Any, clean: Any, crop: Crop | None = None, *, convention: str = "rgb") -> Figure:
    """Draw a picture rainy, derained and clean side by side, whole and zoomed, with what is left and what was taken.

    The last row shows |picture - clean| for the first two and |rainy - derained|, averaged over RGB, on one scale.

    Args:
        rainy, derained, clean: one picture each: uint8, or float in [0, 1], of shape (H, W, 3), or a float tensor
            (3, H, W). Values outside [0, 1] are clamped.
        crop: top, left, height and width of the zoom, in pixels. By default it is a square, a quarter as wide as the
            short side, where the rain is strongest.
        convention: of PSNR and SSIM, `rgb` or `y`; the titles name it.
    """
    pictures = {"rainy": _picture(rainy), "derained": _picture(derained), "clean": _picture(clean)}
    if len({picture.shape for picture in pictures.values()}) > 1:
        raise ValueError(f"pictures of different sizes: { {k: v.shape[:2] for k, v in pictures.items()} }")
    height, width, _ = pictures["clean"].shape
    residuals = {
        "what rain added: |rainy − clean|": _distance(pictures["rainy"], pictures["clean"]),
        "what is left: |derained − clean|": _distance(pictures["derained"], pictures["clean"]),
        "what was taken: |rainy − derained|": _distance(pictures["rainy"], pictures["derained"]),
    }
    rain = next(iter(residuals.values()))
    top, left, tall, wide = crop = _strongest(rain) if crop is None else crop
    if min(top, left) < 0 or min(tall, wide) < 1 or top + tall > height or left + wide > width:
        raise ValueError(f"crop {crop} (top, left, height, width) leaves the picture of {height} x {width}")

    wide_in = 2.9 if width >= height else 2.3
    ratios = [height / width, tall / wide, height / width]
    figure = Drawing(figsize=(3 * wide_in + 0.8, wide_in * sum(ratios) + 0.9), layout="constrained")
    grid = figure.subplots(3, 3, gridspec_kw={"height_ratios": ratios})
    for column, (name, picture) in enumerate(pictures.items()):
        _show(grid[0, column], picture, _title(name, picture, pictures["clean"], convention))
        grid[0, column].add_patch(Rectangle((left - 0.5, top - 0.5), wide, tall, fill=False, ec=ORANGE, lw=1.5))
        _show(grid[1, column], picture[top : top + tall, left : left + wide], "")
        for spine in grid[1, column].spines.values():
            spine.set(visible=True, color=ORANGE, linewidth=1.5)
    limit = max(float(np.quantile(rain, 0.995)), 1 / 255)
    for axes, (title, residual) in zip(grid[2], residuals.items(), strict=True):
        _show(axes, residual, title, vmax=limit)
    bar = figure.colorbar(grid[2, 2].images[0], ax=grid[2], fraction=0.03, pad=0.01, extend="max")
    bar.set_label("of full brightness")
    return figure


@styled
def scene(rain_scene: RainScene) -> Figure:
    """Draw one background under its R rains: the pictures above, the layers of streaks and their angles below."""
    count = len(rain_scene.rainy)
    height, width, _ = rain_scene.clean.shape
    wide_in = 2.4 if width >= height else 1.9
    figure = Drawing(figsize=((count + 1) * wide_in, 2 * wide_in * height / width + 0.8), layout="constrained")
    grid = figure.subplots(2, count + 1)
    _show(grid[0, 0], rain_scene.clean, "clean")
    _compass(grid[1, 0], rain_scene)
    names = {number: name for name, number in LEVELS.items()}
    brightest = max(float(rain_scene.streaks.max()), 1 / 255)
    versions = zip(grid.T[1:], rain_scene.rainy, rain_scene.streaks, rain_scene.parameters, strict=True)
    for (above, below), rainy, streaks, drawn in versions:
        level = names.get(drawn.level, f"level {drawn.level:g}")
        _show(above, rainy, _title(level, rainy, rain_scene.clean))
        layers = f"{len(drawn.layers)} layer{'s' if len(drawn.layers) > 1 else ''}"
        _show(below, streaks, f"{drawn.angle:+.0f}°, {layers}, length {drawn.length:.0f} px", vmax=brightest)
    return figure


def _compass(axes: Axes, rain_scene: RainScene) -> None:
    """Draw the wind, and each version's rain around it, as a drop would fall."""
    axes.set(xlim=(-1, 1), ylim=(-1.25, 0.25), aspect="equal", title=f"wind {rain_scene.wind:+.0f}° (dashed)")
    axes.axis("off")
    for angle, style in [(rain_scene.wind, "--"), *((drawn.angle, "-") for drawn in rain_scene.parameters)]:
        x, y = math.sin(math.radians(angle)), -math.cos(math.radians(angle))
        colour = BLACK if style == "--" else VERMILION
        axes.plot([0, x], [0, y], style, color=colour, lw=1).pop().set_gid(f"angle:{angle:.3f}")


def _picture(value: Any) -> np.ndarray:
    """Return an array (H, W, 3) or a tensor (3, H, W) as float64 (H, W, 3) in [0, 1]."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().movedim(-3, -1).numpy() if value.ndim >= 3 else value.numpy()
    array = np.asarray(value)
    array = array[0] if array.ndim == 4 and len(array) == 1 else array
    if array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(f"a picture is an array (H, W, 3) or a tensor (3, H, W), got {array.shape}")
    array = array / 255 if array.dtype == np.uint8 else array
    if not np.issubdtype(array.dtype, np.floating) or not np.isfinite(array).all() or array.max() > 2:
        raise ValueError("a picture is uint8, or finite floats in [0, 1]: divide by 255?")
    return np.clip(array.astype(np.float64), 0, 1)


def _strongest(rain: np.ndarray) -> Crop:
    """Return the square with the most rain in it, out of an integral image."""
    side = min(max(32, min(rain.shape) // 4), *rain.shape)
    total = np.pad(rain.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    rows = total[side:] - total[:-side]
    squares = rows[:, side:] - rows[:, :-side]
    top, left = np.unravel_index(squares.argmax(), squares.shape)
    return int(top), int(left), side, side


def _distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.abs(x - y).mean(axis=2)


def _title(name: str, picture: np.ndarray, clean: np.ndarray, convention: str = "rgb") -> str:
    """Return name, PSNR and SSIM with their convention; SSIM needs sides of 11 pixels."""
    if picture is clean:
        return name
    x, y = (torch.from_numpy(np.ascontiguousarray(p)).movedim(-1, 0)[None] for p in (picture, clean))
    score = f"PSNR {psnr(x, y, convention).item():.2f} dB"
    if min(picture.shape[:2]) >= SSIM_SIDE:
        score += f", SSIM {ssim(x, y, convention).item():.3f}"
    return f"{name}\n{score} ({convention.upper()})"


def _show(axes: Axes, picture: np.ndarray, title: str, vmax: float = 1.0) -> None:
    """Show a colour picture as it is, and a single map in grey from black (0) to white (vmax)."""
    axes.imshow(picture, cmap="gray", vmin=0, vmax=vmax, interpolation="nearest")
    axes.set(title=title, xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)
