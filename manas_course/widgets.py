"""Seven widgets for the notebooks, each with a static twin.

    widgets.rainfall(clean)           # sliders over a picture where someone can move them, else the picture

Every function takes `static`. None shows sliders in a notebook and leaves a still picture in the file, which GitHub
and printed pages show. True gives the picture alone, False insists on the sliders. Only ipywidgets' own controls are
used, as versions 7.7 and 8 have them. The picture is a PNG that is replaced when a value changes, so that nothing
flickers and an exception in a callback surfaces.
"""

import base64
import importlib.util
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from manas_course.illustrations import phase_plane
from manas_course.jobs import headless
from manas_course.toy import descend
from manas_lite import draw
from manas_lite.draw.style import BLUE, Drawing, styled
from manas_lite.metrics import psnr
from manas_lite.networks.genotype import Genotype
from manas_lite.networks.ops import OPERATIONS
from manas_lite.networks.space import SearchSpace
from manas_lite.photos.images import to_array, to_tensor
from manas_lite.rain import add_rain, rain_streaks
from manas_lite.runs.progress import live_notebook

__all__ = [
    "Interactive",
    "before_after",
    "genotype_editor",
    "mixer",
    "network_within",
    "rainfall",
    "replay",
    "toy_step",
]

SIDE = 320  # pixels: pictures behind sliders are no larger, so that they follow the hand
STYLE = {"description_width": "150px"}

SEVERAL = "(several)"
"""What the editor's choice shows where the edges that it would set differ."""


class Slider(NamedTuple):
    """A control that sets a number. A heavy picture waits until the slider is let go."""

    label: str
    value: float
    low: float
    high: float
    step: float
    heavy: bool = False

    def control(self) -> Any:
        """Return the ipywidget."""
        from ipywidgets import FloatSlider, IntSlider, Layout

        kind = IntSlider if all(float(number).is_integer() for number in self[1:5]) else FloatSlider
        range_ = {"value": self.value, "min": self.low, "max": self.high, "step": self.step}
        looks = {"description": self.label, "style": STYLE, "layout": Layout(width="480px")}
        return kind(continuous_update=not self.heavy, **range_, **looks)


class Choice(NamedTuple):
    """A control that sets one of several names."""

    label: str
    value: str
    options: tuple[str, ...]

    def control(self) -> Any:
        """Return the ipywidget."""
        from ipywidgets import Dropdown

        return Dropdown(options=list(self.options), value=self.value, description=self.label, style=STYLE)


Controls = Mapping[str, Slider | Choice]
Render = Callable[..., Figure | bytes]


class Interactive:
    """Controls over a picture."""

    def __init__(self, controls: Controls, render: Render) -> None:
        """Show the picture under its controls.

        Args:
            controls: what can be set, by name.
            render: a function of the controls' values, by the same names, that returns a Figure or the bytes of a PNG.
        """
        import ipywidgets

        self.render = render
        self.controls: dict[str, Any] = {name: spec.control() for name, spec in controls.items()}
        self.picture = ipywidgets.Image(value=_png(render(**self.values)), format="png")
        for control in self.controls.values():
            control.observe(self._changed, names="value")
        self.box = ipywidgets.VBox([*self.controls.values(), self.picture])

    @property
    def values(self) -> dict[str, Any]:
        """The present value of each control."""
        return {name: control.value for name, control in self.controls.items()}

    def _changed(self, change: Any) -> None:
        self.picture.value = _png(self.render(**self.values))

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """Return sliders for front ends that have them, and the still picture for those that do not."""
        view = {"version_major": 2, "version_minor": 0, "model_id": self.box.model_id}
        still = base64.b64encode(bytes(self.picture.value)).decode()
        return {"application/vnd.jupyter.widget-view+json": view, "image/png": still, "text/plain": "sliders"}


def rainfall(clean: np.ndarray, *, static: bool | None = None) -> Any:
    """Show rain of any level, wind and seed over a picture (H, W, 3) uint8: the picture, its streaks, its PSNR."""
    small = _shrunk(clean)

    @styled
    def render(level: float, wind: float, seed: float, blend: str) -> Figure:
        height, width, _ = small.shape
        streaks, _ = rain_streaks(height, width, level, int(seed), wind=wind)
        rainy = add_rain(small, level, int(seed), wind=wind, blend=blend)  # type: ignore[arg-type]
        x, y = (to_tensor(np.rint(255 * p).astype(np.uint8))[None] for p in (rainy, small / 255.0))
        score = "no rain" if level == 0 else f"PSNR {psnr(x, y).item():.1f} dB (RGB)"
        titles = {f"level {level:g}, wind {wind:+.0f}°: {score}": rainy, "the streaks alone": streaks}
        figure = Drawing(figsize=(7.2, 3.6 * height / width + 0.3), layout="constrained")
        for axes, (title, picture) in zip(figure.subplots(1, 2), titles.items(), strict=True):
            axes.imshow(picture, cmap="gray", vmin=0, vmax=1)
            axes.set(title=title, xticks=[], yticks=[])
        return figure

    controls: Controls = {
        "level": Slider("level", 2.0, 0.0, 4.0, 0.25),
        "wind": Slider("wind (°)", 15.0, -45.0, 45.0, 5.0),
        "seed": Slider("seed", 0, 0, 20, 1),
        "blend": Choice("blend", "screen", ("screen", "add")),
    }
    return _show(controls, render, static)


