"""A photograph with what its file holds beside the colours: depth, transparency, colour profile, camera data.

`images.read_image` gives what a network trains on: 8-bit RGB, everything else converted away. A photograph that
somebody wants back gets back what it had:

* 8 or 16 bits per channel: PNG and TIFF in colour or grey; 16-bit grey with an alpha channel is read as 8-bit, and
  JPEG, WebP and HEIC hold 8 bits whatever is written to them;
* transparency, apart from the colours; a format without it (JPEG) gets the picture laid over white;
* grey stays grey; an EXIF orientation is applied once and its tag removed;
* a JPEG from a JPEG is written with the quantisation tables and the chroma of the one that was read, and a WebP from a
  lossless one without loss;
* the resolution (dpi) is kept in JPEG, PNG, TIFF and BMP, and a PNG's gamma, primaries and sRGB mark in a PNG;
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
from PIL.JpegImagePlugin import get_sampling
from PIL.PngImagePlugin import PngInfo

from manas_lite.photos import images
from manas_lite.photos.images import HEIC, SUFFIXES, ImageError, heif, opened
from manas_lite.runs.checkpoint import write_atomic

PHOTOGRAPHS = SUFFIXES | HEIC
"""File name endings (lower case) that are taken for photographs when a folder is listed."""

_EXIF, _GPS, _MAKER_NOTE = 0x8769, 0x8825, 0x927C
_TEXTS = (270, 271, 272, 305, 306, 315, 33432)  # description, make, model, software, date, artist, copyright
_RESOLUTION = (282, 283, 296)


@dataclass(frozen=True)
class Photograph:
    """A photograph in memory, upright."""

    pixels: np.ndarray
    """(H, W, 3), or (H, W) for grey; uint8 or uint16."""
    alpha: np.ndarray | None = None
    """Opacity (H, W) in the type of the pixels, or None for an opaque picture."""
    profile: bytes | None = None
    """The ICC colour profile."""
    exif: bytes | None = None
    """EXIF as Pillow writes it, without orientation."""
    dpi: tuple[float, float] | None = None
    """Resolution across and down, in pixels per inch."""
    coding: tuple[str, dict[str, Any]] | None = None
    """How the file was coded: the format, and Pillow's options that write another file of this format so."""

    @property
    def deep(self) -> bool:
        """Whether the photograph has 16 bits per channel."""
        return self.pixels.dtype == np.uint16

    def without_location(self) -> "Photograph":
        """Return the photograph without EXIF's GPS block and maker's notes, where some cameras keep a copy of it."""
        if self.exif is None:
            return self
        exif = _exif_from(self.exif)
        exif.pop(_GPS, None)
        if _EXIF in exif:
            exif.get_ifd(_EXIF).pop(_MAKER_NOTE, None)
        return replace(self, exif=_packed(exif))

    def shallow(self) -> "Photograph":
        """Return the photograph with 8 bits per channel: the nearest of 256 levels."""
        if not self.deep:
            return self
        alpha = None if self.alpha is None else _nearest_byte(self.alpha)
        return replace(self, pixels=_nearest_byte(self.pixels), alpha=alpha)


def _nearest_byte(values: np.ndarray) -> np.ndarray:
    return np.rint(values / 257.0).astype(np.uint8)


def open_photograph(path: str | os.PathLike[str]) -> Photograph:
    """Return the photograph in a file; raise FileNotFoundError, or ImageError for what is no readable picture."""
    with opened(path) as image:
        deep = _has_deep_colour(image, path)
        if image.format != "TIFF":
            image.load()  # a PNG may hold EXIF behind its pixels
        camera = _camera_data(image)  # a TIFF forgets its blocks once loaded
        photo = replace(from_pil(image, path), exif=camera, coding=_coding(image, path))
        if not deep:
            return photo
        low = _low_bytes(path)
        alpha = None if photo.alpha is None or low.alpha is None else _joined(photo.alpha, low.alpha)
        return replace(photo, pixels=_joined(photo.pixels, low.pixels), alpha=alpha)


