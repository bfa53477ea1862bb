"""Derain any picture, of any size: `derain(image, net)`."""

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from manas_lite.compute.footprint import bytes_per_pixel
from manas_lite.compute.runtime import Compute, ComputeSettings
from manas_lite.networks.backbone import Backbone
from manas_lite.photos.folding import fold
from manas_lite.photos.images import to_array, to_tensor
from manas_lite.photos.photographs import check_writable, from_pil, open_photograph, save_photograph, to_pil
from manas_lite.photos.tiling import restore_tiled

Picture = TypeVar("Picture", str, Path, Image.Image, np.ndarray)


SMALL = 512 * 512
"""Pixels of a picture that any network of the presets derains whole in less than a gigabyte."""


@torch.inference_mode()
def restore(net: nn.Module, rainy: Tensor, runtime: Compute) -> Tensor:
    """Rainy images (B, 3, H, W) in [0, 1] on the runtime's device -> derained, float32, clamped to [0, 1].

    In tiles when the pictures are too large for `picture_gib`: equal to the whole-picture result to 1e-4. In float32
    unless the settings name another precision (see ComputeSettings).
    """
    rainy = rainy.contiguous(memory_format=torch.channels_last)
    with runtime.autocast_pictures():
        if isinstance(net, Backbone) and _too_large(net, rainy, runtime):
            output = restore_tiled(net, rainy)
        else:
            output = net(rainy)
    return output.float().clamp(0, 1)


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
    strength: float = 1.0,
    scale: float = 1.0,
    keep_location: bool = True,
    compute: ComputeSettings | None = None,
) -> Picture:
    """Derain one picture; what comes out is of the kind that went in.

    image:
      * a path: the derained picture is written to `output` (default: `<name>-derained<suffix>` beside it) and its
        path returned; an existing file is kept unless `overwrite`. Depth, transparency, colour profile and EXIF are
        carried over (see `photographs`); `keep_location=False` leaves out where it was taken.
      * a PIL image: an upright one of mode L, LA, RGB, RGBA or I;16, its profile and EXIF in `info`.
      * an array (H, W, 3) or (H, W), uint8, uint16 or floating in [0, 1]: the same shape and type. Grey is derained
        as three equal channels and averaged back.

    strength: share of the change that is applied, 0 (none) to 2 (exaggerated).
    scale: side at which the network looks, as a share of the picture's, above 0 and up to 1. Networks are trained on
      streaks of pictures about 480 pixels high; those of a 12-megapixel photograph are several times larger, and are
      found where the picture is shrunk (0.2, say). What the network takes away is enlarged and taken from the whole
      picture, which keeps its detail. This kit's choice.
    compute: device, threads and precision; by default float32 on the GPU, where there is one.

    Raises FileNotFoundError; FileExistsError where the output exists and `overwrite` is off; ImageError, a ValueError,
    for a file that is no picture; ValueError for a file ending that cannot be written (before any work), a `strength`
    or `scale` out of range, an array of another shape, empty, or outside [0, 1], `output` beside a picture in memory,
    or a device that is not there; TypeError for another kind of picture or array; torch.OutOfMemoryError.
    """
    _check_options(strength, scale)
    change = partial(_derain_array, net=net, compute=compute, strength=strength, scale=scale)
    if isinstance(image, str | Path):
        target = _target(Path(image), Path(output) if output is not None else None)
        if target.exists() and not overwrite:
            raise FileExistsError(f"{target} exists: name another output, or set overwrite (--overwrite) to replace it")
        photo = open_photograph(image)
        photo = photo if keep_location else photo.without_location()
        derained = replace(photo, pixels=change(photo.pixels))
        target.parent.mkdir(parents=True, exist_ok=True)
        save_photograph(target, derained)
        return target if isinstance(image, Path) else str(target)  # type: ignore[return-value]
    if output is not None:
        raise ValueError("output names a file for a picture given by its path; this one was given in memory")
    if isinstance(image, Image.Image):
        photo = from_pil(image)
        photo = photo if keep_location else photo.without_location()
        return to_pil(replace(photo, pixels=change(photo.pixels)))
    if isinstance(image, np.ndarray):
        return change(image)
    raise TypeError(f"expected a path, a PIL image or an array, got {type(image).__name__}")