def genotype_editor(genotype: Genotype, *, table: Mapping[str, float] | None = None, static: bool | None = None) -> Any:
    """Show the drawing and the cost of an architecture of which one place after another can be changed.

    Going to another place changes nothing: the choice shows what stands there, until another one is made. The place
    `all edges` sets them alike.

    Args:
        genotype: the architecture to begin with.
        table: PSNR in dB by genotype id, shown where the architecture stands in it.
        static: see the top of this module.
    """
    space = genotype.space
    entries = {"modules": range(len(genotype.modules)), "edges": range(len(genotype.edges))}
    places: dict[str, tuple[str, Sequence[int]]]  # the field of the genotype, and its entries
    places = {f"{field[:-1]} {k}": (field, (k,)) for field, numbers in entries.items() for k in numbers}
    if genotype.edges:
        places["all edges"] = "edges", entries["edges"]
    current, shown = genotype, "module 0"

    def standing(place: str) -> str:
        field, numbers = places[place]
        names = {getattr(current, field)[k] for k in numbers}
        return names.pop() if len(names) == 1 else SEVERAL

    def render(place: str, choice: str) -> Figure:
        nonlocal current, shown
        field, numbers = places[place]
        known = space.modules if field == "modules" else space.operations
        if place == shown and choice in known:  # a choice of the other kind changes nothing
            names = tuple(choice if k in numbers else old for k, old in enumerate(getattr(current, field)))
            current = replace(current, **{field: names})  # type: ignore[arg-type]
        shown = place
        figure = draw.architecture(current)
        text = f"{current.cost():,.0f} parameters, {current.cost('flops') / 1e9:.2f} GFLOPs at 256 × 256"
        if table is not None:
            text += f", PSNR {table[current.id]:.2f} dB" if current.id in table else ", not in the table"
        figure.text(0.99, 0.97, text, ha="right", va="top", size=9)
        return figure

    controls: Controls = {
        "place": Choice("place", shown, tuple(places)),
        "choice": Choice("choice", genotype.modules[0], (*space.modules, *space.operations, SEVERAL)),
    }
    editor = _show(controls, render, static)
    if isinstance(editor, Interactive):
        place, choice = editor.controls["place"], editor.controls["choice"]
        place.observe(lambda change: setattr(choice, "value", standing(change["new"])), names="value")
    return editor


def network_within(
    genotypes: Sequence[Genotype],
    cost: np.ndarray,
    seen: np.ndarray,
    expected: np.ndarray,
    error: float,
    *,
    budget: float,
    unit: str,
    static: bool | None = None,
) -> Any:
    """Show the best network within a budget that can be moved: its drawing, its cost, and the PSNR to expect of it.

    Args:
        genotypes: the networks to choose from.
        cost: what each costs, in `unit`.
        seen: the score of each by which the choice is made.
        expected: the PSNR of each in dB, from other trainings than those behind `seen`.
        error: the standard error of `expected`, in dB.
        budget: the limit to begin with.
        unit: what cost is measured in.
        static: see the top of this module.
    """

    @styled
    def render(budget: float) -> Figure:
        fits = cost <= budget
        if not fits.any():
            figure: Figure = Drawing(figsize=(7.0, 1.2))
            figure.text(0.02, 0.5, f"impossible: no network costs {budget:.4g} {unit}, the least is {cost.min():.4g}")
            return figure
        best = int(np.where(fits, seen, -np.inf).argmax())
        figure = draw.architecture(genotypes[best])
        text = f"{cost[best]:.1f} of {budget:.4g} {unit}, PSNR {expected[best]:.2f} ± {error:.2f} dB"
        figure.text(0.99, 0.97, text, ha="right", va="top", size=9)
        return figure

    low, high = min(0.9 * float(cost.min()), budget), max(1.02 * float(cost.max()), budget)
    return _show({"budget": Slider(unit, budget, low, high, (high - low) / 60, heavy=True)}, render, static)


def mixer(picture: np.ndarray, *, static: bool | None = None, seed: int = 0) -> Any:
    """Show one searched edge on a picture: logits and temperature, softmax weights, the mixture of four gates."""
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
    """Show the quadratic toy under a virtual step of size xi and a learning rate, beside first order."""

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
    """Show a search (`SearchResult.log`) again: the relaxed network after each epoch, thickness being weight."""
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
    """Show two pictures (H, W, 3) uint8 of one size beside a line that can be moved: left before, right after."""
    if before.shape != after.shape:
        raise ValueError(f"the two pictures differ in size: {before.shape} and {after.shape}")
    left, right = _shrunk(before, 2 * SIDE), _shrunk(after, 2 * SIDE)

    def render(position: float) -> bytes:
        width = left.shape[1]
        at = round(position / 100 * width)
        picture = np.concatenate([left[:, :at], right[:, at:]], axis=1)
        picture[:, max(0, at - 1) : at + 1] = (230, 159, 0)
        Image.fromarray(picture).save(buffer := io.BytesIO(), format="PNG")
        return buffer.getvalue()

    return _show({"position": Slider("before | after", 50, 0, 100, 1)}, render, static)


# --- machinery ---


class Still(NamedTuple):
    """A picture that a notebook shows: the static twin where the twin is bytes."""

    png: bytes

    def _repr_png_(self) -> bytes:
        return self.png


def _show(controls: Controls, render: Render, static: bool | None) -> Any:
    if static is None:
        looked_at = live_notebook() and not headless()
        static = not (looked_at and importlib.util.find_spec("ipywidgets"))
    if not static:
        return Interactive(controls, render)
    drawn = render(**{name: spec.value for name, spec in controls.items()})
    return Still(drawn) if isinstance(drawn, bytes) else drawn


def _png(drawn: Figure | bytes) -> bytes:
    return drawn if isinstance(drawn, bytes) else drawn._repr_png_()  # type: ignore[attr-defined]


def _shrunk(picture: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Return a picture, uint8 (H, W, 3), at most `side` pixels long."""
    image = Image.fromarray(np.asarray(picture))
    image.thumbnail((side, side))
    return np.asarray(image).copy()