def from_pil(image: Image.Image, name: str | os.PathLike[str] = "the picture") -> Photograph:
    """Return a PIL image as a photograph; `name` stands in errors."""
    turned = images.upright(image)
    camera = _camera_data(image)
    profile = image.info.get("icc_profile") or None
    levels = images.integer_samples(turned, name)
    if levels is not None:
        clear = image.info.get("transparency")  # the one level of a PNG that is transparent
        alpha = np.where(levels == clear, 0, 65535).astype(np.uint16) if isinstance(clear, int) else None
        return Photograph(levels.astype(np.uint16), alpha, profile, camera, _dpi(image))
    if turned.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX"):
        profile = None  # it describes inks or Lab, not the RGB that comes out
    grey = turned.mode in ("1", "L", "LA")
    held = profile, camera, _dpi(image)
    if not turned.has_transparency_data:
        return Photograph(np.array(turned.convert("L" if grey else "RGB")), None, *held)
    layers = np.array(turned.convert("LA" if grey else "RGBA"))
    pixels = layers[..., 0] if grey else layers[..., :3]
    return Photograph(np.ascontiguousarray(pixels), layers[..., -1].copy(), *held)


def to_pil(photo: Photograph) -> Image.Image:
    """Return a PIL image of mode L, LA, RGB, RGBA or, for 16-bit grey, I;16; other depths become 8-bit.

    Profile, EXIF and resolution are in its `info`.
    """
    if not (photo.deep and photo.pixels.ndim == 2 and photo.alpha is None):
        photo = photo.shallow()
    image = Image.fromarray(photo.pixels)
    if photo.alpha is not None:
        image.putalpha(Image.fromarray(photo.alpha))
    image.info.update(_extras(photo))
    return image


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise what `save_photograph` would: ValueError for an unknown ending, ImageError for HEIC without the extra."""
    suffix = Path(path).suffix.lower()
    if suffix not in PHOTOGRAPHS:
        raise ValueError(f"{path}: unknown image ending {suffix!r}; use one of {', '.join(sorted(PHOTOGRAPHS))}")
    if suffix in HEIC:
        heif(path)


def save_photograph(path: str | os.PathLike[str], photo: Photograph) -> Path:
    """Write a photograph in the format of the path's ending, whole or not at all, and return the path.

    A format is written as the file that the photograph came from, where that was of the same format (`coding`). Else
    JPEG, WebP and HEIC are written in quality 95 of 100; PNG and TIFF are lossless, with 16 bits where the photograph
    has them. An 8-bit TIFF is not compressed: libtiff cannot pack one that holds EXIF. Raises what `check_writable`
    does.
    """
    path = Path(path)
    check_writable(path)
    kind = Image.registered_extensions().get(path.suffix.lower(), "HEIF").replace("MPO", "JPEG")  # its first picture
    if photo.deep and kind in ("PNG", "TIFF"):
        write_atomic(path, _deep_png(photo) if kind == "PNG" else _deep_tiff(photo))
        return path
    image = to_pil(photo.shallow())
    if kind not in ("PNG", "TIFF", "WEBP", "HEIF", "GIF"):
        image = images.over_white(image).convert("L" if photo.pixels.ndim == 2 else "RGB")
    options: dict[str, Any] = {"quality": 95} if kind in ("JPEG", "WEBP", "HEIF") else {}
    if photo.coding and photo.coding[0] == kind:
        options = dict(photo.coding[1])
    options |= _extras(photo)
    if kind == "TIFF" and photo.exif:  # Pillow takes its bytes apart once more
        options["exif"] = _with_texts(_exif_from(photo.exif))
    buffer = io.BytesIO()
    if kind == "HEIF":
        heif(path).from_pillow(image).save(buffer, **options)
    else:
        image.save(buffer, format=kind, **options)
    write_atomic(path, buffer.getvalue())
    return path


def _extras(photo: Photograph) -> dict[str, Any]:
    """Return profile, EXIF and resolution under Pillow's names for them, where there are any."""
    return {k: v for k, v in (("icc_profile", photo.profile), ("exif", photo.exif), ("dpi", photo.dpi)) if v}


