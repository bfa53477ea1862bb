"""A photograph with what its file holds beside the colours: depth, transparency, colour profile, camera data.

`images.read_image` gives what a network trains on: 8-bit RGB, everything else converted away. A photograph that
somebody wants back gets back what it had:

* 8 or 16 bits a channel: PNG and TIFF in colour or grey; 16-bit grey with an alpha channel is read as 8-bit, and
  JPEG, WebP and HEIC hold 8 bits whatever is written to them;
* transparency, apart from the colours; a format without it (JPEG) gets the picture laid over white;
* grey stays grey; an EXIF orientation is applied once and its tag removed;
* the ICC profile and EXIF are carried over, except the profile of CMYK and Lab pictures, which become RGB. A 16-bit
  TIFF keeps EXIF's texts and date (camera, author, copyright). Thumbnails, XMP and IPTC are not carried.
"""

import io
import os
import struct
import sys
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from manas_lite.photos.images import SUFFIXES, ImageError, exif_of, image_size, open_image, refusing, upright
from manas_lite.runs.checkpoint import write_atomic

__all__ = [
    "DEEP",
    "HEIC",
    "PHOTOGRAPHS",
    "Photograph",
    "check_writable",
    "from_pil",
    "open_photograph",
    "photograph_size",
    "save_photograph",
    "to_pil",
]

HEIC = frozenset({".heic", ".heif"})
"""Endings that need the `heic` extra."""

PHOTOGRAPHS = SUFFIXES | HEIC
"""File name endings (lower case) that are taken for photographs when a folder is listed."""

DEEP = frozenset({".png", ".tif", ".tiff"})
"""Endings whose files can hold 16 bits a channel."""

_ORIENTATION, _EXIF, _GPS, _MAKER_NOTE = 0x0112, 0x8769, 0x8825, 0x927C
_BITS_PER_SAMPLE = 258
_TEXTS = (270, 271, 272, 305, 306, 315, 33432)  # description, make, model, software, date, artist, copyright
_RESOLUTION = (282, 283, 296)


@dataclass(frozen=True)
class Photograph:
    """pixels: (H, W, 3), or (H, W) for grey; alpha: (H, W) or None; both uint8 or both uint16, upright.
    profile: the ICC profile's bytes. exif: EXIF as Pillow writes it, without orientation."""

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    profile: bytes | None = None
    exif: bytes | None = None

    @property
    def deep(self) -> bool:
        """16 bits a channel?"""
        return self.pixels.dtype == np.uint16

    def without_location(self) -> "Photograph":
        """Without EXIF's GPS block, and without the maker's notes, where some cameras keep a copy of it."""
        if self.exif is None:
            return self
        exif = Image.Exif()
        exif.load(self.exif)
        exif.pop(_GPS, None)
        if _EXIF in exif:
            exif.get_ifd(_EXIF).pop(_MAKER_NOTE, None)
        return replace(self, exif=_packed(exif) if len(exif) else None)

    def shallow(self) -> "Photograph":
        """With 8 bits a channel: the nearest of 256 levels."""
        if not self.deep:
            return self
        return replace(self, pixels=_to_8(self.pixels), alpha=None if self.alpha is None else _to_8(self.alpha))


def open_photograph(path: str | os.PathLike[str]) -> Photograph:
    """The photograph in a file. Raises FileNotFoundError, or ImageError for what is no readable picture."""
    path = Path(path)
    with refusing(path):
        if path.suffix.lower() in HEIC:
            return from_pil(_heif().open_heif(path).to_pillow(), path)
        with open_image(path) as image:
            deep = _sixteen_bits(image, path)
            if image.format != "TIFF":
                image.load()  # a PNG may hold EXIF behind its pixels
            camera = _camera_data(image)  # a TIFF forgets its blocks once loaded
            photo = replace(from_pil(image, path), exif=camera)
        return replace(photo, **_halves(photo, path)) if deep else photo


