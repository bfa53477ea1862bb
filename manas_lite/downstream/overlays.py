"""Detections drawn as boxes, classes as colours: to lay the rainy, derained and clean picture side by side."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from manas_lite.downstream.boxes import CATEGORIES, Boxes
from manas_lite.downstream.masks import IGNORE
from manas_lite.draw.style import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, YELLOW

__all__ = ["draw_boxes", "draw_classes"]

_COLOURS = (ORANGE, SKY, GREEN, YELLOW, VERMILION, BLUE, PURPLE)


def draw_boxes(picture: np.ndarray, boxes: Boxes, score: float = 0.5) -> np.ndarray:
    """A copy of the picture, uint8 (H, W, 3), with the boxes of at least this score, their category and score."""
    image = Image.fromarray(picture)
    pen, size = ImageDraw.Draw(image), max(12, min(picture.shape[:2]) // 24)
    font = ImageFont.load_default(size=size)
    sure = boxes.above(score)
    for corners, label, value in zip(sure.corners, sure.labels, sure.scores, strict=True):
        colour = _COLOURS[label % len(_COLOURS)]
        pen.rectangle(tuple(corners), outline=colour, width=max(2, size // 6))
        text = CATEGORIES[int(label)] + ("" if value == 1 else f" {value:.2f}")
        place = corners[0], max(0, corners[1] - size - 2)
        pen.rectangle(pen.textbbox(place, text, font=font), fill=colour)
        pen.text(place, text, fill="black", font=font)
    return np.asarray(image).copy()


def draw_classes(picture: np.ndarray, classes: np.ndarray, names: Sequence[str], share: float = 0.55) -> np.ndarray:
    """A copy of the picture, tinted by class, with a legend of those that occur; pixels of no class stay."""
    palette = np.array([ImageColor.getrgb(_colour(k)) for k in range(len(names))], float)
    known = classes != IGNORE
    tinted = picture.astype(float)
    tinted[known] = (1 - share) * tinted[known] + share * palette[classes[known]]
    image = Image.fromarray(np.rint(tinted).astype(np.uint8))
    pen, size = ImageDraw.Draw(image), max(11, min(picture.shape[:2]) // 26)
    font = ImageFont.load_default(size=size)
    for row, k in enumerate(int(k) for k in np.unique(classes[known])):
        place = 4, 4 + row * (size + 4)
        pen.rectangle(pen.textbbox(place, names[k], font=font), fill=_colour(k))
        pen.text(place, names[k], fill="black", font=font)
    return np.asarray(image).copy()


def _colour(k: int) -> str:
    """Seven colours that colour-blind readers tell apart, then the same ones darker."""
    colour = _COLOURS[k % len(_COLOURS)]
    if k < len(_COLOURS):
        return colour
    return "#" + "".join(f"{int(value * 0.55):02x}" for value in ImageColor.getrgb(colour))
