"""Checkpoints: exact round trips, atomic writes, and what is said of files that are none."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from manas_lite.runs import checkpoint
from manas_lite.runs.checkpoint import CheckpointError

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]


@st.composite
def tensors(draw):
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    values = torch.randn(shape, generator=generator) * 100
    return (values > 0) if dtype == torch.bool else values.to(dtype)


KEYS = st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1, max_size=8)
TREES = st.recursive(tensors(), lambda inner: st.dictionaries(KEYS, inner, max_size=3), max_leaves=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num())
    if isinstance(a, dict):
        return isinstance(b, dict) and set(a) == set(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=st.dictionaries(KEYS, TREES, max_size=4), meta=st.dictionaries(st.text(), JSON, max_size=3))
def test_what_is_saved_is_loaded(tmp_path, tree, meta):
    path = tmp_path / "a.safetensors"
    checkpoint.write(path, tree, meta)
    loaded, loaded_meta = checkpoint.read(path)
    assert same(tree, loaded)
    assert same(meta, loaded_meta)


def test_views_shared_and_strided_tensors_are_kept_whole(tmp_path):
    base = torch.arange(12.0).reshape(3, 4).requires_grad_()
    tree = {
        "base": base,
        "same": base,
        "row": base[1],
        "turned": base.T,
        "infinite": torch.tensor([torch.inf]),
    }
    checkpoint.write(tmp_path / "a", tree, {})
    loaded, _ = checkpoint.read(tmp_path / "a")
    for name, tensor in tree.items():
        assert torch.equal(loaded[name], tensor)
    loaded["base"].add_(1)  # loaded tensors are ordinary, writable ones of their own
    assert torch.equal(loaded["same"], base)


def test_any_length_of_header_is_read(tmp_path):
    """The file starts with that length: at 0x0480 and 0x0580 with the bytes of a pickle."""
    for padding in range(0, 1600, 8):
        checkpoint.write(tmp_path / "a", {}, {"text": "x" * padding})
        assert checkpoint.read(tmp_path / "a")[1] == {"text": "x" * padding}


def test_equal_content_gives_equal_bytes(tmp_path):
    for name in ("a", "b"):
        checkpoint.write(tmp_path / name, {"x": torch.ones(3), "y": torch.zeros(2)}, {"step": 3})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_infinities_in_meta_survive(tmp_path):
    checkpoint.write(tmp_path / "a", {}, {"best": -torch.inf})
    assert checkpoint.read(tmp_path / "a")[1] == {"best": -torch.inf}


def test_the_file_is_plain_safetensors(tmp_path):
    checkpoint.write(tmp_path / "a", {"net": {"w": torch.ones(2)}}, {})
    assert torch.equal(safetensors.torch.load_file(tmp_path / "a")["net/w"], torch.ones(2))


def test_what_cannot_be_kept_is_refused_before_anything_is_written(tmp_path):
    path = tmp_path / "a"
    with pytest.raises(ValueError, match="tensor name 'a/b' under '': expected text without '/'"):
        checkpoint.write(path, {"a/b": torch.ones(1)}, {})
    with pytest.raises(TypeError, match=r"net/w is float: expected a tensor"):
        checkpoint.write(path, {"net": {"w": 1.0}}, {})
    with pytest.raises(TypeError, match="not JSON serializable"):
        checkpoint.write(path, {}, {"when": object()})
    assert list(tmp_path.iterdir()) == []


# --- files that are no checkpoint ---


@pytest.fixture
def saved(tmp_path) -> Path:
    path = tmp_path / "checkpoint.safetensors"
    checkpoint.write(path, {"w": torch.ones(1000)}, {"step": 7}, identity="genotype-a")
    return path


@pytest.mark.parametrize("share", [0.999, 0.5, 0.03, 0.001])
def test_a_truncated_file_is_named(saved, share):
    saved.write_bytes(saved.read_bytes()[: int(share * saved.stat().st_size)])
    with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors is truncated or damaged .* start again"):
        checkpoint.read(saved)


def test_an_empty_and_a_missing_file_are_named(saved):
    saved.write_bytes(b"")
    with pytest.raises(CheckpointError, match="is empty"):
        checkpoint.read(saved)
    saved.unlink()
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        checkpoint.read(saved)


class Bomb:
    def __reduce__(self):
        return os.mkdir, (self.where,)

    def __init__(self, where: str) -> None:
        self.where = where


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_is_refused_unopened(saved, tmp_path, protocol):
    trap = tmp_path / "exploded"
    saved.write_bytes(pickle.dumps(Bomb(str(trap)), protocol=protocol))
    with pytest.raises(CheckpointError, match=r"is a pickle .* not opened"):
        checkpoint.read(saved)
    assert not trap.exists()


def test_a_torch_file_and_a_web_page_are_refused(saved):
    torch.save({"w": torch.ones(3)}, saved)
    with pytest.raises(CheckpointError, match=r"is a pickle \(\.pt, \.pth\)"):
        checkpoint.read(saved)
    saved.write_text("\n<!DOCTYPE html><html>Quota exceeded</html>")
    with pytest.raises(CheckpointError, match="is a web page, not a checkpoint: the download failed"):
        checkpoint.read(saved)


def test_foreign_safetensors_and_later_formats_are_refused(saved):
    safetensors.torch.save_file({"w": torch.ones(3)}, saved)
    with pytest.raises(CheckpointError, match="not written by manas_lite"):
        checkpoint.read(saved)
    later = json.dumps({"format": 99})
    safetensors.torch.save_file({"w": torch.ones(3)}, saved, metadata={"manas_lite": later})
    with pytest.raises(CheckpointError, match="has format 99, this version reads up to 1: update"):
        checkpoint.read(saved)


def test_a_checkpoint_of_another_genotype_is_refused(saved):
    assert checkpoint.read(saved, identity="genotype-a")[1] == {"step": 7}
    assert checkpoint.read(saved)[1] == {"step": 7}
    with pytest.raises(CheckpointError, match="belongs to genotype-a, expected genotype-b"):
        checkpoint.read(saved, identity="genotype-b")
    checkpoint.write(saved, {}, {})
    with pytest.raises(CheckpointError, match="belongs to nothing named, expected genotype-b"):
        checkpoint.read(saved, identity="genotype-b")


# --- atomic writes ---


@pytest.mark.skipif(os.name != "posix", reason="needs RLIMIT_FSIZE")
def test_a_full_disk_keeps_the_last_good_file(saved):
    before = saved.read_bytes()
    script = f"""
