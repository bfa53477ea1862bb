"""Derain any picture, of any size: `derain(image, net)`."""

from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from .images import read_image, to_array, to_tensor, write_image
from .runtime import Compute, ComputeSettings

Picture = TypeVar("Picture", str, Path, Image.Image, np.ndarray)


@torch.inference_mode()
def restore(net: nn.Module, rainy: Tensor, runtime: Compute) -> Tensor:
    """Rainy images (B, 3, H, W) in [0, 1] on the runtime's device -> derained, float32, clamped to [0, 1]."""
    with runtime.autocast():
        output = net(rainy.contiguous(memory_format=torch.channels_last))
    return output.float().clamp(0, 1)


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
      * a PIL image: an RGB image of the same size.
      * an array (H, W, 3) or (H, W), uint8, uint16 or floating in [0, 1]: the same shape and type. Grey is derained
        as three equal channels and averaged back.
    """
    if isinstance(image, str | Path):
        target = Path(output) if output is not None else _beside(Path(image))
        if target.exists() and not overwrite:
            raise FileExistsError(f"{target} exists: name another output, or allow overwriting it")
        array = _derain_array(read_image(image), net, compute)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_image(target, array)
        return target if isinstance(image, Path) else str(target)  # type: ignore[return-value]
    if output is not None:
        raise ValueError("output names a file for a picture given by its path; this one was given in memory")
    if isinstance(image, Image.Image):
        return Image.fromarray(_derain_array(np.asarray(image.convert("RGB")), net, compute))
    if isinstance(image, np.ndarray):
        return _derain_array(image, net, compute)
    raise TypeError(f"expected a path, a PIL image or an array, got {type(image).__name__}")


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.stem}-derained{path.suffix}")


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
        was_training = net.training
        result = restore(runtime.prepare(net).eval(), tensor[None].to(runtime.device), runtime)[0].cpu()
        net.train(was_training)
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
