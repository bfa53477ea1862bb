"""Contact sheets: many small pictures in rows, each row named, for looking rather than for measuring."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

MARGIN = 6  # white pixels between pictures
TEXT = 14  # height of the letters, pixels


def thumbnail(picture: np.ndarray, width: int = 320) -> np.ndarray:
    """Return a picture, uint8 or uint16 (H, W, 3) or (H, W), at a smaller size.

    The result is uint8 (h, w, 3), with w at most `width` and h at most 1.5 times that.
    """
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
    """Return rows of pictures as one picture, uint8 (H, W, 3), with names above the columns and below each row.

    Args:
        rows: (name, one picture per column) of each row.
        columns: names of the columns.
        width: of a picture, in pixels.
        pairs: how many rows stand side by side.

    Raises:
        ValueError: there is no row, or a row has not one picture per column.
    """
    if not rows:
        raise ValueError("no pictures for the contact sheet: the list is empty")
    for name, pictures in rows:
        if len(pictures) != len(columns):
            raise ValueError(f"row {name!r} has {len(pictures)} pictures for {len(columns)} columns")
    font = ImageFont.load_default(size=TEXT - 2)
    small = [(name, [thumbnail(picture, width) for picture in pictures]) for name, pictures in rows]
    pairs = min(pairs, len(small))
    cell = width + MARGIN
    heights = [
        max(p.shape[0] for _, pictures in small[i : i + pairs] for p in pictures) for i in range(0, len(small), pairs)
    ]
    line = TEXT + MARGIN
    size = MARGIN + pairs * len(columns) * cell, MARGIN + line + sum(height + line for height in heights)
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    for k in range(pairs * len(columns)):
        pen.text((MARGIN + k * cell, MARGIN), columns[k % len(columns)], fill="black", font=font)
    top = MARGIN + line
    for i, height in enumerate(heights):
        for j, (name, pictures) in enumerate(small[i * pairs : (i + 1) * pairs]):
            left = MARGIN + j * len(columns) * cell
            for k, picture in enumerate(pictures):
                sheet.paste(Image.fromarray(picture), (left + k * cell, top))
            pen.text((left, top + height), name, fill="black", font=font)
        top += height + line
    return np.asarray(sheet).copy()
