"""Derived networks as ONNX: the same pictures in another runtime, at every size."""

from dataclasses import replace

import numpy as np
import pytest
import textbook
import torch
from torch import Tensor

from manas_lite.__main__ import main
from manas_lite.compute.runtime import ComputeSettings
from manas_lite.networks.backbone import pad_to_multiple
from manas_lite.networks.genotype import Genotype
from manas_lite.networks.nets import DerainNet, SuperNet
from manas_lite.networks.space import SearchSpace
from manas_lite.photos import inference, onnx_export
from manas_lite.photos.images import write_image
from manas_lite.photos.inference import derain
from manas_lite.photos.onnx_export import AnySize, ExportError, export_onnx, padded_positions
from manas_lite.photos.zoo import save_network

SPACE = SearchSpace((8, 12), 2, groups=2, residual=True)  # batch normalisation and the published stem
NAMES = ("sep_conv_3x3", "dil_conv_3x3", "sep_conv_3x3_spatial", "dil_conv_3x3_spatial", "SE", "SE_A_M", "CBAM")
SIZES = [(1, 1), (2, 9), (3, 100), (16, 16), (41, 53), (123, 77)]


def network(space: SearchSpace = SPACE) -> DerainNet:
    """Every operation is in it, and what it takes away from a picture is far from nothing."""
    count = len(space.edge_branch)
    edges = tuple((NAMES * count)[:count])
    modules = tuple(("parallel", "fusion") * len(space.module_branches))[: len(space.module_branches)]
    net = DerainNet(Genotype(space, modules, edges))
    textbook.randomise(net)
    return net.eval()


def images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("multiple", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("length", [1, 2, 3, 5, 8, 9, 15, 16, 17, 33])
def test_padding_by_positions_is_the_networks(length, multiple):
    x = images(1, 3, length, 7)
    (side,) = (torch.arange(7),)
    expected = pad_to_multiple(x, multiple)[..., :7]
    positions = padded_positions(length, multiple, x.device)
    assert torch.equal(x.index_select(2, positions)[..., side], expected)


@pytest.mark.parametrize("size", SIZES)
def test_any_size_is_the_network_clamped(size):
    net, x = network(), images(2, 3, *size)
    with torch.inference_mode():
        torch.testing.assert_close(AnySize(net)(x), net(x).clamp(0, 1))


@pytest.fixture
def runtime():
    for name in ("onnx", "onnxscript"):
        pytest.importorskip(name, reason="the onnx extra is not installed: pip install 'manas_lite[onnx]'")
    return pytest.importorskip("onnxruntime")


@pytest.mark.slow
def test_the_file_computes_what_the_network_does(runtime, tmp_path, capsys):
    """From a run directory, by the command line; at sizes and batches that the export never saw."""
    import onnx

    net, file = network(), tmp_path / "out" / "net.onnx"
    save_network(tmp_path, net)
    assert main(["export", str(tmp_path), "--onnx", str(file)]) == 0
    assert str(file) in capsys.readouterr().out
    onnx.checker.check_model(str(file), full_check=True)
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == ["rainy"]
    assert [o.name for o in session.get_outputs()] == ["derained"]
    assert session.get_modelmeta().custom_metadata_map["genotype_id"] == net.genotype.id
    for batch, size in zip((1, 1, 2, 3, 1, 1), SIZES, strict=True):
        x = images(batch, 3, *size)
        with torch.inference_mode():
            expected = net(x).clamp(0, 1).numpy()
        (found,) = session.run(None, {"rainy": x.numpy()})
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() < 1e-4, size
        assert np.abs(expected - x.numpy()).max() > 0.01  # else any file that copies its input would pass
    assert main(["export", str(tmp_path), "--onnx", str(file)]) == 2
    assert "overwrite" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("runtime")
def test_the_cheap_stem_without_normalisation(tmp_path):
    """The networks of the scaled presets; a file is compared with its network before it is written."""
    net = network(SearchSpace((4, 8), 1, stem="unshuffle", norm="none", residual=True))
    assert export_onnx(net, tmp_path / "net.onnx").stat().st_size > 10_000


def test_a_file_that_differs_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "_translate", lambda net, facts: b"")
    for gap in (1e-3, float("nan"), float("inf")):
        monkeypatch.setattr(onnx_export, "_gap", lambda data, net, gap=gap: gap)
        with pytest.raises(ExportError, match="differs from the network's by"):
            export_onnx(network(), tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"onnx and onnxscript: pip install 'manas_lite\[onnx\]'"):
        export_onnx(network(), tmp_path / "net.onnx")


