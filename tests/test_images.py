"""Reading and writing pictures: every kind of file is converted as documented, or refused by name."""

import ast
import contextlib
import io
import os
import resource
import signal
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from manas_lite.photos.images import (
    FORMATS,
    SUFFIXES,
    ImageError,
    conversions,
    image_size,
    read_image,
    to_array,
    to_tensor,
    write_image,
)
from manas_lite.photos.photographs import open_photograph

COLOUR = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY = COLOUR[..., 0]

images = hnp.arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6), st.just(3)))


@given(images)
def test_tensor_and_back_is_the_identity(array: np.ndarray) -> None:
    tensor = to_tensor(array)
    assert tensor.dtype == torch.float32
    assert tensor.shape == (3, *array.shape[:2])
    assert 0 <= float(tensor.min()) <= float(tensor.max()) <= 1
    np.testing.assert_array_equal(to_array(tensor), array)


def test_to_tensor_puts_channels_first_and_divides_by_255() -> None:
    assert float(to_tensor(COLOUR)[2, 1, 4]) == pytest.approx(COLOUR[1, 4, 2] / 255)


def test_to_array_clamps_and_rounds() -> None:
    tensor = torch.tensor([-1.0, 0.5 / 255 + 1e-6, 2.0]).view(3, 1, 1)
    assert to_array(tensor).ravel().tolist() == [0, 1, 255]


@pytest.mark.parametrize("bad", [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((3, 4, 4), np.uint8)])
def test_to_tensor_names_what_it_got(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expects uint8 \(..., H, W, 3\), got"):
        to_tensor(bad)


def test_to_array_refuses_what_is_no_picture() -> None:
    with pytest.raises(ValueError, match="expects a float tensor"):
        to_array(torch.zeros(4, 4))
    with pytest.raises(ValueError, match="NaN"):
        to_array(torch.full((3, 2, 2), float("nan")))


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm"])
def test_lossless_files_come_back_exactly(tmp_path: Path, suffix: str) -> None:
    path = write_image(tmp_path / f"a{suffix}", COLOUR)
    np.testing.assert_array_equal(read_image(path), COLOUR)
    assert image_size(path) == (5, 7)
    assert conversions(path) == ()


def test_greyscale_becomes_three_equal_channels(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.png", GREY)
    np.testing.assert_array_equal(read_image(path), np.repeat(GREY[..., None], 3, axis=2))
    assert conversions(path) == ("greyscale",)


def test_palette_is_looked_up(tmp_path: Path) -> None:
    image = Image.fromarray(COLOUR).quantize(16)
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.asarray(image.convert("RGB")))
    assert conversions(tmp_path / "a.png") == ("palette",)


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    alpha = np.linspace(0, 255, 35).astype(np.uint8).reshape(5, 7, 1)
    Image.fromarray(np.concatenate([COLOUR, alpha], axis=2), "RGBA").save(tmp_path / "a.png")
    weight = alpha / 255
    np.testing.assert_allclose(read_image(tmp_path / "a.png"), COLOUR * weight + 255 * (1 - weight), atol=1)
    assert conversions(tmp_path / "a.png") == ("transparency",)


def test_sixteen_bit_grey_keeps_its_high_byte(tmp_path: Path) -> None:
    values = (GREY.astype(np.uint16) << 8) | 200
    Image.fromarray(values).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[..., 1], GREY)
    assert conversions(tmp_path / "a.png") == ("greyscale", "16-bit")


def test_sixteen_bit_colour_keeps_its_high_byte(tmp_path: Path) -> None:
    """A PNG written by hand: Pillow itself cannot write 16-bit colour."""
    path = tmp_path / "a.png"
    samples = ((COLOUR.astype(np.uint16) << 8) | 3).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in samples)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 7, 5, 16, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    np.testing.assert_array_equal(read_image(path), COLOUR)
    assert conversions(path) == ("16-bit",)


