"""Derain any picture, of any size: `derain(image, net)`."""

from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from .backbone import Backbone
from .folding import fold
from .images import SUFFIXES, read_image, rgb_array, to_array, to_tensor, write_image
from .memory import bytes_per_pixel
from .runtime import Compute, ComputeSettings
from .tiling import restore_tiled

Picture = TypeVar("Picture", str, Path, Image.Image, np.ndarray)


SMALL = 512 * 512
"""Pixels of a picture that any network of the presets derains whole in less than a gigabyte."""


@torch.inference_mode()
def restore(net: nn.Module, rainy: Tensor, runtime: Compute) -> Tensor:
    """Rainy images (B, 3, H, W) in [0, 1] on the runtime's device -> derained, float32, clamped to [0, 1].

    In tiles when the pictures are too large for `picture_gib`: equal to the whole-picture result to 1e-4.
    """
    rainy = rainy.contiguous(memory_format=torch.channels_last)
    with runtime.autocast():
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
    compute: ComputeSettings | None = None,
) -> Picture:
    """Derain one picture; what comes out is of the kind that went in.

    image:
      * a path: the derained picture is written to `output` (default: `<name>-derained<suffix>` beside it) and its
        path returned; an existing file is kept unless `overwrite`.
      * a PIL image: an RGB image, upright, converted as image files are (see `images`).
      * an array (H, W, 3) or (H, W), uint8, uint16 or floating in [0, 1]: the same shape and type. Grey is derained
        as three equal channels and averaged back.
    """
    if isinstance(image, str | Path):
        target = _target(Path(image), Path(output) if output is not None else None)
        if target.exists() and not overwrite:
            raise FileExistsError(f"{target} exists: name another output, or set overwrite (--overwrite) to replace it")
        array = _derain_array(read_image(image), net, compute)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_image(target, array)
        return target if isinstance(image, Path) else str(target)  # type: ignore[return-value]
    if output is not None:
        raise ValueError("output names a file for a picture given by its path; this one was given in memory")
    if isinstance(image, Image.Image):
        return Image.fromarray(_derain_array(rgb_array(image), net, compute))
    if isinstance(image, np.ndarray):
        return _derain_array(image, net, compute)
    raise TypeError(f"expected a path, a PIL image or an array, got {type(image).__name__}")


def _target(path: Path, output: Path | None) -> Path:
    """Where the derained picture goes; refused now rather than after the work where it cannot be written there."""
    if output is None:
        return path.with_name(f"{path.stem}-derained{path.suffix}")
    target = output / path.name if output.is_dir() else output
    if target.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{target}: unknown image ending {target.suffix!r}; use one of {', '.join(sorted(SUFFIXES))}")
    return target


def borrowed(net: nn.Module, runtime: Compute) -> nn.Module:
    """A copy of the network on the runtime's device, in eval mode, BatchNorm folded: the caller's stays as it is."""
    return runtime.prepare(fold(net))


def _derain_array(image: np.ndarray, net: nn.Module, compute: ComputeSettings | None) -> np.ndarray:
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
        result = restore(borrowed(net, runtime), tensor[None].to(runtime.device), runtime)[0].cpu()
    if image.dtype == np.uint8:
        colour = to_array(result)
        return colour.mean(2).round().astype(np.uint8) if grey else colour
    values = result.permute(1, 2, 0).numpy().astype(np.float64)
    values = values.mean(2) if grey else values
    if np.issubdtype(image.dtype, np.integer):
        values = np.rint(values * _peak(image))
    return values.astype(image.dtype)


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
