"""Documents that lie: whatever is wrong in a file is one line that names it, and nothing hangs or is built for it."""

import json
import os
import tracemalloc
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace

import mutations
import pytest
import safetensors.torch
import tiny
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manas_lite.compute.footprint import StepFootprint
from manas_lite.compute.runtime import Compute
from manas_lite.networks.genotype import Genotype
from manas_lite.networks.nets import DerainNet
from manas_lite.networks.space import PRESETS, SearchSpace
from manas_lite.photos import zoo
from manas_lite.runs import checkpoint, documents, record
from manas_lite.runs.checkpoint import CheckpointError
from manas_lite.runs.documents import read_json
from manas_lite.runs.record import RunDirectory, read_log, read_manifest
from manas_lite.training.loop import Loop
from manas_lite.training.retraining import Memory

CASES = Path(__file__).parents[2] / "shared" / "cases" / "files"
RECORD = {"settings": {"epochs": 2}, "split": "abc"}


def assert_one_line(error: Exception, path: Path) -> None:
    text = str(error)
    assert path.name in text or path.parent.name in text
    assert "\n" not in text
    assert len(text) < 1500


def tried(read, path: Path):
    """What a reader returns, or the error that it must raise for a wrong file."""
    try:
        return read(path)
    except (ValueError, OSError) as error:
        assert_one_line(error, path)
        return error


# --- the files, whole, and who reads them ---


def trained() -> tuple[DerainNet, torch.optim.Optimizer]:
    net = DerainNet(tiny.GENOTYPE, seed=0)
    return net, torch.optim.Adam(net.parameters(), 1e-3)


def step(net: DerainNet, optimizer: torch.optim.Optimizer) -> None:
    net(torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))).square().mean().backward()
    optimizer.step()


def write_checkpoint(path: Path, **changes: object) -> None:
    net, optimizer = trained()
    step(net, optimizer)
    tensors, state = {}, {}
    for name, holder in {"net": net, "optimizer": optimizer}.items():
        tensors[name], state[name] = checkpoint.dump(holder)
    meta = {"step": 2, "memory": {"best_psnr": 20.5, "best_epoch": 0}, "state": state, **changes}
    checkpoint.write(path, tensors, meta, identity=tiny.GENOTYPE.id)


COMPUTE = Compute(tiny.COMPUTE)


def resume(path: Path) -> int:
    """Take a checkpoint over as a run of 20 steps does, and go on: one step more."""
    run = SimpleNamespace(path=path.parent, manifest={}, truncate_log=lambda step, ended: None, saved_step=0)
    footprint = StepFootprint(tiny.SPACE, 1, 16, 1, tiny.GENOTYPE)
    training = SimpleNamespace(total=20, compute=COMPUTE, footprint=footprint, kind="t", show=False)
    net, optimizer = trained()
    state = {"net": net, "optimizer": optimizer}
    loop = Loop(run, training, state=state, saved=Memory(), identity=tiny.GENOTYPE.id)
    step(net, optimizer)
    return loop.start


def open_run(path: Path) -> None:
    with RunDirectory(path.parent, RECORD, kind="k") as run:
        run.note(x=1)


def read_whole_log(path: Path) -> list:
    for entry in (found := read_log(path.parent)):
        assert type(entry["step"]) is int
    return found


@pytest.fixture
def quick(monkeypatch):
    """No git, no sync: a run directory is opened a thousand times here."""
    monkeypatch.setattr(record, "describe_environment", lambda: {"threads": 1})
    monkeypatch.setattr(os, "fsync", lambda number: None)


def manifest(folder: Path) -> dict:
    with RunDirectory(folder, RECORD, kind="k"):
        pass
    return read_json(folder / "manifest.json")


LOG = [{"kind": "step", "step": i, "loss": 0.5, "alpha": [[0.5, 0.5]]} for i in range(3)]
KINDS = ("genotype", "weights", "manifest", "log", "checkpoint", "card")


