"""How well a network derains scenes: PSNR and SSIM per picture, means per rain level, conventions named."""

import copy
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from manas_lite.compute.runtime import Compute, ComputeSettings
from manas_lite.data import Scene, Split, open_split
from manas_lite.metrics import CONVENTIONS, SSIM_SIDE, psnr, ssim
from manas_lite.networks.backbone import Backbone
from manas_lite.photos.images import to_tensor
from manas_lite.photos.inference import borrowed, derain_batch
from manas_lite.runs.progress import Progress

MEASURES = {"psnr": psnr, "ssim": ssim}
HIGHEST = 100.0
"""What a picture counts at most in a mean by which networks are chosen, in dB: nothing could beat an infinite one."""
CELLS = {"psnr": (9, 2), "ssim": (10, 4)}  # width and decimals in a table


@dataclass(frozen=True)
class EvaluationResult:
    """The scores of every picture; as text, a table of their means."""

    rows: list[dict[str, Any]] = field(repr=False)
    """One per rainy picture: `scene`, `label` (rain level or file), and for each measure and convention `psnr_rgb`,
    `ssim_y`, ... of the derained picture and `rainy_psnr_rgb`, ... of the input."""
    device: str
    """Where the network computed, such as `cpu`."""
    precision: str
    """What it computed in, such as `float32`."""

    def means(self, label: str | None = None) -> dict[str, float]:
        """Return the mean of each measure over all pictures, or over those of one label.

        A picture equal to its clean one has an infinite PSNR: it is left out, unless there is no other.
        """
        rows = [row for row in self.rows if label in (None, row["label"])]
        if not rows:
            raise ValueError(f"no picture has the label {label!r}: there are {', '.join(self.labels)}")
        rows = [row for row in rows if not _identical(row)] or rows
        names = [name for name, value in rows[0].items() if isinstance(value, float)]
        return {name: fmean(row[name] for row in rows) for name in names}

    @property
    def identical(self) -> int:
        """How many pictures are equal to their clean ones, derained or as they were."""
        return sum(_identical(row) for row in self.rows)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order of first appearance."""
        return tuple(dict.fromkeys(row["label"] for row in self.rows))

    @property
    def columns(self) -> tuple[str, ...]:
        """What was measured: some of `psnr_rgb`, `psnr_y`, `ssim_rgb`, `ssim_y`, in this order."""
        names = (f"{measure}_{convention}" for measure in MEASURES for convention in CONVENTIONS)
        return tuple(name for name in names if name in self.rows[0])

    def __str__(self) -> str:
        return table({"derained": self})

    @property
    def gain(self) -> float:
        """Mean PSNR (RGB) of the outputs less that of the inputs, in dB; ValueError where it was not measured."""
        if "psnr_rgb" not in self.columns:
            raise ValueError(f"the gain is in PSNR (RGB), and measured were {', '.join(self.columns)}")
        means = self.means()
        return means["psnr_rgb"] - means["rainy_psnr_rgb"]


def _identical(row: dict[str, Any]) -> bool:
    return any(math.isinf(value) for value in row.values() if isinstance(value, float))  # NaN is no such excuse


def evaluate(
    net: nn.Module,
    scenes: Iterable[Scene] | Split | str | Path,
    *,
    conventions: Sequence[str] = CONVENTIONS,
    measures: Sequence[str] = tuple(MEASURES),
    window: int | None = None,
    compute: ComputeSettings | None = None,
    progress: bool = False,
) -> EvaluationResult:
    """Derain every rainy picture of `scenes`, whole, and score it against the clean one.

    Outputs are clamped to [0, 1] before scoring; they are not rounded to 8 bits. The caller's network is not moved.

    Args:
        net: maps (B, 3, H, W) in [0, 1] to the same shape.
        scenes: scenes, or a split, a folder or a set's name (see `data.open_split`) whose test scenes are meant: of a
            folder that states no parts, the tenth kept apart from training.
        conventions: some of `rgb` and `y`.
        measures: some of `psnr` (dB) and `ssim`; see `manas_lite.metrics`.
        window: side in pixels of windows that the gates pool over, as on the crops of training; None pools over the
            whole picture.
        compute: device, threads and precision; None takes float32 on the GPU, where there is one.
        progress: show a progress bar.

    Raises:
        ValueError: for no scenes, an unknown measure or convention, a `window` for a network whose gates do not take
            one, a picture smaller than SSIM's 11 x 11, a file that is no picture, or a device that is not there.
        torch.OutOfMemoryError: for a picture that is too large. What `data.open_split` raises passes through.
    """
    _check_names("measures", measures, tuple(MEASURES))
    _check_names("conventions", conventions, CONVENTIONS)
    if window is not None:
        if not isinstance(net, Backbone):
            raise ValueError(
                f"window is for a DerainNet or SuperNet, this is a {type(net).__name__}: leave window out, or call "
                f"pool_locally({window}) on the network inside it"
            )
        net = copy.deepcopy(net)
        net.pool_locally(window)
    runtime = Compute(compute or ComputeSettings())
    scenes = list(open_split(scenes).test if isinstance(scenes, Split | str | Path) else scenes)
    if not scenes:
        raise ValueError("no scenes to evaluate on: the list is empty")
    net = borrowed(net, runtime)
    rows = []
    with runtime.session(), Progress(sum(len(s.rainy) for s in scenes), "evaluate", show=progress) as bar:
        for scene in scenes:
            rainy, clean = scene.read()
            height, width, _ = clean.shape
            if min(height, width) < SSIM_SIDE and "ssim" in measures:
                size = f"{width}x{height} pixels, too small for SSIM's {SSIM_SIDE}"
                raise ValueError(f"scene {scene.name!r} is {size}: leave it out")
            target = to_tensor(clean)[None]
            for label, image in zip(scene.labels, rainy, strict=True):
                source = to_tensor(image)[None]
                output = derain_batch(net, source.to(runtime.device), runtime).cpu()
                row: dict[str, Any] = {"scene": scene.name, "label": label}
                pictures = (("", output), ("rainy_", source))
                for (prefix, picture), measure, convention in itertools.product(pictures, measures, conventions):
                    value = MEASURES[measure](picture, target, convention)
                    row[f"{prefix}{measure}_{convention}"] = float(value[0])
                rows.append(row)
                bar.step()
    return EvaluationResult(rows, str(runtime.device), str(runtime.picture_dtype).removeprefix("torch."))


def _check_names(what: str, names: Sequence[str], known: Sequence[str]) -> None:
    if isinstance(names, str) or not names or not set(names) <= set(known):
        raise ValueError(f"{what} is {names!r}: give a list of one or more of {', '.join(known)}")


def table(results: dict[str, EvaluationResult], labels: Sequence[str] | None = None) -> str:
    """Return a plain-text table with a row per rain level and network, the rainy input first.

    It shows what was measured for all of them, and below how many pictures the means leave out, if any.

    Args:
        results: evaluations on the same pictures, by network.
        labels: the rain levels to show; None shows all, unless they are more than six (file names, not levels).
    """
    first = next(iter(results.values()))
    shown = list(labels or first.labels)
    if len(shown) > 6:
        shown = []
    measured = [name for name in first.columns if all(name in result.columns for result in results.values())]
    columns = [(name, *name.split("_")) for name in measured]
    titles = (f"{f'{measure.upper()} {convention}':>{CELLS[measure][0]}}" for _, measure, convention in columns)
    head = f"{'rain':<10}{'picture':<26}" + "".join(titles)
    lines = [head, "-" * len(head)]
    for label in [*shown, None] if len(shown) != 1 else shown:
        for name, result in {"rainy input": first, **results}.items():
            prefix = "rainy_" if name == "rainy input" else ""
            means = result.means(label)
            cells = ["{:>{}.{}f}".format(means[prefix + name], *CELLS[measure]) for name, measure, _ in columns]
            lines.append(f"{label or 'all':<10}{name:<26}" + "".join(cells))
        lines.append("")
    left_out = {name: result.identical for name, result in results.items() if result.identical}
    lines += [f"{name}: {n} picture(s) equal to the clean one, not in the means" for name, n in left_out.items()]
    return "\n".join(lines if left_out else lines[:-1])


def require_scorable(scenes: Sequence[Scene]) -> None:
    """Raise ValueError where no scene can tell a good network from a bad one: black, white, or without any rain."""
    for scene in scenes:
        rainy, clean = scene.read()
        if clean.max() > 0 and clean.min() < 255 and (rainy != clean).any():
            return
    raise ValueError(
        f"none of the {len(scenes)} validation scenes can choose the best network: each is black, or white, or its "
        "rainy pictures equal its clean one. See what `python -m manas_lite.data check` says of the folder"
    )


def validation_psnr(net: nn.Module, scenes: Sequence[Scene], runtime: Compute) -> float:
    """Return the mean PSNR (RGB) on fixed whole pictures, in dB: it chooses the best checkpoint."""
    return mean_scores(net, scenes, runtime, ("psnr",))["psnr"]


@torch.no_grad()
def mean_scores(
    net: nn.Module, scenes: Sequence[Scene], runtime: Compute, measures: Sequence[str] = tuple(MEASURES)
) -> dict[str, float]:
    """Return means (RGB) over whole pictures, each at most 100 dB; the network must be where the runtime computes."""
    was_training = net.training
    net.eval()
    values: dict[str, list[Tensor]] = {measure: [] for measure in measures}
    for scene in scenes:
        rainy, clean = scene.read()
        target = to_tensor(clean)[None].to(runtime.device)
        for image in rainy:
            output = derain_batch(net, to_tensor(image)[None].to(runtime.device), runtime)
            for measure in measures:
                values[measure].append(MEASURES[measure](output, target, "rgb")[0].clamp(max=HIGHEST))
    net.train(was_training)
    return {measure: float(torch.stack(found).mean()) for measure, found in values.items()}