def test_bad_targets_are_refused(tmp_path):
    (tmp_path / "there.onnx").write_bytes(b"x")
    with pytest.raises(FileExistsError, match=r"there\.onnx exists"):
        export_onnx(network(), tmp_path / "there.onnx")
    with pytest.raises(ValueError, match=r"ends in \.onnx"):
        export_onnx(network(), tmp_path / "net.pt")


# --- ONNX Runtime as what derains ---

ONNX = ComputeSettings(device="cpu", threads=1, engine="onnx")


@pytest.mark.slow
def test_the_engine_derains_what_torch_derains(runtime, tmp_path, monkeypatch):
    """At every size, in tiles and by windows; one export serves all later processes, one session all later pictures."""
    monkeypatch.setenv("MANAS_LITE_CACHE", str(tmp_path))
    exports, sessions = [], []
    export, session = onnx_export.export_onnx, runtime.InferenceSession
    monkeypatch.setattr(onnx_export, "export_onnx", lambda net, file: exports.append(file) or export(net, file))
    monkeypatch.setattr(runtime, "InferenceSession", lambda *a, **k: sessions.append(a) or session(*a, **k))
    net, torch_alone = network(), replace(ONNX, engine="torch")
    for i, (height, width) in enumerate(SIZES):
        picture = images(height, width, 3).numpy()
        found, wanted = (derain(picture, net, compute=compute) for compute in (ONNX, torch_alone))
        assert np.abs(found - wanted).max() < 1e-4
        assert np.abs(found - picture).max() > 0.01
        derain(picture, net, compute=ONNX)
        assert len(exports) == 1
        if i == 0:
            first = len(sessions)
    large = images(600, 500, 3).numpy()
    found, wanted = (derain(large, net, compute=replace(c, picture_gib=1e-3)) for c in (ONNX, torch_alone))
    assert np.abs(found - wanted).max() < 1e-4
    inference._BORROWED.clear()  # as in another process
    before = len(sessions)
    assert np.abs(derain(picture, net, compute=ONNX) - derain(picture, net, compute=torch_alone)).max() < 1e-4
    assert len(exports) == 1
    assert len(sessions) > before >= first
    (file,) = (tmp_path / "onnx").iterdir()
    file.write_bytes(b"no model")
    inference._BORROWED.clear()
    with pytest.raises(ExportError, match=r"onnxruntime cannot use it.*delete it") as error:
        derain(picture, net, compute=ONNX)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


def test_the_engine_takes_derived_networks_on_the_cpu_in_float32(monkeypatch):
    picture = images(16, 16, 3).numpy()
    with pytest.raises(ValueError, match="engine='onnx' takes a DerainNet, this is a SuperNet"):
        derain(picture, SuperNet(SPACE), compute=ONNX)
    with pytest.raises(ValueError, match="engine='onnx' computes on the CPU in float32"):
        derain(picture, network(), compute=replace(ONNX, precision="bf16"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"onnxruntime: pip install 'manas_lite\[onnx\]'"):
        derain(picture, network(), compute=ONNX)


def test_the_command_line_names_engine_and_precision(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr("manas_lite.commands.derain", lambda *a, **options: given.append(options["compute"]))
    picture = tmp_path / "rainy.png"
    write_image(picture, np.zeros((16, 16, 3), np.uint8))
    arguments = ["derain", str(picture), str(tmp_path / "out.png"), "--device", "cpu", "--weights", "rain-lite"]
    for more in ([], ["--engine", "onnx"], ["--precision", "bf16"]):
        assert main([*arguments, *more]) == 0
    assert [(c.engine, c.precision) for c in given] == [("torch", "auto"), ("onnx", "auto"), ("torch", "bf16")]