def maker(kind: str, folder: Path):
    """Return (the file's path, a function from a random state to wrong bytes, the reader)."""
    if kind == "genotype":
        document = json.loads(Genotype.hand_made(SearchSpace.preset("smoke")).to_json())
        return folder / "genotype.json", lambda r: mutations.mutated_text(document, r), Genotype.load
    if kind == "manifest":
        document = manifest(folder)
        return folder / "manifest.json", lambda r: mutations.mutated_text(document, r), open_run
    if kind == "log":

        def lines(r: Random) -> bytes:
            texts = [json.dumps(line).encode() for line in LOG]
            texts[r.randrange(3)] = mutations.mutated_text(LOG[0], r)
            return b"\n".join(texts) + b"\n"

        return folder / "log.jsonl", lines, read_whole_log
    if kind == "card":
        return (
            folder / "card.json",
            lambda r: mutations.mutated_text({"sha256": "0" * 64, "name": "x", "scores": {"a": [1.5]}}, r),
            lambda path: documents.document(zoo._Card, read_json(path), path, more=True),
        )
    path = folder / f"{kind}.safetensors"
    if kind == "weights":
        zoo.save_tensors(path, trained()[0].state_dict(), kind="network", genotype=tiny.GENOTYPE)
    else:
        write_checkpoint(path := folder / "checkpoint.safetensors")
    data = path.read_bytes()
    return path, lambda r: mutations.mutated_tensors(data, r), zoo.load if kind == "weights" else resume


def try_mutants(kind: str, folder: Path, count: int) -> None:
    path, wrong, read = maker(kind, folder)
    refused = []

    @settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, 2**64))
    def one(seed: int) -> None:
        path.write_bytes(wrong(Random(seed)))
        refused.append(isinstance(tried(read, path), Exception))

    one()
    assert sum(refused) > len(refused) / 4  # else they were hardly wrong


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_documents_are_told_in_one_line(kind, tmp_path, quick):
    try_mutants(kind, tmp_path, 60)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_wrong_documents_are_told_in_one_line(kind, tmp_path, quick):
    try_mutants(kind, tmp_path, 1700)


@pytest.mark.parametrize("kind", KINDS)
def test_the_right_documents_are_read(kind, tmp_path, quick):
    path, _, read = maker(kind, tmp_path)
    if kind == "genotype":
        path.write_text(tiny.GENOTYPE.to_json())
    elif kind == "log":
        path.write_text("".join(json.dumps(line) + "\n" for line in LOG))
    elif kind == "card":
        path.write_text('{"sha256": "abc", "more": 1}')
    read(path)


READERS = {
    "genotype": ("genotype.json", Genotype.load),
    "manifest": ("manifest.json", open_run),
    "log": ("log.jsonl", lambda path: read_log(path.parent)),
    "weights": ("weights.safetensors", zoo.load),
    "checkpoint": ("checkpoint.safetensors", lambda path: checkpoint.read(path) and resume(path)),
}


@pytest.mark.parametrize("case", sorted(p.name for p in CASES.glob("*") if p.name.split("-")[0] in READERS))
def test_the_cases_that_were_found(case, tmp_path, quick):
    name, read = READERS[case.split("-")[0]]
    (tmp_path / name).write_bytes((CASES / case).read_bytes())
    with pytest.raises((ValueError, OSError)) as found:
        read(tmp_path / name)
    assert_one_line(found.value, tmp_path / name)


# --- what the one reader promises ---


@pytest.mark.parametrize("levels", [65, 500, 990, 3000, 100_000])
@pytest.mark.parametrize(("opened", "closed"), ["[]", ('{"a":', "}"), ('[{"a":', "}]")])
def test_deep_nesting_is_refused_at_any_depth_of_the_stack(levels, opened, closed, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(mutations.deep(levels, "1", opened, closed))
    with pytest.raises(
        ValueError, match=r"a\.json is no JSON that can be read: it is nested (too deep|deeper than 64)"
    ):
        read_json(path)


def test_what_is_not_too_deep_is_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(mutations.deep(64, ""))
    assert read_json(path) == json.loads(mutations.deep(64, ""))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_or_a_device_is_refused_unopened(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    for name in ("pipe.json", "zero.json"):
        with pytest.raises(ValueError, match=f"{name} is no regular file"):
            read_json(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "most", "read"),
    [
        ("genotype.json", documents.LARGEST_JSON, Genotype.load),
        ("card.json", documents.LARGEST_JSON, lambda path: zoo._check_card(path.parent, None, "")),
        ("manifest.json", record.LARGEST_MANIFEST, lambda path: read_manifest(path.parent)),
        ("log.jsonl", record.LARGEST_LOG, lambda path: read_log(path.parent)),
        ("data.json", documents.LARGEST_LIST, read_json),
        ("weights.safetensors", checkpoint.LARGEST, checkpoint.read),
    ],
)
def test_a_file_larger_than_any_of_its_kind_is_not_read(name, most, read, tmp_path, monkeypatch):
    path = tmp_path / name
    (tmp_path / "weights.safetensors").write_bytes(b"x")
    with open(path, "wb") as file:
        file.truncate(most + 1)  # sparse: it takes no room
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail("it was read"))
    with pytest.raises(ValueError, match=rf"{name} has {most + 1:,} bytes, and at most {most:,} are read") as found:
        read(path)
    assert_one_line(found.value, path)


