"""Derain any picture, of any size: `derain(image, net)`."""

import os
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from manas_lite.compute.footprint import bytes_per_pixel
from manas_lite.compute.runtime import Compute, ComputeSettings
from manas_lite.networks.backbone import Backbone
from manas_lite.photos import photographs
from manas_lite.photos.folding import fold
from manas_lite.photos.onnx_export import OnnxNet
from manas_lite.photos.tiling import derain_tiled

Picture = TypeVar("Picture", str, Path, Image.Image, np.ndarray)


class DivergedNetworkError(ValueError):
    """A network answers with NaN or infinity, whatever the picture: its training has diverged."""


SMALL = 512 * 512
"""Pixels of a picture that any network of the presets derains whole in less than a gigabyte."""


@torch.inference_mode()
def derain_batch(net: nn.Module, rainy: Tensor, runtime: Compute) -> Tensor:
    """Return rainy images (B, 3, H, W) in [0, 1] on the runtime's device derained: float32, clamped to [0, 1].

    What the network answers with NaN or infinity is NaN. Pictures too large for `picture_gib` go in tiles: equal to the
    whole-picture result to 1e-4. The network computes in float32 unless the settings name another precision.
    """
    rainy = rainy.contiguous(memory_format=torch.channels_last)
    with runtime.autocast_pictures():
        layers = net.folded if isinstance(net, OnnxNet) else net
        tiled = isinstance(layers, Backbone) and _too_large(layers, rainy, runtime)
        output = derain_tiled(layers, rainy) if tiled else net(rainy)  # type: ignore[arg-type]
    nan = float("nan")
    return output.float().nan_to_num(nan, nan, nan).clamp(0, 1)  # a clamp alone makes white of infinity


def _too_large(net: Backbone, rainy: Tensor, runtime: Compute) -> bool:
    pixels = rainy.shape[0] * rainy.shape[2] * rainy.shape[3]
    if net.space.norm == "group" or pixels <= SMALL:  # group normalisation reads whole maps: no tiles
        return False
    return pixels * bytes_per_pixel(getattr(net, "genotype", net.space)) > runtime.picture_bytes


def derain(
    image: Picture,
    net: nn.Module,
    *,
    output: str | Path | None = None,
    overwrite: bool = False,
    in_place: bool = False,
    strength: float = 1.0,
    scale: float = 1.0,
    keep_location: bool = True,
    compute: ComputeSettings | None = None,
) -> Picture:
    """Derain one picture; what comes out is of the kind that went in.

    Args:
        image: one of these.

            * A path: the derained picture is written to `output` and its path returned. Depth, transparency, colour
              profile and EXIF are carried over (see `photographs`).
            * A PIL image: an upright one of mode L, LA, RGB, RGBA or I;16 is returned, its profile and EXIF in `info`.
            * An array (H, W, 3) or (H, W), uint8, uint16 or floating in [0, 1]: the same shape and type is returned.
              Grey is derained as three equal channels and averaged back.
        net: the network; it stays as it is.
        output: a file or an existing folder for a picture given by its path. None: `<name>-derained<suffix>` beside it.
        overwrite: replace an output that exists, unless it is the picture itself.
        in_place: also replace the picture itself by the derained one, which cannot be undone. A link to it stays one.
        strength: share of the change that is applied, 0 (none) to 2 (exaggerated).
        scale: side at which the network looks, as a share of the picture's, above 0 and up to 1. Networks are trained
            on streaks of pictures about 480 pixels high. Those of a 12-megapixel photograph are several times larger,
            and are found where the picture is shrunk (0.2, say). What the network takes away is enlarged and taken
            from the whole picture, which keeps its detail.
        keep_location: False leaves out where a photograph was taken.
        compute: device, threads and precision; by default float32 on the GPU, where there is one.

    Raises:
        FileNotFoundError: the picture is not there.
        FileExistsError: the output exists and `overwrite` is off, or it is the picture itself and `in_place` is off.
        DivergedNetworkError: the network answers with NaN or infinity; nothing is written.
        ValueError: the file is no picture (an ImageError), its ending cannot be written (found before any work),
            `strength` or `scale` is out of range, an array has another shape, is empty or outside [0, 1], `output`
            stands beside a picture in memory, or the device is not there.
        TypeError: another kind of picture or array.
        torch.OutOfMemoryError: the picture needs more memory than there is.

    Source: `strength` and `scale` are this kit's choice.
    """
    if not 0 <= strength <= 2:
        raise ValueError(f"strength is {strength}: give 0 (leave the picture alone) to 1 (derain) or at most 2")
    if not 0 < scale <= 1:
        raise ValueError(f"scale is {scale}: give a number above 0 and up to 1 (the picture as it is)")
    change = partial(_derain_array, net=net, compute=compute, strength=strength, scale=scale)

    def changed(photo: photographs.Photograph) -> photographs.Photograph:
        photo = photo if keep_location else photo.without_location()
        return replace(photo, pixels=change(photo.pixels))

    if isinstance(image, str | Path):
        target = _target(Path(image), None if output is None else Path(output), in_place)
        check_replacing(Path(image), target, overwrite, in_place)
        derained = changed(photographs.open_photograph(image))
        target.parent.mkdir(parents=True, exist_ok=True)
        photographs.save_photograph(target, derained)
        return target if isinstance(image, Path) else str(target)  # type: ignore[return-value]
    if output is not None:
        raise ValueError("output names a file for a picture given by its path; this one was given in memory")
    if isinstance(image, Image.Image):
        return photographs.to_pil(changed(photographs.from_pil(image)))
    if isinstance(image, np.ndarray):
        return change(image)
    raise TypeError(f"expected a path, a PIL image or an array, got {type(image).__name__}")