def seconds_per_pixel(net: nn.Module, compute: ComputeSettings | None = None, side: int = 256) -> float:
    """How long deraining takes here, measured on a square of `side` pixels: the faster of two passes, over its pixels.

    A large picture takes about that times its pixels, times `scale` squared.
    """
    runtime = Compute(compute or ComputeSettings())
    net, square = borrowed(net, runtime), torch.zeros(1, 3, side, side, device=runtime.device)
    took = []
    with runtime.session():
        for _ in range(2):
            began = time.perf_counter()
            restore(net, square, runtime).cpu()  # waits for a GPU
            took.append(time.perf_counter() - began)
    return min(took) / side**2


def _check_options(strength: float, scale: float) -> None:
    if not 0 <= strength <= 2:
        raise ValueError(f"strength is {strength}: give 0 (leave the picture alone) to 1 (derain) or at most 2")
    if not 0 < scale <= 1:
        raise ValueError(f"scale is {scale}: give a number above 0 and up to 1 (the picture as it is)")


def _target(path: Path, output: Path | None) -> Path:
    """Where the derained picture goes; refused now rather than after the work where it cannot be written there."""
    if output is None:
        target = path.with_name(f"{path.stem}-derained{path.suffix}")
    else:
        target = output / path.name if output.is_dir() else output
    check_writable(target)
    return target


def borrowed(net: nn.Module, runtime: Compute) -> nn.Module:
    """A copy of the network on the runtime's device, in eval mode, BatchNorm folded: the caller's stays as it is."""
    return runtime.prepare(fold(net))


def _derain_array(
    image: np.ndarray, net: nn.Module, compute: ComputeSettings | None, strength: float = 1.0, scale: float = 1.0
) -> np.ndarray:
    grey = image.ndim == 2
    if not grey and (image.ndim != 3 or image.shape[2] != 3):
        raise ValueError(f"expected an array (H, W, 3) or (H, W), got shape {image.shape}")
    if 0 in image.shape:
        raise ValueError(f"the picture is empty: shape {image.shape}")
    if image.dtype == np.uint8:
        tensor = to_tensor(np.repeat(image[..., None], 3, 2) if grey else image)
    else:
        peak = _peak(image)
        colour = np.repeat(image[..., None], 3, 2) if grey else image
        tensor = torch.from_numpy(np.ascontiguousarray(colour.astype(np.float32) / peak)).permute(2, 0, 1)
    runtime = Compute(compute or ComputeSettings())
    with runtime.session():
        rainy = tensor[None].to(runtime.device)
        result = _restore_at(scale, borrowed(net, runtime), rainy, runtime)
        if strength != 1:
            result = rainy.lerp(result, strength).clamp(0, 1)
        result = result[0].cpu()
    if image.dtype == np.uint8:
        colour = to_array(result)
        return colour.mean(2).round().astype(np.uint8) if grey else colour
    values = result.permute(1, 2, 0).numpy().astype(np.float64)
    values = values.mean(2) if grey else values
    if np.issubdtype(image.dtype, np.integer):
        values = np.rint(values * _peak(image))
    return values.astype(image.dtype)


def _restore_at(scale: float, net: nn.Module, rainy: Tensor, runtime: Compute) -> Tensor:
    """`restore`, the network looking at a smaller copy: its change is enlarged and applied to the whole picture."""
    if scale == 1:
        return restore(net, rainy, runtime)
    full = rainy.shape[2:]
    resize = partial(F.interpolate, mode="bicubic", antialias=True, align_corners=False)
    small = resize(rainy, size=[max(1, round(side * scale)) for side in full]).clamp(0, 1)
    change = restore(net, small, runtime) - small
    return (rainy + resize(change, size=list(full))).clamp(0, 1)


def _peak(image: np.ndarray) -> float:
    """The value that stands for 1."""
    if image.dtype == np.uint16:
        return 65535.0
    if np.issubdtype(image.dtype, np.floating):
        if not np.isfinite(image).all():
            raise ValueError("the picture holds NaN or infinity")
        if image.min() < 0 or image.max() > 1:
            raise ValueError(
                f"a floating-point picture must lie in [0, 1], this one in [{image.min():.3g}, {image.max():.3g}]: "
                "divide it by its peak value first"
            )
        return 1.0
    raise TypeError(f"arrays must be uint8, uint16 or floating point, got {image.dtype}")