def test_what_is_read_takes_a_fitting_share_of_the_memory():
    """A list of empty lists takes most for its length."""
    tracemalloc.start()
    documents.decode("[" + "[]," * (documents.LARGEST_JSON // 3 - 2) + "1]", "x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 400 << 20


def test_a_line_of_a_log_and_a_files_description_have_limits_too(tmp_path):
    long = "[" + "[]," * 1_500_000 + "1]"
    (tmp_path / "log.jsonl").write_text('{"step": 0}\n{"step": 1, "x": ' + long + "}\n")
    with pytest.raises(
        ValueError, match=r"log\.jsonl, line 2: not a JSON record that can be read: it has 4,500,0\d\d b"
    ):
        read_log(tmp_path)
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file({"a": torch.ones(1)}, path, metadata={"manas_lite": long * 4})
    with pytest.raises(
        CheckpointError, match=r"weights\.safetensors .*its description is no JSON that can be read: it h"
    ):
        checkpoint.read(path)


@pytest.mark.parametrize("text", ['{"a": 1, "b": 2, "a": 1}', '[{"b": {"a": [], "c": 1, "a": 2}}]'])
def test_what_stands_twice_is_refused(text, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"a\.json is no JSON \('a' stands there twice\): restore it"):
        read_json(path)


@pytest.mark.parametrize("number", [-3, 0])
def test_a_format_before_the_first_is_refused(number, tmp_path, quick, monkeypatch):
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest(tmp_path), "format": number}))
    with pytest.raises(ValueError, match=rf"manifest\.json has format {number}, and the first is 1: it is damaged"):
        read_manifest(tmp_path)
    monkeypatch.setattr(checkpoint, "FORMAT", number)
    write_checkpoint(tmp_path / "checkpoint.safetensors")
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=rf"checkpoint\.safetensors has format {number}, and the first is 1"):
        checkpoint.read(tmp_path / "checkpoint.safetensors")


def test_a_later_version_says_update_whatever_else_it_holds(tmp_path, quick):
    manifest(tmp_path)
    path = tmp_path / "manifest.json"
    path.write_text('{"format": 99, "kinds": 3}')
    with pytest.raises(
        ValueError, match=r"manifest\.json has format 99, this version reads up to \d+: update manas_lite"
    ):
        read_manifest(tmp_path)


def test_names_that_are_no_text_can_be_noted_and_read_back(tmp_path):
    with RunDirectory(tmp_path, RECORD) as run:
        run.note(file="picture-\udcff.png")
        run.log({"step": 0, "file": "\udcff"})
        assert run.read_log() == [{"step": 0, "file": "\udcff"}]
    assert read_manifest(tmp_path)["notes"] == {"file": "picture-\udcff.png"}


# --- sizes that no machine can hold ---


@pytest.mark.parametrize(
    "changes",
    [
        {"modules_per_cell": 10**12},
        {"modules_per_cell": 10**40},
        {"channels": (10**9, 10**9)},
        {"channels": (10**6, 10**6, 10**6)},
        {"groups": 10**6, "channels": (10**6, 10**6)},
        {"channels": (8,) * 1000},
        {"channels": (8,) * 40},
        {"modules_per_cell": 9_999},
    ],
)
def test_a_space_that_no_machine_can_hold_is_refused_by_counting(changes, monkeypatch):
    monkeypatch.setattr(SearchSpace, "module_branches", property(lambda space: pytest.fail("it was built")))
    with pytest.raises(ValueError, match=r"can be held"):
        replace(SearchSpace.preset("smoke"), **changes)


