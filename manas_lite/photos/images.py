"""Image files as uint8 arrays (H, W, 3) in RGB, whatever the file held, and those arrays as tensors.

What is converted, and how (this kit's choices):

* an EXIF orientation is applied, so that height and width are those that a viewer shows;
* greyscale becomes three equal channels, a palette is looked up, CMYK loses its colour profile;
* transparency is laid over white;
* 16-bit samples keep their high byte (65535 -> 255);
* EXIF that cannot be understood counts as none: the pixels beside it may be whole.

What is refused with an `ImageError` that names the file: truncated, empty and non-image files, folders, pipes and
devices, formats that are not listed here, animations, floating-point images (their range is unknown), and pictures so
large that Pillow suspects a bomb. A file's content says what format it is, and its ending does not matter.
"""

import io
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from manas_lite.runs.checkpoint import write_atomic

_NAMES = "apng bmp gif jfif jpe jpeg jpg mpo pbm pgm png pnm ppm tif tiff webp"
SUFFIXES = frozenset(f".{name}" for name in _NAMES.split())
"""File name endings (lower case) that are taken for images when a folder is listed: all those of `FORMATS`."""

HEIC = frozenset({".heic", ".heif"})
"""File name endings of pictures that need the `heic` extra."""

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Formats that Pillow may open here. It knows more, and starts another program for some of them."""

ORIENTATION = 0x0112
"""Tag of EXIF that says how a camera was held."""

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
_HEIC_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1"}
_LATE_EXIF = (b"eXIf", b"tEXtRaw profile type exif", b"zTXtRaw profile type exif", b"iTXtXML:com.adobe.xmp")


class ImageError(ValueError):
    """A file that is not one readable picture; the message names it, says why and what to do."""


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder of this name is a system's own: ._x.jpg, .ipynb_checkpoints, @eaDir, #recycle."""
    return name.startswith((".", "@", "$", "#", "~", "__"))


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Return the picture in a file as uint8 (H, W, 3), RGB in 0..255, converted as listed above.

    Raises:
        FileNotFoundError: the file is missing.
        ImageError: the file is no readable picture.
    """
    with opened(path) as image:
        return rgb_array(image, path)


def rgb_array(image: Image.Image, name: str | os.PathLike[str] = "the picture") -> np.ndarray:
    """Return a PIL image as uint8 (H, W, 3), converted as `read_image` converts a file; `name` stands in errors."""
    image = upright(image)
    levels = integer_samples(image, name)
    if levels is not None:
        return np.repeat((levels >> 8).astype(np.uint8)[..., None], 3, axis=2)
    return np.array(over_white(image).convert("RGB"))


def upright(image: Image.Image) -> Image.Image:
    """Decode a PIL image and turn it as its EXIF says; return the image itself where nothing is to turn.

    16-bit grey whose 0 is white, which Pillow leaves as it is, is inverted too.
    """
    image.load()
    turn = _TURNS.get(exif_of(image).get(ORIENTATION, 1))
    photometric = getattr(image, "tag_v2", {}).get(262)
    if image.mode.startswith("I;16") and photometric == 0:
        image = Image.fromarray(65535 - np.asarray(image))
    return image if turn is None else image.transpose(turn)


def integer_samples(image: Image.Image, name: str | os.PathLike[str]) -> np.ndarray | None:
    """Return the samples (H, W) in 0..65535 of a grey image of more than 8 bits, or None for an 8-bit image.

    Raises:
        ImageError: the samples are floating point, or lie outside 0..65535; `name` stands in the message.
    """
    advice = "save it as 8 or 16 bits a channel"
    if image.mode == "F":
        raise ImageError(f"{name}: floating-point samples have no known range; {advice}")
    if not image.mode.startswith("I"):
        return None
    values = np.asarray(image)
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise ImageError(f"{name}: integer samples outside 0..65535; {advice}")
    return values


def over_white(image: Image.Image) -> Image.Image:
    """Lay a transparent 8-bit image over white; return an opaque one as it is."""
    if not image.has_transparency_data:
        return image
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def sideways(image: Image.Image) -> bool:
    """Tell whether `upright` swaps the height and width of an image that has been read."""
    return exif_of(image).get(ORIENTATION) in _SIDEWAYS


def exif_of(image: Image.Image) -> Image.Exif:
    """Return EXIF as far as the file has been read; empty where there is none, or none that can be understood."""
    try:
        exif = Image.Image.getexif(image)  # PNG's own method would decode the picture first
        hash(exif.get(ORIENTATION))  # values are looked at when asked for
    except Exception:  # whatever Pillow stumbles over in damaged EXIF
        return Image.Exif()
    return exif


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Return (height, width) as `read_image` would, from the header alone; raise the same errors.

    Only a PNG with its EXIF behind the pixels is decoded for it.
    """
    with opened(path) as image:
        width, height = image.size
        if image.format == "TIFF":  # some versions of Pillow turn the size of these already
            width, height = (int(image.tag_v2[tag]) for tag in (256, 257))  # type: ignore[attr-defined]
        turned = _orientation(image, path) in _SIDEWAYS
    return (width, height) if turned else (height, width)