def _dpi(image: Image.Image) -> tuple[float, float] | None:
    """Return the resolution of an image; None where none is stated, or none that a file can hold."""
    try:
        x, y = (float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError):
        return None
    if not (0 < x < 65536 and 0 < y < 65536):
        return None
    return (y, x) if images.sideways(image) else (x, y)


def _coding(image: Image.Image, path: str | os.PathLike[str]) -> tuple[str, dict[str, Any]] | None:
    """Return how a JPEG or lossless WebP is coded, and what a PNG says of its colours; None for others and for inks."""
    if image.format in ("JPEG", "MPO") and image.mode != "CMYK":
        tables = [table for _, table in sorted(image.quantization.items())]  # type: ignore[attr-defined]
        sampling = get_sampling(image)
        if sampling < 0 or (sampling == 1 and images.sideways(image)):
            sampling = 0  # all chroma, where Pillow has no number for it, or a turn lays 4:2:2 the other way
        return "JPEG", {"qtables": tables, "subsampling": sampling}
    if image.format == "PNG":
        about, info = PngInfo(), image.info
        for name, key in ((b"cHRM", "chromaticity"), (b"gAMA", "gamma")):
            if key in info:
                about.add(name, np.rint(np.ravel(info[key]) * 100_000).astype(">u4").tobytes())
        if "srgb" in info and "icc_profile" not in info:
            about.add(b"sRGB", bytes([info["srgb"]]))
        return "PNG", {"pnginfo": about}
    if image.format != "WEBP":
        return None
    with open(path, "rb") as file:
        file.seek(12)
        while (head := file.read(8)) and head[:4] not in (b"VP8 ", b"VP8L"):
            file.seek((int.from_bytes(head[4:], "little") + 1) & ~1, os.SEEK_CUR)
    return ("WEBP", {"lossless": True}) if head[:4] == b"VP8L" else None


# --- camera data ---


def _camera_data(image: Image.Image) -> bytes | None:
    """Return EXIF without orientation; None where there is none, or none that can be understood.

    Pillow takes every tag of a TIFF for EXIF: of those, the ones that say nothing of its layout are returned.
    """
    try:
        exif = _exif_from(_with_texts(images.exif_of(image)).tobytes())  # a copy: the caller's image keeps its own
        exif.pop(images.ORIENTATION, None)
        if image.format == "TIFF":
            for tag in set(exif) - {*_TEXTS, *_RESOLUTION, _EXIF, _GPS}:
                del exif[tag]
        return _packed(exif)
    except Exception:  # whatever Pillow stumbles over in damaged EXIF
        return None


class _Text(str):
    """A text of EXIF, written with the bytes that it was read from: Pillow reads Latin-1 and would write ASCII."""

    def encode(self, encoding: str = "latin-1", errors: str = "strict") -> bytes:
        try:
            return super().encode("latin-1")
        except UnicodeEncodeError:  # never in a file; set by a program
            return super().encode("utf-8")


def _exif_from(content: bytes | None) -> Image.Exif:
    exif = Image.Exif()
    exif.load(content or b"")
    return exif


def _packed(exif: Image.Exif) -> bytes | None:
    """Return EXIF as bytes, its texts as they were; None where it is empty."""
    return _with_texts(exif).tobytes() if len(exif) else None


def _with_texts(exif: Image.Exif) -> Image.Exif:
    """Replace the texts of EXIF by ones that keep their bytes, and return it."""
    for block in (exif, *(exif.get_ifd(tag) for tag in (_EXIF, _GPS) if tag in exif)):
        block.update({tag: _Text(value) for tag, value in block.items() if isinstance(value, str)})
    return exif


# --- 16 bits in colour, which Pillow reads and writes as 8 ---
# No library that this kit needs already does it instead: tifffile reads no PNG, and no TIFF packed with LZW without
# another large package; none of them writes such a PNG.


