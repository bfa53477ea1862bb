"""A photograph comes back with what its file held: depth, transparency, profile, camera data, and nothing twice."""

import io
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import tiny
import torch
from PIL import Image, ImageCms
from PIL.JpegImagePlugin import get_sampling

from manas_lite.networks.nets import DerainNet
from manas_lite.photos.images import ImageError, image_size, read_image
from manas_lite.photos.inference import DivergedNetworkError, derain
from manas_lite.photos.photographs import (
    Photograph,
    from_pil,
    open_photograph,
    save_photograph,
    to_pil,
)

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (15, 21, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (15, 21, 3), dtype=np.uint16)
ALPHA = RNG.integers(0, 256, (15, 21), dtype=np.uint8)
DEEP_ALPHA = RNG.integers(0, 65536, (15, 21), dtype=np.uint16)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GPS_TAG, MAKE, ORIENTATION, EXPOSURE, MAKER_NOTE = 0x8825, 0x010F, 0x0112, 0x829A, 0x927C
ARTIST, LENS = 0x013B, 0xA434


def camera(orientation: int | None = None) -> Image.Exif:
    exif = Image.Exif()
    exif[MAKE] = "Rainproof"
    if orientation:
        exif[ORIENTATION] = orientation
    exif[0x8769] = {EXPOSURE: 0.004, MAKER_NOTE: b"also at 48.137154"}
    exif[GPS_TAG] = {1: "N", 2: (48.0, 8.0, 13.75)}
    return exif


def loaded(content: bytes) -> Image.Exif:
    exif = Image.Exif()
    exif.load(content)
    return exif