def photograph_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(height, width) as `open_photograph` would return them, from the header alone; raises the same errors."""
    path = Path(path)
    if path.suffix.lower() not in HEIC:
        return image_size(path)
    with refusing(path):
        width, height = _heif().open_heif(path).size
    return height, width


def from_pil(image: Image.Image, name: str | os.PathLike[str] = "the picture") -> Photograph:
    """A PIL image as a photograph; `name` stands in errors."""
    turned = upright(image)
    camera = _camera_data(image)
    profile = image.info.get("icc_profile") or None
    if turned.mode == "F":
        raise ImageError(f"{name}: floating-point samples have no known range; save it as 8 or 16 bits a channel")
    if turned.mode.startswith("I"):
        values = np.asarray(turned)
        if values.size and (values.min() < 0 or values.max() > 65535):
            raise ImageError(f"{name}: integer samples outside 0..65535; save it as 8 or 16 bits a channel")
        clear = image.info.get("transparency")  # a PNG's one level that is
        alpha = np.where(values == clear, 0, 65535).astype(np.uint16) if isinstance(clear, int) else None
        return Photograph(values.astype(np.uint16), alpha, profile, camera)
    if turned.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX"):
        profile = None  # it describes inks or Lab, not the RGB that comes out
    grey = turned.mode in ("1", "L", "LA")
    if not turned.has_transparency_data:
        return Photograph(np.array(turned.convert("L" if grey else "RGB")), None, profile, camera)
    layers = np.array(turned.convert("LA" if grey else "RGBA"))
    pixels = layers[..., 0] if grey else layers[..., :3]
    return Photograph(np.ascontiguousarray(pixels), layers[..., -1].copy(), profile, camera)


def to_pil(photo: Photograph) -> Image.Image:
    """A PIL image of mode L, LA, RGB, RGBA or, for 16-bit grey, I;16; other depths become 8-bit. Profile and EXIF are
    in its `info`."""
    if photo.deep and photo.pixels.ndim == 2 and photo.alpha is None:
        image = Image.fromarray(photo.pixels)
    else:
        photo = photo.shallow()
        image = Image.fromarray(photo.pixels)
        if photo.alpha is not None:
            image.putalpha(Image.fromarray(photo.alpha))
    image.info.update({k: v for k, v in (("icc_profile", photo.profile), ("exif", photo.exif)) if v})
    return image


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raises what `save_photograph` would: ValueError for an ending that it does not know, ImageError for HEIC
    without the extra."""
    suffix = Path(path).suffix.lower()
    if suffix not in PHOTOGRAPHS:
        raise ValueError(f"{path}: unknown image ending {suffix!r}; use one of {', '.join(sorted(PHOTOGRAPHS))}")
    if suffix in HEIC:
        _heif()


def save_photograph(path: str | os.PathLike[str], photo: Photograph) -> Path:
    """Writes a photograph in the format of the path's ending, whole or not at all, and returns the path.

    JPEG, WebP and HEIC in quality 95 of 100; PNG and TIFF lossless, with 16 bits where the photograph has them. An
    8-bit TIFF is not compressed: libtiff cannot pack one that holds EXIF. Raises what `check_writable` does.
    """
    path = Path(path)
    check_writable(path)
    suffix = path.suffix.lower()
    if photo.deep and suffix in DEEP:
        write_atomic(path, _deep_png(photo) if suffix == ".png" else _deep_tiff(photo))
        return path
    image = to_pil(photo.shallow())
    kind = Image.registered_extensions().get(suffix, "HEIF")
    if kind not in ("PNG", "TIFF", "WEBP", "HEIF", "GIF"):
        image = _over_white(image)
    options: dict[str, Any] = {"quality": 95} if kind in ("JPEG", "WEBP", "HEIF") else {}
    options |= {k: v for k, v in (("icc_profile", photo.profile), ("exif", photo.exif)) if v}
    if kind == "TIFF" and photo.exif:  # Pillow takes its bytes apart once more
        exif = Image.Exif()
        exif.load(photo.exif)
        options["exif"] = _with_texts(exif)
    buffer = io.BytesIO()
    if kind == "HEIF":
        _heif().from_pillow(image).save(buffer, **options)
    else:
        image.save(buffer, format=kind, **options)
    write_atomic(path, buffer.getvalue())
    return path


def _camera_data(image: Image.Image) -> bytes | None:
    """EXIF without orientation; of a TIFF, whose every tag Pillow takes for EXIF, what says nothing of its layout.
    None where there is none, or none that can be understood."""
    try:
        return _carried(image)
    except Exception:  # whatever Pillow stumbles over in damaged EXIF
        return None


def _carried(image: Image.Image) -> bytes | None:
    exif = Image.Exif()
    own = exif_of(image)
    for block in {_EXIF, _GPS} & set(own):
        own.get_ifd(block)
    exif.load(_packed(own))  # a copy: the caller's image keeps its own
    exif.pop(_ORIENTATION, None)
    if image.format == "TIFF":
        for tag in set(exif) - {*_TEXTS, *_RESOLUTION, _EXIF, _GPS}:
            del exif[tag]
    return _packed(exif) if len(exif) else None


class _Text(str):
    """A text of EXIF, written with the bytes that it was read from: Pillow reads Latin-1 and would write ASCII."""

    def encode(self, encoding: str = "latin-1", errors: str = "strict") -> bytes:
        try:
            return super().encode("latin-1")
        except UnicodeEncodeError:  # never in a file; set by a program
            return super().encode("utf-8")


def _packed(exif: Image.Exif) -> bytes:
    """EXIF as bytes, its texts as they were."""
    return _with_texts(exif).tobytes()


