"""Contact sheets: many small pictures in rows, each row named, for looking rather than for measuring."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = ["contact_sheet", "thumbnail"]

GAP = 6  # white pixels between pictures
TEXT = 14  # height of the letters, pixels


def thumbnail(picture: np.ndarray, width: int = 320) -> np.ndarray:
    """uint8 or uint16 (H, W, 3) or (H, W) -> uint8 (h, w, 3), w at most `width` and h at most 1.5 times that."""
    values = np.asarray(picture)
    if values.dtype == np.uint16:
        values = np.rint(values / 257.0).astype(np.uint8)
    image = Image.fromarray(values).convert("RGB")
    image.thumbnail((width, width * 3 // 2), Image.Resampling.LANCZOS)
    return np.asarray(image).copy()


def contact_sheet(
    rows: Sequence[tuple[str, Sequence[np.ndarray]]],
    columns: Sequence[str] = ("before", "after"),
    *,
    width: int = 320,
    pairs: int = 2,
) -> np.ndarray:
    """Rows of pictures as one, uint8 (H, W, 3): the columns' names above, each row's name below its pictures.

    rows: (name, one picture a column). width: of a picture, pixels. pairs: rows that stand side by side.
    Raises ValueError for no row, or a row without a picture for each column.
    """
    if not rows:
        raise ValueError("no pictures for the contact sheet: the list is empty")
    for name, pictures in rows:
        if len(pictures) != len(columns):
            raise ValueError(f"row {name!r} has {len(pictures)} pictures for {len(columns)} columns")
    font = ImageFont.load_default(size=TEXT - 2)
    small = [(name, [thumbnail(picture, width) for picture in pictures]) for name, pictures in rows]
    pairs = min(pairs, len(small))
    cell = width + GAP
    heights = [
        max(p.shape[0] for _, pictures in small[i : i + pairs] for p in pictures) for i in range(0, len(small), pairs)
    ]
    line = TEXT + GAP
    sheet = Image.new("RGB", (GAP + pairs * len(columns) * cell, GAP + line + sum(h + line for h in heights)), "white")
    pen = ImageDraw.Draw(sheet)
    for k in range(pairs * len(columns)):
        pen.text((GAP + k * cell, GAP), columns[k % len(columns)], fill="black", font=font)
    top = GAP + line
    for i, height in enumerate(heights):
        for j, (name, pictures) in enumerate(small[i * pairs : (i + 1) * pairs]):
            left = GAP + j * len(columns) * cell
            for k, picture in enumerate(pictures):
                sheet.paste(Image.fromarray(picture), (left + k * cell, top))
            pen.text((left, top + height), name, fill="black", font=font)
        top += height + line
    return np.asarray(sheet).copy()