@pytest.fixture(scope="module")
def net() -> DerainNet:
    net = DerainNet(tiny.GENOTYPE).eval()
    torch.nn.init.normal_(net.head.weight, std=0.02, generator=torch.Generator().manual_seed(0))
    return net


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize(
    ("pixels", "alpha"),
    [(DEEP, None), (DEEP, DEEP_ALPHA), (DEEP[..., 0], None), (COLOUR, None), (COLOUR, ALPHA), (COLOUR[..., 0], ALPHA)],
    ids=["16", "16-alpha", "16-grey", "8", "8-alpha", "8-grey-alpha"],
)
def test_lossless_files_keep_every_bit(tmp_path, suffix, pixels, alpha):
    photo = Photograph(pixels, alpha, PROFILE)
    again = open_photograph(save_photograph(tmp_path / f"a{suffix}", photo))
    np.testing.assert_array_equal(again.pixels, pixels)
    assert again.pixels.dtype == pixels.dtype
    assert again.profile == PROFILE
    if alpha is None:
        assert again.alpha is None
    else:
        np.testing.assert_array_equal(again.alpha, alpha)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bit_tiffs_of_others(tmp_path, compression, order):
    """tifffile writes, this kit reads: both byte orders, packed or not."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, DEEP, photometric="rgb", compression=compression, byteorder=order)
    np.testing.assert_array_equal(open_photograph(path).pixels, DEEP)


def test_sixteen_bit_files_are_what_others_read(tmp_path):
    save_photograph(tmp_path / "a.tif", Photograph(DEEP, DEEP_ALPHA, PROFILE))
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        np.testing.assert_array_equal(file.asarray(), np.dstack([DEEP, DEEP_ALPHA]))
        assert file.pages[0].iccprofile == PROFILE
    content = save_photograph(tmp_path / "a.png", Photograph(DEEP)).read_bytes()
    assert struct.unpack(">IIBB", content[16:26]) == (21, 15, 16, 2)  # the header of ISO/IEC 15948
    start = content.index(b"IDAT")
    (length,) = struct.unpack(">I", content[start - 4 : start])
    rows = np.frombuffer(zlib.decompress(content[start + 4 : start + 4 + length]), np.uint8).reshape(15, -1)
    assert set(rows[:, 0]) == {2}  # each row as the difference from the one above
    np.testing.assert_array_equal(rows[:, 1:].cumsum(0, dtype=np.uint8).reshape(-1).view(">u2"), DEEP.reshape(-1))


def test_planar_sixteen_bits_are_refused_and_not_halved(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", DEEP.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    with pytest.raises(ImageError, match="interleaved"):
        open_photograph(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_profile_and_camera_data_are_carried_and_the_picture_stands_upright(tmp_path, net, suffix):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(COLOUR).save(path, exif=camera(orientation=6).tobytes(), icc_profile=PROFILE)
    before = open_photograph(path)
    assert before.pixels.shape == (21, 15, 3)
    assert image_size(path) == (21, 15)
    with Image.open(derain(path, net)) as after:
        assert after.size == (15, 21)
        exif = after.getexif()
        assert exif.get(ORIENTATION, 1) == 1
        assert exif[MAKE] == "Rainproof"
        assert exif.get_ifd(0x8769)[EXPOSURE] == pytest.approx(0.004)
        assert exif.get_ifd(GPS_TAG)[1] == "N"
        assert after.info["icc_profile"] == PROFILE


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_location_is_dropped_on_request(tmp_path, net, suffix):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(COLOUR).save(path, exif=camera().tobytes())
    kept, dropped = tmp_path / f"kept{suffix}", tmp_path / f"dropped{suffix}"
    derain(path, net, output=kept)
    derain(path, net, output=dropped, keep_location=False)
    assert b"48.137154" in kept.read_bytes()
    assert b"48.137154" not in dropped.read_bytes()
    with Image.open(kept) as image:
        assert image.getexif().get_ifd(GPS_TAG)
    with Image.open(dropped) as image:
        exif = image.getexif()
        assert GPS_TAG not in exif
        assert not exif.get_ifd(GPS_TAG)
        assert exif[MAKE] == "Rainproof"


def test_sixteen_bit_tiff_keeps_texts(tmp_path):
    photo = Photograph(DEEP, exif=camera().tobytes())
    with Image.open(save_photograph(tmp_path / "a.tif", photo)) as image:
        assert image.getexif()[MAKE] == "Rainproof"


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("text", ["Jörg".encode("latin-1"), "Jörg".encode(), "雨宮".encode()])
def test_texts_outside_ascii_keep_their_bytes(tmp_path, net, suffix, text):
    exif = Image.Exif()
    exif[ARTIST] = text
    exif[0x8769] = {LENS: text.decode("latin-1"), EXPOSURE: 0.004}
    content = exif.tobytes().replace(text.decode("latin-1").encode("ascii", "replace"), text)
    assert content.count(text) == 2
    path = tmp_path / "a.jpg"
    Image.fromarray(COLOUR).save(path, exif=content)
    for name in "bc":  # from JPEG, then from the format itself
        path = derain(path, net, output=tmp_path / f"{name}{suffix}", keep_location=False)
    with Image.open(path) as image:
        after = image.getexif()
        assert after[ARTIST].encode("latin-1") == text
        assert after.get_ifd(0x8769)[LENS].encode("latin-1") == text
    deep = save_photograph(tmp_path / "deep.tif", Photograph(DEEP, exif=content))
    with Image.open(deep) as image:
        assert image.getexif()[ARTIST].encode("latin-1") == text


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_sixteen_bit_grey_whose_zero_is_white(tmp_path, compression):
    grey = DEEP[..., 0]
    tifffile.imwrite(tmp_path / "a.tif", grey, photometric="miniswhite", compression=compression)
    np.testing.assert_array_equal(open_photograph(tmp_path / "a.tif").pixels, 65535 - grey)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[..., 0], (65535 - grey) >> 8)


def test_sixteen_bit_grey_with_one_clear_level(tmp_path):
    grey = DEEP[..., 0]
    content = save_photograph(tmp_path / "a.png", Photograph(grey)).read_bytes()
    clear = b"tRNS" + struct.pack(">H", grey[2, 3])
    clear = struct.pack(">I", 2) + clear + struct.pack(">I", zlib.crc32(clear))
    (tmp_path / "a.png").write_bytes(content[:33] + clear + content[33:])  # behind the header
    photo = open_photograph(tmp_path / "a.png")
    np.testing.assert_array_equal(photo.pixels, grey)
    np.testing.assert_array_equal(photo.alpha, np.where(grey == grey[2, 3], 0, 65535))


def test_associated_alpha_is_refused_for_what_it_is(tmp_path):
    samples = np.dstack([DEEP, DEEP_ALPHA])
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", extrasamples=["assocalpha"])
    with pytest.raises(ImageError, match="straight alpha"):
        open_photograph(tmp_path / "a.tif")


def test_sixteen_bits_go_through_the_network(tmp_path, net):
    """Neighbouring levels of 16 bits stay apart: the result is not an 8-bit one in a larger file."""
    save_photograph(tmp_path / "a.png", Photograph(DEEP))
    out = open_photograph(derain(tmp_path / "a.png", net)).pixels
    np.testing.assert_array_equal(out, derain(DEEP, net))
    assert len(np.unique(out)) > 256


def test_alpha_comes_back_untouched_and_jpeg_is_laid_over_white(tmp_path, net):
    save_photograph(tmp_path / "a.png", Photograph(COLOUR, ALPHA))
    np.testing.assert_array_equal(open_photograph(derain(tmp_path / "a.png", net)).alpha, ALPHA)
    clear = Photograph(np.zeros_like(COLOUR), np.zeros_like(ALPHA))
    assert open_photograph(save_photograph(tmp_path / "a.jpg", clear)).pixels.min() > 250
    deep = save_photograph(tmp_path / "b.jpg", Photograph(np.full_like(DEEP, 128 * 257)))
    assert abs(open_photograph(deep).pixels.astype(int) - 128).max() <= 1


def test_the_callers_image_is_left_alone():
    buffer = io.BytesIO()
    Image.fromarray(COLOUR).save(buffer, "JPEG", exif=camera(orientation=3))
    image = Image.open(buffer)
    photo = from_pil(image)
    assert image.getexif()[ORIENTATION] == 3
    assert loaded(photo.exif).get(ORIENTATION) is None
    assert loaded(to_pil(photo).info["exif"])[MAKE] == "Rainproof"


def test_profile_of_inks_is_dropped(tmp_path):
    Image.new("CMYK", (6, 4)).save(tmp_path / "a.jpg", icc_profile=PROFILE)
    photo = open_photograph(tmp_path / "a.jpg")
    assert photo.profile is None
    assert photo.pixels.shape == (4, 6, 3)


def test_bad_files_and_endings(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"a\.png: is no image"):
        open_photograph(tmp_path / "a.png")
    with pytest.raises(FileNotFoundError, match="gone"):
        open_photograph(tmp_path / "gone.png")
    path = save_photograph(tmp_path / "b.png", Photograph(DEEP))
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(ImageError, match=r"b\.png: cannot be decoded"):
        open_photograph(path)
    with pytest.raises(ValueError, match="unknown image ending"):
        save_photograph(tmp_path / "c.xyz", Photograph(COLOUR))
    tifffile.imwrite(tmp_path / "f.tif", np.zeros((4, 4), np.float32))
    with pytest.raises(ImageError, match="floating-point"):
        open_photograph(tmp_path / "f.tif")


@pytest.mark.filterwarnings("ignore:.*EXIF")
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_damaged_camera_data_does_not_cost_the_picture(tmp_path, suffix):
    """A GPS block whose first value claims to be of a type that Pillow cannot convert; the orientation is readable."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    exif[GPS_TAG] = {2: (48.0, 8.0, 13.75)}
    good = exif.tobytes()
    for content in (good[:30], good.replace(b"\x88\x25\0\x04", b"\x88\x25\0\x02"), b"Exif\0\0??no TIFF"):
        Image.fromarray(COLOUR).save(tmp_path / f"a{suffix}", exif=content)
        photo = open_photograph(tmp_path / f"a{suffix}")
        assert photo.pixels.shape[:2] == image_size(tmp_path / f"a{suffix}")
        save_photograph(tmp_path / f"b{suffix}", photo.without_location())