def test_cmyk_is_converted(tmp_path: Path) -> None:
    Image.new("CMYK", (6, 4), (0, 255, 255, 0)).save(tmp_path / "a.jpg")  # full magenta and yellow: red
    picture = read_image(tmp_path / "a.jpg")
    assert picture.shape == (4, 6, 3)
    assert picture[..., 0].min() > 240
    assert picture[..., 1:].max() < 15
    assert conversions(tmp_path / "a.jpg") == ("CMYK",)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, suffix: str) -> None:
    turned = {
        1: COLOUR,
        2: COLOUR[:, ::-1],
        3: COLOUR[::-1, ::-1],
        4: COLOUR[::-1],
        5: COLOUR.transpose(1, 0, 2),
        6: np.rot90(COLOUR, -1),
        7: COLOUR[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(COLOUR),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(COLOUR).save(tmp_path / f"a{suffix}", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}"), turned)
    assert image_size(tmp_path / f"a{suffix}") == turned.shape[:2]
    assert conversions(tmp_path / f"a{suffix}") == (("rotated",) if orientation > 1 else ())


def _bad_files(folder: Path) -> dict[str, Path]:
    png = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(png, "PNG")
    contents = {"truncated": png.getvalue()[:3000], "no-image": b"hello, I am text", "empty": b""}
    paths = {name: folder / f"{name}.png" for name in contents}
    for name, content in contents.items():
        paths[name].write_bytes(content)
    paths["folder"] = folder / "folder.png"
    paths["folder"].mkdir()
    frames = [Image.new("RGB", (4, 4), (i * 60, 0, 0)) for i in range(3)]
    paths["animated"] = folder / "animated.gif"
    frames[0].save(paths["animated"], save_all=True, append_images=frames[1:])
    paths["float"] = folder / "float.tif"
    Image.fromarray(np.zeros((4, 4), np.float32)).save(paths["float"])
    return paths


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("truncated", "cannot be decoded .*download it again"),
        ("no-image", "is no image that this kit reads"),
        ("empty", r"is empty \(0 bytes\)"),
        ("folder", "is a folder, not an image file"),
        ("animated", "holds 3 frames; save the one you mean as a PNG"),
        ("float", "floating-point samples have no known range"),
    ],
)
def test_bad_file_is_refused_by_name(tmp_path: Path, kind: str, says: str) -> None:
    path = _bad_files(tmp_path)[kind]
    with pytest.raises(ImageError, match=says) as caught:
        read_image(path)
    assert str(caught.value).startswith(str(path))