import resource, torch
from manas_lite.runs import checkpoint
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    checkpoint.write({str(saved)!r}, {{"w": torch.ones(100_000)}}, {{"step": 8}})
except OSError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "could not write 400," in done.stdout
    assert "the file from before is kept" in done.stdout
    assert saved.read_bytes() == before
    assert checkpoint.read(saved)[1] == {"step": 7}
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]  # no half-written file stays


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_failure_at_any_moment_keeps_the_last_good_file(saved, monkeypatch, broken):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(OSError, match=r"No space left on device\); the file from before is kept"):
        checkpoint.write(saved, {"w": torch.zeros(1000)}, {"step": 8})
    monkeypatch.undo()
    assert checkpoint.read(saved)[1] == {"step": 7}
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_contents_are_synced_before_the_rename_and_the_folder_after(saved, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(number):
        calls.append("folder" if os.path.isdir(f"/proc/self/fd/{number}") else "file")
        fsync(number)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("rename"), replace(a, b)))
    checkpoint.write_atomic(saved, b"x")
    assert calls == ["file", "rename", "folder"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(OSError, match=r"No such file or directory\); nothing was written"):
        checkpoint.write(tmp_path / "absent" / "a", {}, {})


# --- states ---

OPTIMISERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.5, 0.999), amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW([{"params": p[:1], "lr": 0.3}, {"params": p[1:]}], lr=0.1),
    "tensor rate": lambda p: torch.optim.Adam(p, lr=torch.tensor(0.1)),
}


def make(kind: str, seed: int = 0, dtype: torch.dtype = torch.float32):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1)).to(dtype)
    return net, OPTIMISERS[kind](list(net.parameters()))


def train(net, optimizer, start: int, end: int, dtype: torch.dtype = torch.float32) -> None:
    for step in range(start, end):
        x = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(step)).to(dtype)
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.param_groups[0]["lr"] = 0.1 / (1 + step)
        optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("age", [0, 3])
@pytest.mark.parametrize("kind", OPTIMISERS)
def test_a_resumed_training_is_the_uninterrupted_one(tmp_path, kind, age, dtype):
    net, optimizer = make(kind, dtype=dtype)
    train(net, optimizer, 0, age, dtype)
    parts = {"net": net, "optimizer": optimizer}
    dumped = {name: checkpoint.dump(part) for name, part in parts.items()}
    checkpoint.write(tmp_path / "a", {n: d[0] for n, d in dumped.items()}, {n: d[1] for n, d in dumped.items()})
    expected_state = optimizer.state_dict()["param_groups"]

    new_net, new_optimizer = make(kind, seed=1, dtype=dtype)
    tensors, meta = checkpoint.read(tmp_path / "a")
    for name, part in {"net": new_net, "optimizer": new_optimizer}.items():
        checkpoint.restore(part, tensors.get(name, {}), meta[name])
    assert same(new_optimizer.state_dict()["param_groups"], expected_state)  # betas a tuple, rates as they were
    train(net, optimizer, age, 6, dtype)
    train(new_net, new_optimizer, age, 6, dtype)
    assert same(dict(net.state_dict()), dict(new_net.state_dict()))
    assert same(optimizer.state_dict(), new_optimizer.state_dict())


def test_a_gradient_scaler_is_restored():
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.load_state_dict({**scaler.state_dict(), "_growth_tracker": 5})
    other = torch.amp.GradScaler("cpu")
    checkpoint.restore(other, *checkpoint.dump(scaler))
    assert other.state_dict() == scaler.state_dict()
    disabled = torch.amp.GradScaler("cpu", enabled=False)
    checkpoint.restore(disabled, *checkpoint.dump(disabled))


def test_states_that_do_not_fit_are_named():
    net, optimizer = make("adam")
    train(net, optimizer, 0, 1)
    dumped = checkpoint.dump(optimizer)
    with pytest.raises(CheckpointError, match="holds the state of Adam, not of SGD"):
        checkpoint.restore(make("sgd")[1], *dumped)
    backwards = torch.optim.Adam(list(net.parameters())[::-1])
    with pytest.raises(CheckpointError, match="other parameters, or the same in another order"):
        checkpoint.restore(backwards, *dumped)
    with pytest.raises(CheckpointError, match=r"does not fit this Sequential: (?s:.*)size mismatch"):
        checkpoint.restore(nn.Sequential(nn.Conv2d(3, 8, 3)), *checkpoint.dump(nn.Sequential(nn.Conv2d(3, 4, 3))))
    odd = nn.Linear(1, 1)
    odd.state_dict = lambda: {"odd": Path("x")}  # type: ignore[method-assign]
    with pytest.raises(TypeError, match=r"state odd is .*Path: expected a tensor"):
        checkpoint.dump(odd)