def test_heic_in_and_out(tmp_path, net):
    heif = pytest.importorskip("pillow_heif", reason="HEIC needs the extra: pip install 'manas_lite[heic]'")
    path: Path = tmp_path / "a.heic"
    smooth = tiny.picture(0, 64)
    heif.from_pillow(Image.fromarray(smooth)).save(path, quality=95, exif=camera().tobytes())
    photo = open_photograph(path)
    assert np.abs(photo.pixels.astype(int) - smooth).mean() < 3
    assert image_size(path) == (64, 64)
    out = derain(path, net, keep_location=False)
    assert out.suffix == ".heic"
    again = open_photograph(out)
    assert np.abs(again.pixels.astype(int) - derain(photo.pixels, net)).mean() < 3
    assert loaded(again.exif)[MAKE] == "Rainproof"
    assert GPS_TAG not in loaded(again.exif)


# -- how a photograph is stored -----------------------------------------------------------------------------------


class Same(torch.nn.Module):
    """Gives back what it is given: every change of the file is the writer's."""

    def forward(self, x):
        return x


@pytest.mark.parametrize("quality", [30, 75, 97, 100])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_a_jpeg_keeps_its_tables_and_its_chroma(tmp_path, quality, subsampling):
    path = tmp_path / "a.jpg"
    blocks = RNG.integers(0, 256, (12, 12, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)  # hard edges of colour
    Image.fromarray(blocks).save(path, quality=quality, subsampling=subsampling)
    with Image.open(path) as before, Image.open(derain(path, Same())) as after:
        assert after.quantization == before.quantization
        assert get_sampling(after) == subsampling
        change = np.abs(np.asarray(before).astype(int) - np.asarray(after)).mean()
        assert subsampling or change < 2  # a block coded again by the same tables is nearly itself


@pytest.mark.parametrize("extras", [{}, {"icc_profile": PROFILE, "exif": camera().tobytes()}])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("lossless", [False, True])
def test_a_lossless_webp_stays_lossless(tmp_path, lossless, alpha, extras):
    picture = np.dstack([COLOUR, ALPHA]) if alpha else COLOUR
    Image.fromarray(picture).save(tmp_path / "a.webp", lossless=lossless, exact=True, **extras)
    before, after = (open_photograph(path) for path in (tmp_path / "a.webp", derain(tmp_path / "a.webp", Same())))
    shown = before.pixels[before.alpha > 0] if alpha else before.pixels
    found = after.pixels[before.alpha > 0] if alpha else after.pixels
    assert np.array_equal(shown, found) == lossless
    for other in (".jpg", ".png"):
        derain(tmp_path / "a.webp", Same(), output=tmp_path / f"b{other}")


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_jpegs_of_other_kinds_are_written_and_read(tmp_path, mode):
    path = tmp_path / "a.jpg"
    Image.fromarray(COLOUR).convert(mode).save(path, quality=90)
    with Image.open(derain(path, Same())) as after:
        assert after.mode == ("L" if mode == "L" else "RGB")
        if mode == "L":
            with Image.open(path) as before:
                assert after.quantization == before.quantization


def test_chroma_of_a_picture_that_is_turned_is_not_halved_the_other_way(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(COLOUR).save(path, subsampling=1, exif=camera(orientation=6).tobytes())
    with Image.open(derain(path, Same())) as after:
        assert get_sampling(after) == 0


@pytest.mark.parametrize("profile", [None, PROFILE])
@pytest.mark.parametrize("pixels", [COLOUR, COLOUR[..., 0], DEEP])
def test_what_a_png_says_of_its_colours_is_kept(tmp_path, pixels, profile):
    chunks = {b"cHRM": struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)}
    chunks |= {b"gAMA": struct.pack(">I", 100000)} | ({} if profile else {b"sRGB": b"\1"})
    save_photograph(tmp_path / "a.png", Photograph(pixels, profile=profile))
    content = (tmp_path / "a.png").read_bytes()
    more = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks.items()
    )
    (tmp_path / "a.png").write_bytes(content[:33] + more + content[33:])  # behind the header
    derain(tmp_path / "a.png", Same(), output=tmp_path / "b.png")
    derain(tmp_path / "a.png", Same(), output=tmp_path / "c.jpg")
    written = (tmp_path / "b.png").read_bytes()
    for name, data in chunks.items():
        assert written.count(name + data) == 1
        assert written.index(name) < written.index(b"IDAT")
    assert (b"sRGB" in written) == (profile is None)
    with Image.open(tmp_path / "a.png") as before, Image.open(tmp_path / "b.png") as after:
        assert after.info.get("gamma") == before.info.get("gamma") == 1.0
    assert np.array_equal(open_photograph(tmp_path / "b.png").pixels, pixels)