def _png(*late: tuple[bytes, bytes]) -> bytes:
    """COLOUR as a PNG, with these chunks behind its pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    content = io.BytesIO()
    Image.fromarray(COLOUR).save(content, "PNG")
    whole, end = content.getvalue(), chunk(b"IEND", b"")
    return whole.removesuffix(end) + b"".join(chunk(*one) for one in late) + end


def _exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


@pytest.mark.parametrize(
    "late",
    [
        (b"eXIf", _exif(6).removeprefix(b"Exif\0\0")),
        (b"tEXt", b"Raw profile type exif\0\nexif\n      32\n" + _exif(6).hex().encode()),
        (b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'),
    ],
    ids=["exif", "raw", "xmp"],
)
def test_orientation_behind_the_pixels_of_a_png(tmp_path: Path, late: tuple[bytes, bytes]) -> None:
    (tmp_path / "a.png").write_bytes(_png((b"tEXt", b"date\0today"), late))
    assert image_size(tmp_path / "a.png") == (7, 5)
    assert conversions(tmp_path / "a.png") == ("rotated",)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.rot90(COLOUR, -1))


def test_size_is_read_from_the_header_alone(tmp_path: Path) -> None:
    path = _bad_files(tmp_path)["truncated"]
    assert image_size(path) == (64, 64)
    assert conversions(path) == ()


@pytest.mark.parametrize(
    "damaged", [_png().replace(b"IDAT", b"I\0AT"), _png((b"eXIf", b"MM"))[:80]], ids=["chunk name", "cut"]
)
def test_a_damaged_png_is_refused_by_name_whoever_asks(tmp_path: Path, damaged: bytes) -> None:
    (tmp_path / "a.png").write_bytes(damaged)
    with pytest.raises(ImageError, match=r"a\.png: "):
        read_image(tmp_path / "a.png")
    for header in (image_size, conversions):
        with contextlib.suppress(ImageError):  # and nothing else
            header(tmp_path / "a.png")


@pytest.mark.filterwarnings("ignore:.*EXIF")
@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
@pytest.mark.parametrize(
    "bad", [b"Exif\0\0", b"Exif\0\0MM\0*", b"Exif\0\0??\0*\0\0\0\x08", b"Exif\0\0II*\0\x08\0\0\0\xff\xff"]
)
def test_damaged_exif_counts_as_none(tmp_path: Path, kind: str, bad: bytes) -> None:
    path = tmp_path / f"a.{kind.lower()}"
    Image.fromarray(COLOUR).save(path, kind)
    whole = read_image(path)
    Image.fromarray(COLOUR).save(path, kind, exif=bad)
    assert image_size(path) == (5, 7)
    assert conversions(path) == ()
    np.testing.assert_array_equal(read_image(path), whole)


def test_missing_file_is_named(tmp_path: Path) -> None:
    for reader in (read_image, image_size, conversions):
        with pytest.raises(FileNotFoundError, match=r"gone.png: no such image file"):
            reader(tmp_path / "gone.png")


@pytest.mark.parametrize("name", ["雨.png", "pluie d'été #1.png", "a b%20c.png", "ру́сский.PNG"])
def test_odd_names(tmp_path: Path, name: str) -> None:
    np.testing.assert_array_equal(read_image(write_image(tmp_path / name, COLOUR)), COLOUR)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1)])
def test_tiny_pictures(tmp_path: Path, size: tuple[int, int]) -> None:
    array = np.full((*size, 3), 9, np.uint8)
    np.testing.assert_array_equal(read_image(write_image(tmp_path / "a.png", array)), array)


def test_write_refuses_what_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="to_array"):
        write_image(tmp_path / "a.png", COLOUR / 255)
    with pytest.raises(ValueError, match=r"unknown image ending '.xyz'"):
        write_image(tmp_path / "a.xyz", COLOUR)
    assert list(tmp_path.iterdir()) == []


def test_full_disk_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.png", COLOUR)
    old_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, old_limit[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_image(path, np.random.default_rng(0).integers(0, 256, (99, 99, 3), dtype=np.uint8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old_limit)
    np.testing.assert_array_equal(read_image(path), COLOUR)
    assert os.listdir(tmp_path) == ["a.png"]


FOREIGN = ["EPS", "ICO", "TGA", "PCX", "SGI", "JPEG2000", "PDF", "XBM", "MSP", "DDS", "DIB", "ICNS"]


@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif", ".gif"])
@pytest.mark.parametrize("kind", FOREIGN)
def test_only_the_formats_that_are_named_are_opened(tmp_path: Path, kind: str, ending: str, monkeypatch) -> None:
    """Pillow itself wrote them all, and reads most; what is no PNG is refused under the name of one."""
    for name in ("Popen", "check_call", "run"):
        monkeypatch.setattr(f"subprocess.{name}", lambda *_, **__: pytest.fail("a program was started"))
    path = tmp_path / f"a{ending}"
    picture = Image.fromarray(np.zeros((64, 64, 3), np.uint8))
    mode = {"XBM": "1", "MSP": "1"}.get(kind, "RGB")
    with open(path, "wb") as file:
        picture.convert(mode).save(file, kind)
    for read in (read_image, image_size, conversions):
        with pytest.raises(ImageError, match="is no image that this kit reads") as caught:
            read(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ending", sorted(SUFFIXES))
@pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP", "MPO"])
def test_the_formats_that_are_named_are_opened_whatever_the_ending(tmp_path: Path, kind: str, ending: str) -> None:
    with open(tmp_path / f"a{ending}", "wb") as file:
        Image.fromarray(COLOUR).save(file, kind)
    assert read_image(tmp_path / f"a{ending}").shape == COLOUR.shape


def test_the_endings_are_all_those_of_the_formats_that_are_opened() -> None:
    """A file that is read where it is named must not be passed over in a folder."""
    opened = {*FORMATS, "MPO"}  # which is a JPEG with more behind it
    known = {ending for ending, kind in Image.registered_extensions().items() if kind in opened}
    assert known - SUFFIXES <= {".pfm"}  # floating-point samples, which are refused
    assert {Image.registered_extensions()[suffix] for suffix in SUFFIXES} == opened


def test_pillow_is_told_its_formats_wherever_it_opens_a_file(repository: Path) -> None:
    for module in (repository / "manas_lite").rglob("*.py"):
        for call in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("Image.open"):
                assert "formats" in {keyword.arg for keyword in call.keywords}, f"{module}: {ast.unparse(call)}"


@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif", ".heic"])
@pytest.mark.parametrize("make", [os.mkfifo, lambda p: p.symlink_to("/dev/zero"), lambda p: p.symlink_to("/dev/null")])
def test_only_regular_files_are_opened(tmp_path: Path, make, ending: str, monkeypatch) -> None:
    path = tmp_path / f"a{ending}"
    make(path)
    monkeypatch.setattr("builtins.open", lambda name, *_, **__: pytest.fail(f"{name} was opened"))
    for read in (read_image, image_size, conversions, open_photograph):
        with pytest.raises(ImageError, match=f"a{ending}: is a pipe or a device"):
            read(path)


def test_a_picture_beyond_pillows_limit_is_told_so_and_a_large_one_is_read_without_a_warning(tmp_path, monkeypatch):
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30 * 40 // 2 - 1)
    with pytest.raises(ImageError, match=r"a\.png: is larger than Pillow opens \(.*1200 pixels.*make it smaller"):
        read_image(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30 * 40 - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(tmp_path / "a.png").shape == (30, 40, 3)