def _has_deep_colour(image: Image.Image, path: str | os.PathLike[str]) -> bool:
    """Tell whether Pillow would throw away half of each colour sample; refuse where that half cannot be had."""
    raw = images.raw_mode(image)
    if raw.startswith(("RGB;16", "RGBA;16", "RGBX;16")):
        return True
    if raw.startswith("RGBa;16"):
        raise ImageError(
            f"{path}: its 16-bit colours are multiplied by their transparency; save it with straight alpha"
        )
    bits_per_sample = getattr(image, "tag_v2", {}).get(258, ())
    if image.mode in ("RGB", "RGBA") and 16 in np.ravel(bits_per_sample):
        raise ImageError(f"{path}: its 16-bit channels lie apart (planar); save it with interleaved channels")
    return False


def _low_bytes(path: str | os.PathLike[str]) -> Photograph:
    """Return the low bytes of 16-bit colour: Pillow unpacks the high ones, or, told the opposite byte order, these."""
    with opened(path) as image:
        image.tile = [_swapped(tile) for tile in image.tile]  # type: ignore[attr-defined]
        image.load()
        return from_pil(image, path)


def _swapped(tile: Any) -> Any:
    """Return a tile of Pillow whose samples, such as RGB;16B, are said to be in the opposite byte order."""
    raw, *rest = (tile[3],) if isinstance(tile[3], str) else tile[3]
    little = raw.endswith("L") or (raw.endswith("N") and sys.byteorder == "little")  # N is the machine's own order
    raw = raw[:-1] + ("B" if little else "L")
    arguments = raw if isinstance(tile[3], str) else (raw, *rest)
    return tile._replace(args=arguments) if hasattr(tile, "_replace") else (*tile[:3], arguments)  # before Pillow 11


def _joined(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    return high.astype(np.uint16) << 8 | low


def _samples(photo: Photograph) -> np.ndarray:
    """Return pixels and alpha as one array (H, W, 1..4)."""
    return np.dstack([photo.pixels] if photo.alpha is None else [photo.pixels, photo.alpha])


def _deep_png(photo: Photograph) -> bytes:
    """Return a 16-bit PNG, each row stored as its difference from the one above. Source: ISO/IEC 15948."""
    samples = _samples(photo)
    height, width, channels = samples.shape
    rows = samples.astype(">u2").view(np.uint8).reshape(height, -1)
    up = np.diff(rows, axis=0, prepend=np.zeros_like(rows[:1]))
    lines = np.insert(up, 0, 2, axis=1).tobytes()  # 2 names this filter at the beginning of each row
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    colours = photo.coding[1]["pnginfo"].chunks if photo.coding and photo.coding[0] == "PNG" else []
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)),
        *((name, content) for name, content, *_ in colours),
        (b"pHYs", struct.pack(">IIB", *(round(dpi / 0.0254) for dpi in photo.dpi), 1) if photo.dpi else None),
        (b"iCCP", b"ICC profile\0\0" + zlib.compress(photo.profile) if photo.profile else None),
        (b"eXIf", photo.exif.removeprefix(b"Exif\0\0") if photo.exif else None),
        (b"IDAT", zlib.compress(lines)),
        (b"IEND", b""),
    ]
    parts = (
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
        if content is not None
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _deep_tiff(photo: Photograph) -> bytes:
    samples = _samples(photo)
    exif = _exif_from(photo.exif)
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        samples[..., 0] if samples.shape[2] == 1 else samples,
        photometric="minisblack" if photo.pixels.ndim == 2 else "rgb",
        planarconfig="contig" if samples.shape[2] > 1 else None,
        extrasamples=["unassalpha"] if photo.alpha is not None else None,
        compression="zlib",
        iccprofile=photo.profile,
        resolution=photo.dpi,
        resolutionunit="INCH" if photo.dpi else None,
        extratags=[(tag, "s", 0, _Text(exif[tag]).encode(), True) for tag in _TEXTS if tag in exif],
        metadata=None,
        software=False,
    )
    return buffer.getvalue()
