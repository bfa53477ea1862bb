"""The drawings of ideas: readable in both modes, nothing over anything else, and told in words."""

import base64
import html
import io
import re

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.patches import FancyBboxPatch
from PIL import Image

from manas_course import diagrams
from tools.course import contents

NAMES = [name for name in diagrams.__all__ if name != "Diagram"]
MODES = {"light": diagrams.LIGHT, "dark": diagrams.DARK}
each = pytest.mark.parametrize("name", NAMES)


def contrast(one: str, other: str) -> float:
    """How far two colours are apart: WCAG 2.1, 1 to 21; text needs 4.5."""
    levels = []
    for colour in (one, other):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
        levels.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(levels) + 0.05) / (min(levels) + 0.05)


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("#000000", "#FFFFFF") == pytest.approx(21)
    assert contrast("#777777", "#FFFFFF") == pytest.approx(4.48, abs=0.01)


@each
def test_no_words_lie_over_others_or_leave_the_drawing(name: str) -> None:
    drawn = getattr(diagrams, name)()
    for figure in (drawn.light, drawn.dark):
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        width, height = canvas.get_width_height()
        axes = figure.axes[0]
        words = [(text.get_text(), text.get_window_extent(canvas.get_renderer())) for text in axes.texts]
        words = [(text, place) for text, place in words if text]
        assert len(words) >= 5
        for k, (text, place) in enumerate(words):
            assert place.x0 >= 0, text
            assert place.y0 >= 0, text
            assert place.x1 <= width, text
            assert place.y1 <= height, text
            for other, there in words[k + 1 :]:
                assert not place.overlaps(there), f"{text!r} over {other!r}"
        boxes = [patch.get_window_extent() for patch in axes.patches if isinstance(patch, FancyBboxPatch)]
        for text, place in words:  # words are inside a box or outside of it, and never over its edge
            for box in boxes:
                inside = box.x0 < place.x0 and place.x1 < box.x1 and box.y0 < place.y0 and place.y1 < box.y1
                assert inside or not box.overlaps(place), f"{text!r} crosses the edge of a box"


@each
def test_letters_are_large_enough_at_700_pixels(name: str) -> None:
    drawn = getattr(diagrams, name)()
    for figure in (drawn.light, drawn.dark):
        pixels = 700 / (figure.get_figwidth() * 72)  # per point
        assert min(text.get_fontsize() * pixels for text in figure.axes[0].texts if text.get_text()) >= 12


@pytest.mark.parametrize("mode", MODES)
def test_every_colour_of_a_mode_can_be_read(mode: str) -> None:
    ink = MODES[mode]
    for fill, edge in ink.kinds.values():
        assert contrast(ink.ink, fill) >= 4.5
        assert contrast(edge, ink.paper) >= 3  # lines and edges need less than letters
    assert contrast(ink.ink, ink.paper) >= 4.5
    assert contrast(ink.accent, ink.paper) >= 4.5
    assert contrast(ink.accent, ink.kinds["grey"][0]) >= 4.5  # the panels of hypergradients


@each
def test_a_page_gets_both_modes_and_the_words(name: str) -> None:
    drawn = getattr(diagrams, name)()
    bundle = drawn._repr_mimebundle_()
    assert bundle["text/plain"] == drawn.alt
    assert len(drawn.alt.split()) >= 25
    assert f'alt="{html.escape(drawn.alt)}"' in bundle["text/html"]
    (dark,) = re.findall(r'prefers-color-scheme: dark\)" srcset="data:image/png;base64,([^"]+)"', bundle["text/html"])
    (light,) = re.findall(r'<img [^>]*src="data:image/png;base64,([^"]+)"', bundle["text/html"])
    assert light == bundle["image/png"]
    seen = {key: Image.open(io.BytesIO(base64.b64decode(code))).convert("RGB") for key, code in
            {"light": light, "dark": dark}.items()}  # fmt: skip
    assert seen["light"].size == seen["dark"].size
    for key, picture in seen.items():
        assert picture.getpixel((1, 1)) == tuple(round(255 * c) for c in to_rgb(MODES[key].paper))
    assert len(light) < 100_000


def test_each_drawing_stands_in_a_notebook() -> None:
    used = {name for notebook in contents.notebooks() for name in re.findall(r"diagrams\.(\w+)\(\)", notebook.source)}
    assert used == set(NAMES)
