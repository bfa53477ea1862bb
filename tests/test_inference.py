"""derain(): any kind of picture in, the same kind out; load(): what a run left, and nothing else."""

import sys

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from manas_lite.data import Picture, Scene
from manas_lite.networks.genotype import Genotype
from manas_lite.networks.nets import DerainNet
from manas_lite.photos.images import read_image, to_array, to_tensor, write_image
from manas_lite.photos.inference import derain
from manas_lite.photos.zoo import load, save_network
from manas_lite.runs import checkpoint
from manas_lite.training.evaluation import evaluate, table


@pytest.fixture(scope="module")
def net() -> DerainNet:
    """A network that changes its input: the head of an untrained residual one is zero."""
    net = DerainNet(tiny.GENOTYPE).eval()
    torch.nn.init.normal_(net.head.weight, std=0.05, generator=torch.Generator().manual_seed(0))
    return net


def expected(net, array: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return to_array(net(to_tensor(array)[None])[0])


def test_kinds(net, tmp_path):
    array = tiny.picture(0, 20)
    wanted = expected(net, array)
    assert not np.array_equal(wanted, array)
    assert np.array_equal(derain(array, net), wanted)
    picture = derain(Image.fromarray(array), net)
    assert isinstance(picture, Image.Image)
    assert np.array_equal(np.asarray(picture), wanted)
    path = tmp_path / "rainy.png"
    write_image(path, array)
    out = derain(path, net)
    assert out == tmp_path / "rainy-derained.png"
    assert np.array_equal(read_image(out), wanted)
    assert np.array_equal(read_image(path), array)
    text = derain(str(path), net, output=tmp_path / "new" / "out.png")
    assert text == str(tmp_path / "new" / "out.png")


def test_array_types_agree(net):
    array = tiny.picture(1, 20)
    wanted = expected(net, array) / 255
    floating = derain(array.astype(np.float64) / 255, net)
    assert floating.dtype == np.float64
    assert np.abs(floating - wanted).max() <= 0.5 / 255 + 1e-6
    deep = derain((array.astype(np.uint16) * 257), net)
    assert deep.dtype == np.uint16
    assert np.abs(deep / 65535 - wanted).max() <= 0.5 / 255 + 1e-4
    grey = derain(array[..., 0], net)
    assert grey.shape == array.shape[:2]
    assert grey.dtype == np.uint8


def test_pil_images_are_converted_as_files_are(net, tmp_path):
    """16-bit grey, transparency and a turned camera: through memory and through a file the same picture, and of the
    kind that went in."""
    deep = Image.fromarray(np.full((16, 12), 30000, np.uint16))
    clear = Image.fromarray(np.zeros((16, 12, 4), np.uint8), "RGBA")
    turned = Image.fromarray(tiny.picture(2, 16)[:, :12])
    exif = Image.Exif()
    exif[0x0112] = 6
    for i, image in enumerate((deep, clear, turned)):
        path = tmp_path / f"{i}.png"
        image.save(path, **({"exif": exif} if image is turned else {}))
        with Image.open(path) as opened:
            opened.load()
            in_memory = derain(opened, net)
        with Image.open(derain(path, net)) as through_file:
            assert np.array_equal(np.asarray(in_memory), np.asarray(through_file)), i
        assert in_memory.mode == ("I;16", "RGBA", "RGB")[i]


def test_a_folder_as_output_takes_the_picture(net, tmp_path):
    write_image(tmp_path / "rainy.png", tiny.picture(0))
    (tmp_path / "out").mkdir()
    assert derain(tmp_path / "rainy.png", net, output=tmp_path / "out") == tmp_path / "out" / "rainy.png"
    with pytest.raises(ValueError, match="ending"):
        derain(tmp_path / "rainy.png", net, output=tmp_path / "out.txt")


@pytest.mark.parametrize(("name", "output"), [("street.tga", None), ("street.png", "street.heic")])
def test_an_ending_that_cannot_be_written_is_refused_before_the_work(net, tmp_path, monkeypatch, name, output):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    Image.fromarray(tiny.picture(0)).save(tmp_path / name, format="PNG")
    monkeypatch.setattr(DerainNet, "forward", lambda *_: pytest.fail("derained, and then?"))
    with pytest.raises(ValueError, match=r"unknown image ending '\.tga'|manas_lite\[heic\]"):
        derain(tmp_path / name, net, output=None if output is None else tmp_path / output)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_callers_network_is_left_alone(tmp_path):
    net = DerainNet(tiny.GENOTYPE)
    strides = [p.stride() for p in net.parameters()]
    split = tiny.tiny_split(tmp_path)
    evaluate(net, split)
    evaluate(net, split.test, window=16)
    derain(tiny.picture(0), net)
    assert [p.stride() for p in net.parameters()] == strides
    assert net.training
    assert all(block.window is None for cell in net.cells for block in cell.attention)


def test_a_picture_too_small_to_score_is_named(tmp_path):
    write_image(tmp_path / "small.png", tiny.picture(0, 8))
    clean = Picture(tmp_path / "small.png")
    with pytest.raises(ValueError, match="'tiny one' is 8x8"):
        evaluate(DerainNet(tiny.GENOTYPE), [Scene("tiny one", clean, (clean,), ("rainy",))])


def test_an_existing_file_is_kept(net, tmp_path):
    path = tmp_path / "rainy.png"
    write_image(path, tiny.picture(0))
    derain(path, net)
    with pytest.raises(FileExistsError, match="--overwrite"):
        derain(path, net)
    derain(path, net, overwrite=True)


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 50, 3), (50, 2, 3)])
def test_any_size(net, shape):
    assert derain(np.zeros(shape, np.uint8), net).shape == shape


