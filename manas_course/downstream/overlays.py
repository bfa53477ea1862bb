"""Detections drawn as boxes, classes as colours: to lay the rainy, derained and clean picture side by side."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from manas_course.downstream.boxes import CATEGORIES, Boxes
from manas_course.downstream.masks import IGNORE
from manas_lite.draw.style import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, YELLOW

LEGIBLE = 12  # height of the smallest letters, pixels
_COLOURS = (ORANGE, SKY, GREEN, YELLOW, VERMILION, BLUE, PURPLE)


def draw_boxes(picture: np.ndarray, boxes: Boxes, score: float = 0.5, shown: int = 0) -> np.ndarray:
    """Return a copy of a picture, uint8 (H, W, 3), with the boxes of at least this score, named and scored.

    Args:
        picture: the picture.
        boxes: of it.
        score: the least one that is drawn.
        shown: the width at which the picture will be shown, where that is less: the letters are then as much larger.
    """
    image = Image.fromarray(picture)
    pen, size = ImageDraw.Draw(image), _letters(picture, 24, shown)
    sure = boxes.above(score)
    for corners, label, value in zip(sure.corners, sure.labels, sure.scores, strict=True):
        colour = _COLOURS[label % len(_COLOURS)]
        pen.rectangle(tuple(corners), outline=colour, width=max(2, size // 6))
        text = CATEGORIES[int(label)] + ("" if value == 1 else f" {value:.2f}")
        _label(pen, (corners[0], max(0, corners[1] - size - 2)), text, colour, size)
    return np.asarray(image).copy()


def draw_classes(
    picture: np.ndarray, classes: np.ndarray, names: Sequence[str], share: float = 0.55, shown: int = 0
) -> np.ndarray:
    """Return a copy of the picture, tinted by class, with a legend of the classes that occur.

    Args:
        picture: uint8 (H, W, 3).
        classes: uint8 (H, W); pixels of the class IGNORE stay as they are.
        names: of the classes.
        share: of the tint, from 0 to 1.
        shown: the width at which the picture will be shown, where that is less: the letters are then as much larger.
    """
    palette = np.array([ImageColor.getrgb(_colour(k)) for k in range(len(names))], float)
    known = classes != IGNORE
    tinted = picture.astype(float)
    tinted[known] = (1 - share) * tinted[known] + share * palette[classes[known]]
    image = Image.fromarray(np.rint(tinted).astype(np.uint8))
    pen, size = ImageDraw.Draw(image), _letters(picture, 26, shown)
    for row, k in enumerate(np.unique(classes[known]).tolist()):
        _label(pen, (4, 4 + row * (size + 4)), names[k], _colour(k), size)
    return np.asarray(image).copy()


def _letters(picture: np.ndarray, share: int, shown: int) -> int:
    """Return the height of letters, pixels: a share of the picture's smaller side, and LEGIBLE when it is shown."""
    height, width = picture.shape[:2]
    return max(LEGIBLE, min(height, width) // share, LEGIBLE * width // shown if shown else 0)


def _label(pen: ImageDraw.ImageDraw, place: tuple[float, float], text: str, colour: str, size: int) -> None:
    font = ImageFont.load_default(size=size)
    pen.rectangle(pen.textbbox(place, text, font=font), fill=colour)
    pen.text(place, text, fill="black", font=font)


def _colour(k: int) -> str:
    """Return one of seven colours that colour-blind readers tell apart; from the eighth on, the same ones darker."""
    colour = _COLOURS[k % len(_COLOURS)]
    if k < len(_COLOURS):
        return colour
    return "#" + "".join(f"{int(value * 0.55):02x}" for value in ImageColor.getrgb(colour))