def _with_texts(exif: Image.Exif) -> Image.Exif:
    for block in (exif, *(exif.get_ifd(tag) for tag in (_EXIF, _GPS) if tag in exif)):
        for tag, value in list(block.items()):
            if isinstance(value, str):
                block[tag] = _Text(value)
    return exif


def _to_8(values: np.ndarray) -> np.ndarray:
    return np.rint(values / 257.0).astype(np.uint8)


def _over_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    white = Image.new("RGBA", image.size, "white")
    flat = Image.alpha_composite(white, image.convert("RGBA")).convert("L" if image.mode == "LA" else "RGB")
    flat.info.update(image.info)
    return flat


def _heif() -> Any:
    try:
        import pillow_heif
    except ImportError:
        raise ImageError("HEIC pictures need an extra: pip install 'manas_lite[heic]'") from None
    return pillow_heif


# --- 16 bits in colour, which Pillow reads and writes as 8 ---


def _raw_mode(image: Image.Image) -> str:
    tiles = getattr(image, "tile", None)
    args = tiles[0][3] if tiles else ""
    return str(args if isinstance(args, str) else args[0])


def _sixteen_bits(image: Image.Image, path: Path) -> bool:
    """Whether Pillow would throw away half of each colour sample. Refused where the other half cannot be had."""
    raw = _raw_mode(image)
    if raw.startswith(("RGB;16", "RGBA;16", "RGBX;16")):
        return True
    if raw.startswith("RGBa;16"):
        raise ImageError(
            f"{path}: its 16-bit colours are multiplied by their transparency; save it with straight alpha"
        )
    bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, ())
    if image.mode in ("RGB", "RGBA") and 16 in np.ravel(bits):
        raise ImageError(f"{path}: its 16-bit channels lie apart (planar); save it with interleaved channels")
    return False


def _halves(high: Photograph, path: Path) -> dict[str, Any]:
    """Pillow unpacks the high bytes of 16-bit colour. Told the opposite byte order, it unpacks the low ones."""
    with open_image(path) as image:
        tiles = []
        for tile in image.tile:  # type: ignore[attr-defined]
            args = tile[3]
            raw, *rest = (args,) if isinstance(args, str) else args
            native = "L" if sys.byteorder == "little" else "B"
            order = native if raw[-1] == "N" else raw[-1]
            swapped = raw[:-1] + ("B" if order == "L" else "L")
            args = swapped if isinstance(args, str) else (swapped, *rest)
            tiles.append(tile._replace(args=args) if hasattr(tile, "_replace") else (*tile[:3], args))  # old Pillow
        image.tile = tiles  # type: ignore[attr-defined]
        image.load()
        low = from_pil(image, path)

    def joined(most: np.ndarray, least: np.ndarray) -> np.ndarray:
        return most.astype(np.uint16) << 8 | least

    both = high.alpha is not None and low.alpha is not None
    alpha = joined(high.alpha, low.alpha) if both else None  # type: ignore[arg-type]
    return {"pixels": joined(high.pixels, low.pixels), "alpha": alpha}


def _samples(photo: Photograph) -> np.ndarray:
    """Pixels and alpha as one array (H, W, 1..4)."""
    pixels = photo.pixels if photo.pixels.ndim == 3 else photo.pixels[..., None]
    return pixels if photo.alpha is None else np.concatenate([pixels, photo.alpha[..., None]], axis=2)


def _deep_png(photo: Photograph) -> bytes:
    """PNG specification (ISO/IEC 15948); each row as its difference from the one above."""
    samples = _samples(photo)
    height, width, channels = samples.shape
    rows = samples.astype(">u2").view(np.uint8).reshape(height, -1)
    up = np.diff(rows, axis=0, prepend=np.zeros_like(rows[:1]))
    lines = np.concatenate([np.full((height, 1), 2, np.uint8), up], axis=1).tobytes()
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    parts = [_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))]
    if photo.profile:
        parts.append(_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(photo.profile)))
    if photo.exif:
        parts.append(_chunk(b"eXIf", photo.exif.removeprefix(b"Exif\0\0")))
    parts += [_chunk(b"IDAT", zlib.compress(lines)), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _deep_tiff(photo: Photograph) -> bytes:
    samples = _samples(photo)
    exif = Image.Exif()
    exif.load(photo.exif or b"")
    texts = [(tag, "s", 0, _Text(exif[tag]).encode(), True) for tag in _TEXTS if tag in exif]
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        samples[..., 0] if samples.shape[2] == 1 else samples,
        photometric="minisblack" if photo.pixels.ndim == 2 else "rgb",
        planarconfig="contig" if samples.shape[2] > 1 else None,
        extrasamples=["unassalpha"] if photo.alpha is not None else None,
        compression="zlib",
        iccprofile=photo.profile,
        extratags=texts,
        metadata=None,
        software=False,
    )
    return buffer.getvalue()