@pytest.mark.parametrize(
    ("picture", "error", "message"),
    [
        (np.zeros((4, 4, 4), np.uint8), ValueError, "expected an array"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, "empty"),
        (np.full((4, 4, 3), 200.0), ValueError, r"\[0, 1\]"),
        (np.full((4, 4, 3), np.nan), ValueError, "NaN"),
        (np.zeros((4, 4, 3), np.int64), TypeError, "uint8"),
        (42, TypeError, "expected a path"),
    ],
)
def test_bad_pictures(net, picture, error, message):
    with pytest.raises(error, match=message):
        derain(picture, net)


def test_training_mode_is_left_as_it_was(net):
    trained = DerainNet(tiny.GENOTYPE).train()
    derain(tiny.picture(0), trained)
    assert trained.training


def test_erratum_15_outputs_are_clamped_before_scoring(tmp_path):
    """A network that overshoots is scored on what a picture can hold, as scikit-image scores it."""
    split = tiny.tiny_split(tmp_path)
    net = DerainNet(tiny.GENOTYPE).eval()
    torch.nn.init.normal_(net.head.weight, std=3.0, generator=torch.Generator().manual_seed(0))
    rainy, clean = split.test[0].read()
    with torch.no_grad():
        raw = net(to_tensor(rainy[0])[None])[0]
    assert raw.min() < 0
    assert raw.max() > 1
    clamped = raw.clamp(0, 1).permute(1, 2, 0).numpy().astype(np.float64)
    wanted = peak_signal_noise_ratio(clean / 255.0, clamped, data_range=1)
    row = evaluate(net, split.test[:1]).rows[0]
    assert row["psnr_rgb"] == pytest.approx(wanted, abs=1e-4)


def test_evaluation_means_are_per_picture(tmp_path):
    split = tiny.tiny_split(tmp_path)
    result = evaluate(DerainNet(tiny.GENOTYPE), split.test)  # the identity
    assert [r["label"] for r in result.rows] == ["light", "heavy"] * 2
    assert result.gain == pytest.approx(0, abs=1e-6)
    light = [r["psnr_y"] for r in result.rows if r["label"] == "light"]
    assert result.means("light")["psnr_y"] == pytest.approx(sum(light) / 2)
    assert result.means("light")["psnr_y"] == pytest.approx(result.means("light")["rainy_psnr_y"])
    with pytest.raises(ValueError, match="light, heavy"):
        result.means("drizzle")
    text = table({"identity": result})
    assert text.count("rainy input") == text.count("identity") == 3
    with pytest.raises(ValueError, match="empty"):
        evaluate(DerainNet(tiny.GENOTYPE), [])