def conversions(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Return which of rotated, greyscale, palette, CMYK, transparency and 16-bit a file is, by its header alone."""
    with opened(path) as image:
        found = {
            "rotated": _orientation(image, path) in _TURNS,
            "greyscale": image.mode in ("1", "L", "LA") or image.mode.startswith("I"),
            "palette": image.mode in ("P", "PA"),
            "CMYK": image.mode == "CMYK",
            "transparency": image.has_transparency_data,
            "16-bit": image.mode.startswith("I") or "16" in raw_mode(image),
        }
    return tuple(kind for kind, holds in found.items() if holds)


def raw_mode(image: Image.Image) -> str:
    """Return Pillow's name for the samples in the file of an image that is not decoded yet, such as RGB;16B."""
    arguments = image.tile[0][3] if getattr(image, "tile", None) else ""  # type: ignore[attr-defined]
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def write_image(path: str | os.PathLike[str], array: np.ndarray) -> Path:
    """Write uint8 (H, W, 3) or (H, W) to `path`, in the format of its ending, and return the path.

    The write is atomic: a full disk leaves the old file as it was.
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
    """Return the format that `write_image` would write to `path`; raise ValueError for an unknown ending."""
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind not in Image.SAVE:
        raise ValueError(f"{path}: unknown image ending {path.suffix!r}; use .png (lossless) or .jpg")
    return kind


def to_tensor(array: np.ndarray) -> torch.Tensor:
    """Turn uint8 (..., H, W, 3) in 0..255 into float32 (..., 3, H, W) in [0, 1].

    Example:
        >>> to_tensor(np.full((2, 4, 3), 255, np.uint8)).shape
        torch.Size([3, 2, 4])
    """
    if array.dtype != np.uint8 or array.ndim < 3 or array.shape[-1] != 3:
        raise ValueError(f"to_tensor expects uint8 (..., H, W, 3), got {array.dtype} {array.shape}")
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, -3))).float().div_(255)


def to_array(tensor: torch.Tensor) -> np.ndarray:
    """Turn a float tensor (..., 3, H, W) into uint8 (..., H, W, 3): clamped to [0, 1], then rounded to 256 levels.

    Example:
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
def opened(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """Open a file as a PIL image that is not decoded yet, and close it after the block.

    A folder, a pipe, a device, an animation, an empty or foreign file, and one that breaks inside the block raise
    ImageError. Of several pictures in a HEIC file, the one that it calls the primary is opened.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise ImageError(f"{path}: is a folder, not an image file")
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such image file")
        if not path.is_file():
            raise ImageError(f"{path}: is a pipe or a device, not an image file")
        if path.stat().st_size == 0:
            raise ImageError(f"{path}: is empty (0 bytes); copy or download it again")
        try:
            with open(path, "rb") as file:
                head = file.read(12)
            foreign = head[4:8] == b"ftyp" and head[8:] in _HEIC_BRANDS
            with warnings.catch_warnings():  # of a picture that is large, but below Pillow's limit
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                image = heif(path).HeifImageFile(path) if foreign else Image.open(path, formats=FORMATS)
            if Image.MAX_IMAGE_PIXELS and math.prod(image.size) > 2 * Image.MAX_IMAGE_PIXELS:  # HEIC too
                raise Image.DecompressionBombError(f"{image.size[0]} x {image.size[1]} pixels")
            frames = getattr(image, "n_frames", 1)
        except (ImageError, MemoryError):
            raise
        except Image.DecompressionBombError as error:
            raise ImageError(
                f"{path}: is larger than Pillow opens ({_reason(error)}); make it smaller, or cut it"
            ) from error
        except Exception as error:
            detail = "" if isinstance(error, UnidentifiedImageError) else f" ({_reason(error)})"
            raise ImageError(f"{path}: is no image that this kit reads ({', '.join(FORMATS)}, HEIC){detail}") from error
        with image:
            # A camera's MPO holds its picture first and previews after it; any other second frame is an animation.
            if frames > 1 and image.format not in ("MPO", "HEIF"):
                raise ImageError(f"{path}: holds {frames} frames; save the one you mean as a PNG")
            yield image
    except (ImageError, FileNotFoundError, MemoryError):
        raise
    except Exception as error:  # decoders let slip whatever their arithmetic on broken bytes raises
        raise ImageError(f"{path}: cannot be decoded ({_reason(error)}); copy or download it again") from error


def heif(path: str | os.PathLike[str]) -> Any:
    """Return the library for HEIC pictures; without the extra, raise an ImageError that names the picture."""
    try:
        import pillow_heif
    except ImportError:
        raise ImageError(f"{path}: HEIC pictures need an extra: pip install 'manas_lite[heic]'") from None
    return pillow_heif


def _orientation(image: Image.Image, path: str | os.PathLike[str]) -> object:
    """Return EXIF's orientation of an image just opened."""
    if image.format == "PNG" and "exif" not in image.info and _has_late_exif(path):
        image.load()
    return exif_of(image).get(ORIENTATION, 1)


def _has_late_exif(path: str | os.PathLike[str]) -> bool:
    """Tell whether a PNG holds EXIF or XMP behind its pixels; only the beginnings of its chunks are read."""
    with open(path, "rb") as file:
        file.seek(8)
        pixels = False
        while head := file.read(32):  # length, kind, first bytes
            pixels = pixels or head[4:8] == b"IDAT"
            if pixels and head[4:].startswith(_LATE_EXIF):
                return True
            file.seek(int.from_bytes(head[:4], "big") + 12 - len(head), os.SEEK_CUR)
    return False


def _reason(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
