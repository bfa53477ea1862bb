"""Reading and writing image files: uint8 arrays (H, W, 3), RGB, whatever the file held.

What is converted, and how (this kit's choices):

* an EXIF orientation is applied, so that height and width are those a viewer shows;
* greyscale becomes three equal channels, a palette is looked up, CMYK loses its colour profile;
* transparency is laid over white;
* 16-bit samples keep their high byte (65535 -> 255);
* EXIF that cannot be understood counts as none: the pixels beside it may be whole.

What is refused with an `ImageError` that names the file: truncated, empty and non-image files, folders,
animations, floating-point images (their range is unknown), and pictures so large that Pillow suspects a bomb.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from manas_lite.runs.checkpoint import write_atomic

__all__ = [
    "SUFFIXES",
    "ImageError",
    "check_ending",
    "conversions",
    "exif_of",
    "image_size",
    "open_image",
    "read_image",
    "refusing",
    "rgb_array",
    "to_array",
    "to_tensor",
    "upright",
    "write_image",
]

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".gif"})
"""File name endings (lower case) that are taken for images when a folder is listed."""

_ORIENTATION = 0x0112
_PHOTOMETRIC = 262
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = {5, 6, 7, 8}  # those that swap height and width
_LATE = (b"eXIf", b"tEXtRaw profile type exif", b"zTXtRaw profile type exif", b"iTXtXML:com.adobe.xmp")


class ImageError(ValueError):
    """A file that is not one readable picture; the message names it, says why and what to do."""


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """The picture in a file as uint8 (H, W, 3) RGB in 0..255; conversions as listed above.

    Raises FileNotFoundError for a missing file and ImageError for one that is no readable picture.
    """
    path = Path(path)
    with refusing(path), open_image(path) as image:
        image.load()
        return rgb_array(image, path)


def rgb_array(image: Image.Image, path: str | os.PathLike[str] = "the picture") -> np.ndarray:
    """A loaded PIL image as uint8 (H, W, 3), converted as `read_image` converts a file; `path` names it in errors."""
    return np.array(_to_rgb(upright(image), path))


def upright(image: Image.Image) -> Image.Image:
    """A PIL image, loaded and turned as its EXIF says; the image itself where nothing is to turn.

    16-bit grey whose 0 is white, which Pillow leaves as it is, is turned round too.
    """
    image.load()
    turn = _TURNS.get(exif_of(image).get(_ORIENTATION, 1))
    if image.mode.startswith("I;16") and getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0:
        image = Image.fromarray(65535 - np.asarray(image))
    return image if turn is None else image.transpose(turn)


def exif_of(image: Image.Image) -> Image.Exif:
    """EXIF, as far as the file has been read; empty where there is none, or none that can be understood."""
    try:
        exif = Image.Image.getexif(image)  # PNG's own would decode the picture first
        hash(exif.get(_ORIENTATION))  # values are looked at when asked for
    except Exception:  # whatever Pillow stumbles over in damaged EXIF
        return Image.Exif()
    return exif


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(height, width) as `read_image` would return them, from the header alone; raises the same errors.

    Only a PNG with its EXIF behind the pixels is decoded for it.
    """
    path = Path(path)
    with refusing(path), open_image(path) as image:
        width, height = image.size
        if image.format == "TIFF":  # some versions of Pillow turn the size of these already
            width, height = (int(image.tag_v2[tag]) for tag in (256, 257))  # type: ignore[attr-defined]
        sideways = _orientation(image, path) in _SIDEWAYS
    return (width, height) if sideways else (height, width)


