"""Six widgets for the notebooks, each with a static twin.

    widgets.rainfall(clean)           # sliders over a picture where someone can move them, else the picture

Every function takes `static`: None shows sliders in a notebook and leaves a still picture in the file, which GitHub
and printed pages show; True gives the picture alone (a Figure); False insists on the sliders. Only ipywidgets' own
controls are used, as versions 7.7 and 8 have them, and a PNG that is replaced when a value changes: nothing flickers,
and an exception in a callback surfaces.
"""

import base64
import importlib.util
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from manas_lite import draw
from manas_lite.course.illustrations import phase_plane
from manas_lite.course.toy import descend
from manas_lite.draw.style import BLUE, Drawing, styled
from manas_lite.metrics import psnr
from manas_lite.networks.genotype import Genotype
from manas_lite.networks.ops import OPERATIONS
from manas_lite.networks.space import SearchSpace
from manas_lite.photos.images import to_array, to_tensor
from manas_lite.rain import add_rain, rain_streaks
from manas_lite.runs.progress import headless, live_notebook

__all__ = ["Interactive", "before_after", "genotype_editor", "mixer", "rainfall", "replay", "toy_step"]

SIDE = 320  # pixels: pictures behind sliders are no larger, so that they follow the hand


SEVERAL = "(several)"
"""What the editor's choice shows where the edges that it would set differ."""


@dataclass(frozen=True)
class Slider:
    """A number. heavy: the picture waits until the slider is let go."""

    label: str
    value: float
    low: float
    high: float
    step: float
    heavy: bool = False


@dataclass(frozen=True)
class Choice:
    """One of several names."""

    label: str
    value: str
    options: tuple[str, ...]


Controls = Mapping[str, Slider | Choice]


class Interactive:
    """Controls over a picture. `values` are the controls' present values; `controls` the ipywidgets, by name.

    render: a function of the values, by name, that returns a Figure or PNG bytes.
    """

    def __init__(self, controls: Controls, render: Callable[..., Figure | bytes]) -> None:
        import ipywidgets

        self.render = render
        self.controls: dict[str, Any] = {name: _control(ipywidgets, spec) for name, spec in controls.items()}
        self.picture = ipywidgets.Image(value=_png(render(**self.values)), format="png")
        for control in self.controls.values():
            control.observe(self._changed, names="value")
        self.box = ipywidgets.VBox([*self.controls.values(), self.picture])

    @property
    def values(self) -> dict[str, Any]:
        return {name: control.value for name, control in self.controls.items()}

    def _changed(self, change: Any) -> None:
        self.picture.value = _png(self.render(**self.values))

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """Sliders for front ends that have them, the still picture for those that do not."""
        view = {"version_major": 2, "version_minor": 0, "model_id": self.box.model_id}
        still = base64.b64encode(bytes(self.picture.value)).decode()
        return {"application/vnd.jupyter.widget-view+json": view, "image/png": still, "text/plain": "sliders"}


def rainfall(clean: np.ndarray, *, static: bool | None = None) -> Any:
    """Rain of any level, wind and seed over a picture (H, W, 3): the picture, its streaks, its PSNR."""
    small = _shrunk(clean)

    @styled
    def render(level: float, wind: float, seed: float, blend: str) -> Figure:
        height, width, _ = small.shape
        streaks, _ = rain_streaks(height, width, level, int(seed), wind=wind)
        rainy = add_rain(small, level, int(seed), wind=wind, blend=blend)  # type: ignore[arg-type]
        x, y = (to_tensor(np.rint(255 * p).astype(np.uint8))[None] for p in (rainy, small / 255.0))
        score = "no rain" if level == 0 else f"PSNR {psnr(x, y).item():.1f} dB (RGB)"
        titles = (f"level {level:g}, wind {wind:+.0f}°: {score}", "the streaks alone")
        return _row((rainy, streaks), titles)

    controls: Controls = {
        "level": Slider("level", 2.0, 0.0, 4.0, 0.25),
        "wind": Slider("wind (°)", 15.0, -45.0, 45.0, 5.0),
        "seed": Slider("seed", 0, 0, 20, 1),
        "blend": Choice("blend", "screen", ("screen", "add")),
    }
    return _show(controls, render, static)