@pytest.mark.parametrize("target", [".jpg", ".png", ".tif", ".bmp"])
@pytest.mark.parametrize("source", [".jpg", ".png", ".tif", ".bmp", "16.png", "16.tif"])
@pytest.mark.parametrize("dpi", [(300, 300), (72, 144)])
def test_resolution_is_kept(tmp_path, source, target, dpi):
    path = tmp_path / f"a{source}"
    if source == "16.tif":
        tifffile.imwrite(path, DEEP, photometric="rgb", resolution=dpi, resolutionunit="INCH")
    elif source == "16.png":
        save_photograph(path, Photograph(DEEP, dpi=dpi))
    else:
        Image.fromarray(COLOUR).save(path, dpi=dpi)
    out = derain(path, Same(), output=tmp_path / f"b{target}")
    with Image.open(path) as before, Image.open(out) as after:
        assert before.info["dpi"] == pytest.approx(dpi, abs=0.1)
        assert after.info["dpi"] == pytest.approx(dpi, abs=0.1)
    assert open_photograph(out).deep == ("16" in source and target in (".png", ".tif"))


def test_resolution_turns_with_the_picture_and_goes_with_a_pil_image(tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "a.jpg", dpi=(100, 200), exif=camera(orientation=6).tobytes())
    with Image.open(derain(tmp_path / "a.jpg", Same())) as after:
        assert after.info["dpi"] == (200, 100)
    with Image.open(tmp_path / "a.jpg") as image:
        assert derain(image, Same()).info["dpi"] == (200, 100)