def conversions(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """What `read_image` converts in a file, from its header: any of rotated, greyscale, palette, CMYK, transparency,
    16-bit; empty for plain 8-bit RGB."""
    path = Path(path)
    with refusing(path), open_image(path) as image:
        raw_mode = str(image.tile[0][3]) if image.tile else ""  # type: ignore[attr-defined]
        found = {
            "rotated": _orientation(image, path) in _TURNS,
            "greyscale": image.mode in ("1", "L", "LA") or image.mode.startswith("I"),
            "palette": image.mode in ("P", "PA"),
            "CMYK": image.mode == "CMYK",
            "transparency": image.has_transparency_data,
            "16-bit": image.mode.startswith("I") or "16" in raw_mode,
        }
    return tuple(kind for kind, holds in found.items() if holds)


def write_image(path: str | os.PathLike[str], array: np.ndarray) -> Path:
    """Writes uint8 (H, W, 3) or (H, W) to `path`, in the format of its ending, and returns the path.

    Atomic: a full disk leaves the old file as it was.
    """
    path = Path(path)
    array = np.asarray(array)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
        raise ValueError(
            f"write_image expects uint8 (H, W, 3) or (H, W), got {array.dtype} {array.shape}; "
            "turn a tensor in [0, 1] into one with to_array"
        )
    kind = check_ending(path)
    options = {"quality": 95} if kind == "JPEG" else {}
    content = io.BytesIO()
    Image.fromarray(array).save(content, format=kind, **options)
    write_atomic(path, content.getvalue())
    return path


def check_ending(path: Path) -> str:
    """The format that `write_image` would write to `path`; ValueError for an ending that it does not know."""
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind not in Image.SAVE:
        raise ValueError(f"{path}: unknown image ending {path.suffix!r}; use .png (lossless) or .jpg")
    return kind


def to_tensor(array: np.ndarray) -> torch.Tensor:
    """uint8 (..., H, W, 3) in 0..255 -> float32 (..., 3, H, W) in [0, 1].

    >>> to_tensor(np.full((2, 4, 3), 255, np.uint8)).shape
    torch.Size([3, 2, 4])
    """
    if array.dtype != np.uint8 or array.ndim < 3 or array.shape[-1] != 3:
        raise ValueError(f"to_tensor expects uint8 (..., H, W, 3), got {array.dtype} {array.shape}")
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, -3))).float().div_(255)


def to_array(tensor: torch.Tensor) -> np.ndarray:
    """Float (..., 3, H, W) -> uint8 (..., H, W, 3): clamped to [0, 1], then rounded to 256 levels.

    >>> bool((to_array(to_tensor(np.eye(3, dtype=np.uint8)[None])) == np.eye(3, dtype=np.uint8)).all())
    True
    """
    if not tensor.is_floating_point() or tensor.ndim < 3 or tensor.shape[-3] != 3:
        raise ValueError(f"to_array expects a float tensor (..., 3, H, W), got {tensor.dtype} {tuple(tensor.shape)}")
    values = tensor.detach().float().cpu()
    if not torch.isfinite(values).all():
        raise ValueError("to_array got NaN or infinite values: the network that made them has diverged")
    levels = values.clamp(0, 1).mul(255).round().to(torch.uint8).numpy()
    return np.ascontiguousarray(np.moveaxis(levels, -3, -1))


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Turns whatever a decoder raises over a broken file into an ImageError that names it."""
    try:
        yield
    except (ImageError, FileNotFoundError, MemoryError):
        raise
    except Exception as error:  # decoders let slip whatever their arithmetic on broken bytes raises
        raise ImageError(f"{path}: cannot be decoded ({_reason(error)}); copy or download it again") from error


def open_image(path: Path) -> Image.Image:
    """A file as a PIL image, not decoded yet; a folder, an animation and an empty or foreign file are refused."""
    if path.is_dir():
        raise ImageError(f"{path}: is a folder, not an image file")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such image file")
    if path.stat().st_size == 0:
        raise ImageError(f"{path}: is empty (0 bytes); copy or download it again")
    try:
        image = Image.open(path)
        frames = getattr(image, "n_frames", 1)
    except UnidentifiedImageError as error:
        raise ImageError(f"{path}: is no image that Pillow can read") from error
    except MemoryError:
        raise
    except Exception as error:
        raise ImageError(f"{path}: is no image that Pillow can read ({_reason(error)})") from error
    # A camera's MPO holds its picture first and previews after it; any other second frame is an animation.
    if frames > 1 and image.format != "MPO":
        image.close()
        raise ImageError(f"{path}: holds {frames} frames; save the one you mean as a PNG")
    return image


def _orientation(image: Image.Image, path: Path) -> object:
    """EXIF's, of an image just opened."""
    if image.format == "PNG" and "exif" not in image.info and _speaks_late(path):
        image.load()
    return exif_of(image).get(_ORIENTATION, 1)


def _speaks_late(path: Path) -> bool:
    """Whether a PNG holds EXIF or XMP behind its pixels; of its chunks only the beginnings are read."""
    with open(path, "rb") as file:
        file.seek(8)
        pixels = False
        while head := file.read(32):  # length, kind, first bytes
            pixels = pixels or head[4:8] == b"IDAT"
            if pixels and head[4:].startswith(_LATE):
                return True
            file.seek(int.from_bytes(head[:4], "big") + 12 - len(head), os.SEEK_CUR)
    return False


def _to_rgb(image: Image.Image, path: str | os.PathLike[str]) -> Image.Image:
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.size and (values.min() < 0 or values.max() > 65535):
            raise ImageError(f"{path}: integer samples outside 0..65535; save it as 8 or 16 bits a channel")
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ImageError(f"{path}: floating-point samples have no known range; save it as 8 or 16 bits a channel")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert("RGB")


def _reason(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