def genotype_editor(genotype: Genotype, *, table: Mapping[str, float] | None = None, static: bool | None = None) -> Any:
    """Change one place of an architecture after another; the drawing and its cost follow.

    Going to another place changes nothing: the choice shows what stands there, until another one is made. table: PSNR
    by genotype id; shown where the architecture stands in it. The place `all edges` sets them alike.
    """
    space = genotype.space
    places = [f"module {k}" for k in range(len(genotype.modules))] + [f"edge {k}" for k in range(len(genotype.edges))]
    places += ["all edges"] if genotype.edges else []
    current, shown = genotype, places[0]

    def at(place: str) -> tuple[str, Sequence[int]]:
        """Where a place lies: the field of the genotype, and its entries."""
        kind, number = place.split()
        entries = range(len(genotype.edges)) if kind == "all" else (int(number),)
        return "modules" if kind == "module" else "edges", entries

    def standing(place: str) -> str:
        field, entries = at(place)
        names = {getattr(current, field)[k] for k in entries}
        return names.pop() if len(names) == 1 else SEVERAL

    def render(place: str, choice: str) -> Figure:
        nonlocal current, shown
        field, entries = at(place)
        known = ("parallel", "fusion") if field == "modules" else space.operations
        if place == shown and choice in known:  # a choice of the other kind changes nothing
            names = list(getattr(current, field))
            for k in entries:
                names[k] = choice
            changed: dict[str, Any] = {field: tuple(names)}
            current = replace(current, **changed)
        shown = place
        figure = draw.architecture(current)
        text = f"{current.cost():,.0f} parameters, {current.cost('flops') / 1e9:.2f} GFLOPs at 256 × 256"
        if table is not None:
            text += f", PSNR {table[current.id]:.2f} dB" if current.id in table else ", not in the table"
        figure.text(0.99, 0.97, text, ha="right", va="top", size=9)
        return figure

    controls: Controls = {
        "place": Choice("place", places[0], tuple(places)),
        "choice": Choice("choice", genotype.modules[0], ("parallel", "fusion", *space.operations, SEVERAL)),
    }
    editor = _show(controls, render, static)
    if isinstance(editor, Interactive):
        place, choice = editor.controls["place"], editor.controls["choice"]
        place.observe(lambda change: setattr(choice, "value", standing(change["new"])), names="value")
    return editor


def mixer(picture: np.ndarray, *, static: bool | None = None, seed: int = 0) -> Any:
    """One searched edge: logits and temperature -> softmax weights -> the mixture of four gates on a picture."""
    names = ("skip_connect", "SE", "sep_conv_3x3_spatial", "none")
    x = to_tensor(_shrunk(picture))[None].repeat(1, 2, 1, 1)  # six channels, two of each colour
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        gates = [OPERATIONS[name](6, "batch").eval() for name in names]
        outputs = torch.stack([gate(x)[0, :3] for gate in gates])

    @styled
    def render(temperature: float, **logits: float) -> Figure:
        weights = torch.softmax(torch.tensor([logits[name] for name in names]) / temperature, 0)
        mixed = (weights[:, None, None, None] * outputs).sum(0)
        figure = Drawing(figsize=(7.2, 2.5), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.barh(range(len(names)), weights.tolist(), color=BLUE)
        left.set(yticks=range(len(names)), yticklabels=names, xlim=(0, 1), title="softmax weights")
        for k, weight in enumerate(weights.tolist()):
            left.text(min(weight + 0.02, 0.85), k, f"{weight:.2f}", va="center")
        right.imshow(to_array(mixed))
        right.set(title="x · Σ weight · gate(x)", xticks=[], yticks=[])
        return figure

    controls: dict[str, Slider | Choice] = {name: Slider(name, 0.0, -4.0, 4.0, 0.25) for name in names}
    controls["temperature"] = Slider("temperature", 1.0, 0.1, 4.0, 0.1)
    return _show(controls, render, static)


def toy_step(*, static: bool | None = None) -> Any:
    """The quadratic toy under a virtual step of size xi and a learning rate, beside first order."""

    def render(xi: float, rate: float) -> Figure:
        first = descend("first", rate=rate)
        second = descend("exact", xi=xi, rate=rate, label=f"exact, xi = {xi:g}")
        return phase_plane([first, second])

    controls: Controls = {
        "xi": Slider("xi", 0.5, 0.0, 1.0, 0.05, heavy=True),
        "rate": Slider("rate", 0.1, 0.02, 0.4, 0.02, heavy=True),
    }
    return _show(controls, render, static)


def replay(log: Sequence[Mapping[str, Any]], space: SearchSpace, *, static: bool | None = None) -> Any:
    """A search played back: the relaxed network after each epoch, thickness being weight. log: SearchResult.log."""
    epochs = [record for record in log if record.get("kind") == "epoch"]
    if not epochs:
        raise ValueError("the log holds no epoch: give SearchResult.log, or the records of a search's log.jsonl")
    frames: dict[int, bytes] = {}

    def render(epoch: float) -> bytes:
        number = int(epoch)
        if number not in frames:
            record = epochs[number]
            figure = draw.mixture(record["alpha"], record["beta"], space)
            text = f"epoch {record['epoch']}: expected cost {record['expected_cost']:.0%} of the largest network"
            figure.text(0.99, 0.98, text, ha="right", va="top", size=9)
            frames[number] = _png(figure)
        return frames[number]

    last = len(epochs) - 1
    return _show({"epoch": Slider("epoch", last, 0, last, 1, heavy=True)}, render, static)


def before_after(before: np.ndarray, after: np.ndarray, *, static: bool | None = None) -> Any:
    """Two pictures (H, W, 3) uint8 of one size under a line that can be moved: left of it before, right of it after."""
    if before.shape != after.shape:
        raise ValueError(f"the two pictures differ in size: {before.shape} and {after.shape}")
    left, right = _shrunk(before, 2 * SIDE), _shrunk(after, 2 * SIDE)

    def render(position: float) -> bytes:
        width = left.shape[1]
        at = round(position / 100 * width)
        picture = np.concatenate([left[:, :at], right[:, at:]], axis=1)
        picture[:, max(0, at - 1) : at + 1] = (230, 159, 0)
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, format="PNG")
        return buffer.getvalue()

    return _show({"position": Slider("before | after", 50, 0, 100, 1)}, render, static)