def test_the_limits_leave_room_above_every_preset():
    for space in PRESETS.values():
        wide = replace(space, channels=tuple(4 * width for width in space.channels))
        replace(wide, modules_per_cell=10 * space.modules_per_cell)


def test_weights_for_another_size_than_they_say_are_refused_before_anything_is_built(tmp_path, monkeypatch):
    """The file states an architecture of 10^8 weights and holds a small one's."""
    wide = Genotype.hand_made(replace(tiny.SPACE, channels=(1024, 1024)))
    path = tmp_path / "weights.safetensors"
    zoo.save_tensors(path, trained()[0].state_dict(), kind="network", genotype=wide)
    made = []
    plain = torch.nn.init.kaiming_uniform_

    def noted(tensor, *args, **kwargs):
        made.append(tensor.device.type)
        return plain(tensor, *args, **kwargs)

    monkeypatch.setattr(torch.nn.init, "kaiming_uniform_", noted)
    with pytest.raises(CheckpointError, match=r"weights\.safetensors: size mismatch for stem\S+: a tensor \("):
        zoo.load(path)
    assert set(made) == {"meta"}


# --- weights and checkpoints ---


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "weights.safetensors"

    def write(change) -> Path:
        state = dict(trained()[0].state_dict())
        zoo.save_tensors(path, change(state), kind="network", genotype=tiny.GENOTYPE)
        return path

    return write


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "net.body."])
def test_a_wrappers_prefix_is_explained(weights, prefix):
    path = weights(lambda state: {f"{prefix}{name}": value for name, value in state.items()})
    with pytest.raises(
        CheckpointError, match=f"weights.safetensors: every name begins with '{prefix}', which a wrapper"
    ):
        zoo.load(path)


def test_the_first_name_or_shape_that_differs_is_named(weights):
    names = [*trained()[0].state_dict()]
    with pytest.raises(CheckpointError, match=rf"first name that differs is '{names[3]}', which the file lacks"):
        zoo.load(weights(lambda state: {k: v for k, v in state.items() if k not in (names[3], names[7])}))
    with pytest.raises(CheckpointError, match=r"first name that differs is 'extra', which only the file has"):
        zoo.load(weights(lambda state: {**state, "extra": torch.ones(1)}))
    with pytest.raises(CheckpointError, match=rf"size mismatch for {names[0]}: a tensor \(5,\) of float32 in the file"):
        zoo.load(weights(lambda state: {**state, names[0]: torch.ones(5)}))
    with pytest.raises(CheckpointError, match=rf"size mismatch for {names[0]}: a tensor .* of float64 in the file"):
        zoo.load(weights(lambda state: {**state, names[0]: state[names[0]].double()}))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_name_file_and_tensor(weights, value):
    name = [*trained()[0].state_dict()][-1]

    def spoilt(state):
        state[name] = state[name].clone()
        state[name].view(-1)[-1] = value
        return state

    with pytest.raises(CheckpointError, match=rf"weights\.safetensors: {name} holds NaN or infinite weights"):
        zoo.load(weights(spoilt))


@pytest.mark.parametrize("number", [21, 10**9, 10**30, -1, 2.5, None, "2", True])
def test_a_step_that_the_run_does_not_have_is_refused(number, tmp_path):
    write_checkpoint(tmp_path / "checkpoint.safetensors", step=number)
    with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors: .*step"):
        resume(tmp_path / "checkpoint.safetensors")


def test_any_step_that_the_run_has_is_taken(tmp_path):
    for number in (0, 2, 20):
        write_checkpoint(tmp_path / "checkpoint.safetensors", step=number)
        assert resume(tmp_path / "checkpoint.safetensors") == number


def test_a_best_score_of_infinity_is_refused_and_none_yet_is_taken(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    write_checkpoint(path, memory={"best_psnr": float("-inf"), "best_epoch": -1})
    resume(path)
    for value in (float("inf"), float("nan"), None, "20", True):
        write_checkpoint(path, memory={"best_psnr": value, "best_epoch": -1})
        with pytest.raises(CheckpointError, match="best_psnr: expected a number"):
            resume(path)


def test_the_command_line_ends_with_one_line(tmp_path, capsys):
    from manas_lite.__main__ import main

    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file({"a": torch.ones(1)}, path, metadata={"manas_lite": mutations.deep(5000)})
    assert main(["evaluate", "--weights", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path}")
    assert error.count("\n") == 1