def _target(path: Path, output: Path | None, in_place: bool) -> Path:
    """Return where the derained picture goes; refuse now, rather than after the work, what cannot be written."""
    if output is None:
        stem = path.stem
        while len(os.fsencode(name := f"{stem}-derained{path.suffix}")) > 255:  # no file system takes longer ones
            stem = stem[:-1]
        target = path.with_name(name)
    else:
        target = output / path.name if output.is_dir() else output
    if in_place and target.is_symlink() and target.exists() and path.exists() and target.samefile(path):
        target = target.resolve()
    photographs.check_writable(target)
    return target


def check_replacing(source: Path, target: Path, overwrite: bool, in_place: bool) -> None:
    """Raise FileExistsError where a result would replace a file that it must not replace.

    Source and target are files, or folders of them. The source itself is replaced with `in_place` alone, any other
    file with `overwrite` alone.
    """
    if not target.exists():
        return
    if source.exists() and target.samefile(source):
        if not in_place:
            raise FileExistsError(
                f"{target} would be replaced by its derained version, and the original lost: name another output, or "
                "set in_place (--in-place)"
            )
    elif not overwrite and not target.is_dir():
        raise FileExistsError(f"{target} exists: name another output, or set overwrite (--overwrite) to replace it")


def seconds_per_pixel(net: nn.Module, compute: ComputeSettings | None = None, side: int = 256) -> float:
    """Return how long deraining takes here per pixel: the faster of two passes over a square of `side` pixels.

    A large picture takes about that times its pixels, times `scale` squared.
    """
    runtime = Compute(compute or ComputeSettings())
    net, square = borrowed(net, runtime), torch.zeros(1, 3, side, side, device=runtime.device)
    took = []
    with runtime.session():
        for _ in range(2):
            began = time.perf_counter()
            derain_batch(net, square, runtime).cpu()  # waits for a GPU
            took.append(time.perf_counter() - began)
    return min(took) / side**2


_BORROWED: WeakKeyDictionary[nn.Module, tuple[list[object], list[object], Tensor, nn.Module]] = WeakKeyDictionary()
"""The last copy of each network that was asked for, behind what it was made from; it goes when its network goes."""