# --- machinery ---


class Still:
    """A picture that a notebook shows: the static twin where the twin is bytes."""

    def __init__(self, png: bytes) -> None:
        self.png = png

    def _repr_png_(self) -> bytes:
        return self.png


def _show(controls: Controls, render: Callable[..., Figure | bytes], static: bool | None) -> Any:
    if static is None:
        looked_at = live_notebook() and not headless()
        static = not (looked_at and importlib.util.find_spec("ipywidgets"))
    if not static:
        return Interactive(controls, render)
    drawn = render(**{name: spec.value for name, spec in controls.items()})
    return Still(drawn) if isinstance(drawn, bytes) else drawn


def _control(ipywidgets: Any, spec: Slider | Choice) -> Any:
    style = {"description_width": "150px"}
    if isinstance(spec, Choice):
        return ipywidgets.Dropdown(options=list(spec.options), value=spec.value, description=spec.label, style=style)
    whole = all(float(number).is_integer() for number in (spec.value, spec.low, spec.high, spec.step))
    kind = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
    number = int if whole else float
    return kind(
        value=number(spec.value),
        min=number(spec.low),
        max=number(spec.high),
        step=number(spec.step),
        description=spec.label,
        continuous_update=not spec.heavy,
        style=style,
        layout=ipywidgets.Layout(width="480px"),
    )


def _png(drawn: Figure | bytes) -> bytes:
    return drawn if isinstance(drawn, bytes) else drawn._repr_png_()  # type: ignore[attr-defined]


def _row(pictures: Sequence[np.ndarray], titles: Sequence[str]) -> Figure:
    height, width = pictures[0].shape[:2]
    figure = Drawing(figsize=(7.2, 3.6 * height / width + 0.3), layout="constrained")
    for axes, picture, title in zip(figure.subplots(1, len(pictures)), pictures, titles, strict=True):
        axes.imshow(picture, cmap="gray", vmin=0, vmax=1)
        axes.set(title=title, xticks=[], yticks=[])
    return figure


def _shrunk(picture: np.ndarray, side: int = SIDE) -> np.ndarray:
    """uint8 (H, W, 3), at most `side` pixels long."""
    image = Image.fromarray(np.asarray(picture))
    image.thumbnail((side, side))
    return np.asarray(image).copy()