@pytest.mark.parametrize(
    "dpi", [(0, 0), (-1, 5), (np.nan, 5), (5, np.nan), (1e9, 1e9), 5, "x", (1,), None, ((1, 2), 3)]
)
def test_a_resolution_that_is_none_costs_nothing(tmp_path, dpi):
    image = Image.fromarray(COLOUR)
    image.info["dpi"] = dpi
    photo = from_pil(image)
    assert photo.dpi is None
    save_photograph(tmp_path / "a.jpg", photo)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.heic", "a.HEIF", "a.webp"])
def test_a_heic_is_known_by_its_bytes(tmp_path, monkeypatch, name):
    heif = pytest.importorskip("pillow_heif", reason="HEIC needs the extra: pip install 'manas_lite[heic]'")
    smooth = tiny.picture(0, 64)[:48]
    content = io.BytesIO()
    heif.from_pillow(Image.fromarray(smooth)).save(content, quality=95, exif=camera(orientation=1).tobytes())
    path = tmp_path / name
    path.write_bytes(content.getvalue())
    assert np.abs(read_image(path).astype(int) - smooth).mean() < 3
    assert image_size(path) == (48, 64)
    out = derain(path, Same())
    assert np.abs(open_photograph(out).pixels.astype(int) - smooth).mean() < 6
    assert loaded(open_photograph(path).exif)[MAKE] == "Rainproof"
    assert (out.read_bytes()[4:8] == b"ftyp") == (path.suffix.lower() in (".heic", ".heif"))
    with monkeypatch.context() as patched:
        patched.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 48 // 2 - 1)
        for read in (open_photograph, read_image, image_size):
            with pytest.raises(ImageError, match=r"is larger than Pillow opens \(.*pixels.*make it smaller"):
                read(path)
    path.write_bytes(content.getvalue()[:200])
    with pytest.raises(ImageError, match=path.name):
        open_photograph(path)


def test_a_jpeg_that_is_called_heic_is_read(tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "a.jpg", quality=95)
    path = (tmp_path / "a.jpg").rename(tmp_path / "a.heic")
    assert open_photograph(path).pixels.shape == COLOUR.shape


def test_heic_without_its_library_is_told_with_the_file(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    with pytest.raises(ImageError, match=r"a\.jpg: HEIC pictures need an extra"):
        open_photograph(tmp_path / "a.jpg")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("name", ["x" * 244, "é" * 122, "雨" * 81])
def test_names_as_long_as_a_disk_allows(tmp_path, suffix, name):
    path = tmp_path / f"{name}{suffix}"
    Image.fromarray(COLOUR).save(path)
    out = tmp_path / "out" / path.name
    assert derain(path, Same(), output=out) == out
    beside = derain(path, Same())
    assert beside.parent == tmp_path
    assert "-derained" in beside.name
    assert len(list(tmp_path.iterdir())) == 3


# -- networks that give no picture --------------------------------------------------------------------------------


class Spoiled(torch.nn.Module):
    """Answers with one value that is no number."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x):
        x = x.clone()
        x[..., 0, 0] = self.value
        return x


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("how", [{}, {"strength": 0.5}, {"scale": 0.5}])
@pytest.mark.parametrize("picture", [COLOUR, DEEP, DEEP[..., 0], COLOUR / 255, (COLOUR / 255).astype(np.float32)])
def test_nan_never_becomes_a_picture(tmp_path, value, how, picture):
    with pytest.raises(DivergedNetworkError, match="NaN or infinity"):
        derain(picture, Spoiled(value), **how)
    if picture.dtype != np.uint8 and picture.dtype != np.uint16:
        return
    path = save_photograph(tmp_path / "a.png", Photograph(picture))
    with pytest.raises(DivergedNetworkError):
        derain(path, Spoiled(value), **how)
    assert list(tmp_path.iterdir()) == [path]