def borrowed(net: nn.Module, runtime: Compute) -> nn.Module:
    """Return a copy of the network on the runtime's device, in eval mode, BatchNorm folded; the caller's stays.

    Where the runtime's engine is `onnx`, the copy is an OnnxNet. A copy is made once and then shared, so it must not be
    changed. It is made anew when anything about the network has changed. Weights are compared by their values, because
    a write through `.data` leaves no other trace.
    """
    holders = (value for module in net.modules() for value in vars(module).values())
    lists = (v.values() if isinstance(v, dict) else v if isinstance(v, list) else (v,) for v in holders)
    # The parts are kept, so that no other object gets their ids; the network itself is not, so that it can go.
    parts = [part for some in lists for part in some if part is not net]
    tensors = [part.detach() for part in parts if isinstance(part, Tensor)]
    values = torch.cat([tensor.reshape(-1) for tensor in tensors]) if tensors else torch.empty(0)
    engine = (runtime.device, runtime.engine, runtime.threads)
    form = [engine, values.device, values.dtype, *(tensor.shape for tensor in tensors)]
    if before := _BORROWED.get(net):
        old_form, old_parts, old_values, copied = before
        if old_form == form and [*map(id, old_parts)] == [*map(id, parts)] and torch.equal(old_values, values):
            return copied
    copied = OnnxNet(net, runtime.threads) if runtime.engine == "onnx" else runtime.prepare(fold(net))
    _BORROWED[net] = form, parts, values, copied
    return copied


def _derain_array(
    image: np.ndarray, net: nn.Module, compute: ComputeSettings | None, strength: float, scale: float
) -> np.ndarray:
    grey = image.ndim == 2
    if not grey and (image.ndim != 3 or image.shape[2] != 3):
        raise ValueError(f"expected an array (H, W, 3) or (H, W), got shape {image.shape}")
    if 0 in image.shape:
        raise ValueError(f"the picture is empty: shape {image.shape}")
    colour, peak = np.repeat(image[..., None], 3, 2) if grey else image, _peak(image)
    tensor = torch.from_numpy(np.ascontiguousarray(colour.astype(np.float32) / peak)).permute(2, 0, 1)
    runtime = Compute(compute or ComputeSettings())
    with runtime.session():
        rainy = tensor[None].to(runtime.device)
        result = _derain_at(scale, borrowed(net, runtime), rainy, runtime)
        if strength != 1:
            result = rainy.lerp(result, strength).clamp(0, 1)
        result = result[0].cpu()
    if not result.isfinite().all():
        raise DivergedNetworkError(
            "the network answers with NaN or infinity, which is no picture: its training has diverged, or its numbers "
            "are too large for the precision; use other weights"
        )
    values = result.permute(1, 2, 0).numpy()
    values = values.mean(2, dtype=np.float64) if grey else values
    if np.issubdtype(image.dtype, np.integer):
        values = np.rint(values * peak)
    return values.astype(image.dtype)


def _derain_at(scale: float, net: nn.Module, rainy: Tensor, runtime: Compute) -> Tensor:
    """Let the network look at a smaller copy of the picture, and apply its change, enlarged, to the whole picture."""
    if scale == 1:
        return derain_batch(net, rainy, runtime)
    full = rainy.shape[2:]
    resize = partial(F.interpolate, mode="bicubic", antialias=True, align_corners=False)
    small = resize(rainy, size=[max(1, round(side * scale)) for side in full]).clamp(0, 1)
    change = derain_batch(net, small, runtime) - small
    return (rainy + resize(change, size=list(full))).clamp(0, 1)


def _peak(image: np.ndarray) -> float:
    """Return the value that stands for 1 in an array of this type; raise where the array is none of a picture."""
    if image.dtype in (np.uint8, np.uint16):
        return float(np.iinfo(image.dtype).max)
    if not np.issubdtype(image.dtype, np.floating):
        raise TypeError(f"arrays must be uint8, uint16 or floating point, got {image.dtype}")
    if not np.isfinite(image).all():
        raise ValueError("the picture holds NaN or infinity")
    if image.min() < 0 or image.max() > 1:
        raise ValueError(
            f"a floating-point picture must lie in [0, 1], this one in [{image.min():.3g}, {image.max():.3g}]: "
            "divide it by its peak value first"
        )
    return 1.0