def test_a_picture_equal_to_its_clean_one_is_not_in_the_means(tmp_path):
    split = tiny.tiny_split(tmp_path)
    identity = DerainNet(tiny.GENOTYPE)
    scene = split.test[0]
    dry = Scene("dry", scene.clean, (scene.clean,), ("light",))
    wanted, found = (evaluate(identity, scenes) for scenes in (split.test, [*split.test, dry]))
    assert (wanted.identical, found.identical) == (0, 1)
    assert found.means() == wanted.means()
    assert found.means("light") == wanted.means("light")
    assert found.gain == wanted.gain
    assert str(found).splitlines()[:-1] == [*str(wanted).splitlines(), ""]
    assert str(found).splitlines()[-1] == "derained: 1 picture(s) equal to the clean one, not in the means"
    assert evaluate(identity, [dry]).means()["psnr_rgb"] == float("inf")


def test_the_table_shows_what_was_measured(tmp_path):
    split = tiny.tiny_split(tmp_path)
    net = DerainNet(tiny.GENOTYPE)
    full = evaluate(net, split.test)
    luma = evaluate(net, split.test, conventions=("y",), measures=["psnr"])
    assert [line for line in str(full).splitlines() if "PSNR" in line] == [
        "rain      picture                    PSNR rgb   PSNR y  SSIM rgb    SSIM y"
    ]
    head, _, first = str(luma).splitlines()[:3]
    assert head == "rain      picture                      PSNR y"
    assert first == f"light     rainy input               {luma.means('light')['rainy_psnr_y']:>9.2f}"
    both = table({"full": full, "luma": luma})
    assert both.splitlines()[0] == head
    with pytest.raises(ValueError, match="measured were psnr_y"):
        _ = luma.gain


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"measures": ("pnsr",)}, r"measures is \('pnsr',\): .*psnr, ssim"),
        ({"measures": "psnr"}, r"measures is 'psnr': give a list"),
        ({"measures": ()}, r"measures is \(\): .*psnr, ssim"),
        ({"conventions": ("rgb", "ycbcr")}, "conventions is .*rgb, y"),
        ({"window": 0}, "window is 0"),
    ],
)
def test_what_cannot_be_measured_is_refused(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        evaluate(DerainNet(tiny.GENOTYPE), tiny.tiny_split(tmp_path), **options)


def test_a_window_is_for_this_kits_networks(tmp_path):
    split, net = tiny.tiny_split(tmp_path), DerainNet(tiny.GENOTYPE)
    for other in (torch.nn.Sequential(net), torch.nn.Identity()):
        with pytest.raises(ValueError, match=rf"this is a {type(other).__name__}: .*pool_locally\(16\)"):
            evaluate(other, split.test, window=16)


class TestLoad:
    def test_round_trip(self, net, tmp_path):
        save_network(tmp_path, net)
        again = load(tmp_path)
        assert not again.training
        assert again.genotype == net.genotype
        x = torch.rand(1, 3, 9, 9)
        assert torch.allclose(again(x), net(x), atol=1e-6)
        assert torch.allclose(load(tmp_path / "weights.safetensors")(x), net(x), atol=1e-6)

    def test_another_genotype_beside_it(self, net, tmp_path):
        save_network(tmp_path, net)
        (tmp_path / "genotype.json").write_text(Genotype.all_parallel(tiny.SPACE).to_json())
        with pytest.raises(ValueError, match="another genotype"):
            load(tmp_path)

    def test_nothing_there(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="make demo"):
            load(tmp_path / "nowhere")
        with pytest.raises(FileNotFoundError, match="weights"):
            load(tmp_path)

    def test_a_pickle_and_a_truncated_file(self, net, tmp_path):
        torch.save(net.state_dict(), tmp_path / "model.pt")
        with pytest.raises(ValueError, match="pickle"):
            load(tmp_path / "model.pt")
        save_network(tmp_path, net)
        file = tmp_path / "weights.safetensors"
        file.write_bytes(file.read_bytes()[:-100])
        with pytest.raises(ValueError, match="truncated"):
            load(tmp_path)

    def test_something_else_of_ours(self, tmp_path):
        checkpoint.write(tmp_path / "weights.safetensors", {"net": {}}, {"kind": "supernet"})
        with pytest.raises(ValueError, match="supernet"):
            load(tmp_path)
