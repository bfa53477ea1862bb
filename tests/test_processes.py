"""A run of several processes is the run of one: the same weights, the same log, the same files, written once."""

import json
import math
import os
import socket
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from unittest import mock

import pytest
import tiny
import torch
from together import cut_after, in_double, together
from torch import Tensor, nn

from manas_lite.__main__ import main
from manas_lite.bilevel import functional_loss, hypergradient, virtual_step
from manas_lite.compute.batch_norm import SharedBatchNorm2d, share_statistics
from manas_lite.compute.processes import ALONE, Processes, join
from manas_lite.compute.runtime import Compute
from manas_lite.data import Split, scene_loader
from manas_lite.networks.nets import SuperNet
from manas_lite.photos.images import write_image
from manas_lite.runs import checkpoint as checkpoints
from manas_lite.runs.record import read_log
from manas_lite.training import loop
from manas_lite.training.loop import DivergedError, step_footprint
from manas_lite.training.retraining import retrain
from manas_lite.training.searching import search

CPU = torch.device("cpu")
SEARCH = replace(tiny.SEARCH, steps=2, batch=4, clip=1.0)
RETRAIN = replace(tiny.RETRAIN, steps=2, batch=4, clip=1.0)

forks = pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="needs fork")


@pytest.fixture(scope="module")
def split(tmp_path_factory) -> Split:
    return tiny.tiny_split(tmp_path_factory.mktemp("pictures"))


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mine(batch: Tensor, processes: Processes) -> Tensor:
    first, end = processes.share(len(batch))
    return batch[first:end]


# --- shares ---


def test_shares_are_even_and_cover_the_batch():
    shares = [Processes(rank, 3).share(12) for rank in range(3)]
    assert shares == [(0, 4), (4, 8), (8, 12)]


@pytest.mark.parametrize(("batch", "count", "fitting"), [(5, 2, 4), (2, 3, 3), (16, 5, 15)])
def test_a_batch_that_cannot_be_shared_is_refused(batch, count, fitting):
    with pytest.raises(ValueError, match=f"{batch} scenes cannot be shared evenly by {count} .* set batch={fitting}"):
        Processes(0, count).share(batch)


def test_shares_of_the_loader_are_pieces_of_the_batch(split):
    options = {"batch": 4, "patch": 16, "seed": 3, "steps": 3, "start": 1}
    for whole, *parts in zip(
        scene_loader(split.train, **options),
        *(scene_loader(split.train, **options, share=Processes(rank, 2).share(4)) for rank in range(2)),
        strict=True,
    ):
        for name in whole._fields:
            assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))


# --- joining ---


def test_a_process_of_its_own_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert join(CPU) == ALONE
    assert ALONE.first
    assert ALONE.ask_first(lambda: 3) == 3


def test_several_processes_without_accelerate_are_told_what_is_missing(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'manas_lite\[accelerate\]'"):
        join(CPU)


def test_devices_that_cannot_be_joined_are_refused(monkeypatch):
    """As on Apple's GPUs, where accelerate sets nothing up."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "accelerate", SimpleNamespace(PartialState=lambda **_: None))
    with pytest.raises(ValueError, match="processes on 'mps' cannot be joined: use device=cuda or device=cpu"):
        join(torch.device("mps"))


def test_what_works_alone_does_not_join(monkeypatch):
    """Deraining and scoring within a launched script ask nothing of the other processes."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert Compute(tiny.COMPUTE).processes == ALONE


def _numbered():
    return [type(error) for error in [_raised(lambda: join(torch.device("cuda:1")))]]


def _raised(function):
    try:
        function()
    except Exception as error:
        return error


@forks
def test_a_numbered_gpu_is_refused():
    assert together(2, _numbered) == [[ValueError], [ValueError]]


# --- messages ---


def _messages():
    here = join(CPU)
    tensors = [torch.tensor([1.0, 2.0]) * (here.rank + 1), None, torch.tensor([[3.0]]) + here.rank]
    here.average(tensors)
    asked = here.ask_first(lambda: f"from {here.rank}")
    return here, tensors, asked, here.gather(torch.tensor([float(here.rank)]))


@forks
def test_averages_answers_and_gathering():
    for rank, (here, tensors, asked, gathered) in enumerate(together(3, _messages)):
        assert here == Processes(rank, 3, 3)
        assert torch.equal(tensors[0], torch.tensor([2.0, 4.0]))
        assert tensors[1] is None
        assert torch.equal(tensors[2], torch.tensor([[4.0]]))
        assert asked == "from 0"
        assert torch.equal(gathered, torch.arange(3.0)[:, None])


# --- BatchNorm ---


def _normalised(x: Tensor, affine: bool, momentum: float | None):
    """Output, gradients of first and second order, and buffers, of this process's share; twice, for the statistics."""
    here = join(CPU) if torch.distributed.is_initialized() else ALONE
    net = nn.Sequential(nn.BatchNorm2d(3, affine=affine, momentum=momentum)).double()
    for i, parameter in enumerate(net.parameters()):
        parameter.data.copy_(images(3, seed=9 + i))
    share_statistics(net, here)
    assert here.count == 1 or isinstance(net[0], SharedBatchNorm2d)
    own = mine(x, here).clone().requires_grad_()
    net(own + 1)
    y = net(own)
    (first,) = torch.autograd.grad((y**3).sum(), own, create_graph=True)
    (second,) = torch.autograd.grad((first**2).sum(), own)
    net.eval()
    return [t.detach() for t in (y, first, second, net(own), *net.buffers())]


@forks
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_batch_norm_is_that_of_the_whole_batch(affine, momentum):
    x = 5 + images(4, 3, 5, 6)
    whole = _normalised(x, affine, momentum)
    parts = together(2, _normalised, x, affine, momentum)
    for i, expected in enumerate(whole):
        if i < 4:  # of the batch
            torch.testing.assert_close(torch.cat([part[i] for part in parts]), expected, rtol=1e-9, atol=1e-9)
        else:
            for part in parts:
                torch.testing.assert_close(part[i], expected, rtol=1e-12, atol=1e-12)


def test_batch_norm_of_one_process_stays_pytorchs():
    net = nn.Sequential(nn.BatchNorm2d(3))
    share_statistics(net, ALONE)
    assert type(net[0]) is nn.BatchNorm2d


# --- gradients of the architecture ---


def _hypergradient(order: str, train: Tensor, val: Tensor):
    here = join(CPU) if torch.distributed.is_initialized() else ALONE
    net = SuperNet(tiny.SPACE).double().train()
    torch.nn.init.normal_(net.head.weight, std=0.1, generator=torch.Generator().manual_seed(1))
    share_statistics(net, here)
    weights, arch = net.weight_parameters(), net.arch_parameters()

    def loss(x: Tensor):
        own = mine(x, here)
        return here.mean(functional_loss(net, lambda n: (n(own) ** 2).mean() + n.alpha.exp().sum(), weights, arch))

    optimizer = torch.optim.SGD(weights, 0.1, momentum=0.9)
    found = hypergradient(order, loss(train), loss(val), weights, arch, step=virtual_step(optimizer), radius=1e-5)
    return [g.detach() for g in found.gradients], found.val_loss


@forks
@pytest.mark.parametrize("order", ["first", "finite-difference", "exact"])
def test_hypergradients_are_those_of_the_whole_batch(order):
    train, val = images(4, 3, 8, 8, seed=1), images(4, 3, 8, 8, seed=2)
    gradients, loss = _hypergradient(order, train, val)
    parts = together(2, _hypergradient, order, train, val)
    for got, found in parts:
        torch.testing.assert_close(found, loss)
        for a, b in zip(got, gradients, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-12)
            assert b.abs().max() > 1e-8
    for a, b in zip(parts[0][0], parts[1][0], strict=True):
        assert torch.equal(a, b)  # not close: the same, or the processes would drift apart


# --- whole runs ---


def _search(split, folder, settings, name, stop=None):
    with in_double():
        if stop is not None:
            with cut_after(stop):
                search(tiny.SPACE, split, settings, runs_dir=folder, name=name, progress=False)
            return None
        result = search(tiny.SPACE, split, settings, runs_dir=folder, name=name, progress=False)
    return result.genotype, result.supernet.state_dict(), result.log, result.seconds


def _retrain(split, folder, settings, name, stop=None):
    with in_double():
        if stop is not None:
            with cut_after(stop):
                retrain(tiny.GENOTYPE, split, settings, runs_dir=folder, name=name, progress=False)
            return None
        result = retrain(tiny.GENOTYPE, split, settings, runs_dir=folder, name=name, progress=False)
    return result.genotype, result.net.state_dict(), result.log, result.seconds


def assert_same_run(one, other):
    assert other[0] == one[0]
    for (name, a), b in zip(one[1].items(), other[1].values(), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-7, atol=1e-9, msg=name)
    assert len(one[2]) == len(other[2])
    for a, b in zip(one[2], other[2], strict=True):
        assert a.keys() == b.keys()
        for key in a:
            if isinstance(a[key], float):
                assert b[key] == pytest.approx(a[key], rel=1e-5), key


CASES = {
    "first": (_search, SEARCH),
    "exact": (_search, replace(SEARCH, order="exact", optimizer="sgd", weight_rate=1e-2)),
    "sampled, recomputed, perturbation": (
        _search,
        replace(
            SEARCH, relaxation="gumbel", hard=True, sampled=True, discretize="perturbation", eigenvalue_every=0,
            compute=replace(tiny.COMPUTE, recompute="all"),
        ),
    ),
    "one to one": (_search, replace(SEARCH, multi_to_one=False, eigenvalue_every=0)),
    "retrain": (_retrain, RETRAIN),
}  # fmt: skip


SLOW = ("first", "exact", "sampled, recomputed, perturbation")


@forks
@pytest.mark.parametrize("case", [pytest.param(c, marks=[pytest.mark.slow] * (c in SLOW)) for c in CASES])
def test_two_processes_are_one(split, tmp_path, case):
    run, settings = CASES[case]
    whole = run(split, tmp_path, settings, "whole")
    parts = together(2, run, split, tmp_path, settings, "parts")
    for part in parts:
        assert_same_run(whole, part)
    for (name, a), b in zip(parts[0][1].items(), parts[1][1].values(), strict=True):
        assert torch.equal(a, b), f"the processes drifted apart in {name}"
    assert read_log(tmp_path / "parts") == parts[0][2]
    names = {path.name for path in (tmp_path / "whole").iterdir()}
    assert {path.name for path in (tmp_path / "parts").iterdir()} == names


def _retrain_at_two_speeds(split, folder, seconds):
    """Retrain where a step takes this process another time than the others; return the steps and times of its saves."""
    now, saves = [0.0], []
    step, save = loop.weight_step, loop.Loop.save

    def slow_step(*args, processes, **kwargs):
        now[0] += seconds[processes.rank]
        return step(*args, processes=processes, **kwargs)

    def noted_save(self, done, probe, **ended):
        saves.append((done, now[0]))
        save(self, done, probe, **ended)

    with (
        mock.patch.object(loop, "time", SimpleNamespace(monotonic=lambda: now[0])),
        mock.patch.dict(retrain.__globals__, {"weight_step": slow_step}),
        mock.patch.object(loop.Loop, "save", noted_save),
    ):
        retrain(tiny.GENOTYPE, split, replace(RETRAIN, epochs=1, steps=24), runs_dir=folder, name="r", progress=False)
    return saves


@forks
@pytest.mark.parametrize("seconds", [(100.0, 1.0), (1.0, 100.0), (20.0, 30.0), (0.001, 0.001)])
def test_processes_of_other_speeds_save_at_the_same_steps_in_time(split, tmp_path, seconds):
    first, second = together(2, _retrain_at_two_speeds, split, tmp_path, seconds)
    assert [done for done, _ in first] == [done for done, _ in second]
    times = [0.0, *(moment for _, moment in first)]
    assert max(b - a for a, b in pairwise(times)) <= 300.0
    assert len(first) <= 2 + 24 * seconds[0] / 100.0  # not at every step


@forks
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 4)])
@pytest.mark.parametrize("run", [pytest.param(_search, marks=pytest.mark.slow), _retrain])
def test_a_run_goes_on_with_another_number_of_processes(split, tmp_path, before, after, run):
    settings = SEARCH if run is _search else RETRAIN
    whole = run(split, tmp_path, settings, "whole")
    together(before, run, split, tmp_path, settings, "cut", 4)
    assert checkpoints.read(tmp_path / "cut" / "checkpoint.safetensors")[1]["step"] == 4
    for part in together(after, run, split, tmp_path, settings, "cut"):
        assert_same_run(whole, part)


def _write_nothing(split, folder):
    here = join(CPU)
    written = []
    if not here.first:
        import manas_lite.runs.checkpoint as checkpoint
        import manas_lite.runs.record as record

        for module in (checkpoint, record):
            module.write_atomic = lambda path, data: written.append(path)
    _search(split, folder, SEARCH, "search")
    _retrain(split, folder, RETRAIN, "retrain")
    return written


@forks
@pytest.mark.slow
def test_the_first_process_alone_writes(split, tmp_path):
    assert together(2, _write_nothing, split, tmp_path) == [[], []]
    assert (tmp_path / "search" / "genotype.json").exists()
    assert (tmp_path / "retrain" / "weights.safetensors").exists()


def _diverge(split, folder):
    """A loss that is NaN in the second process alone."""
    from manas_lite.losses import DerainLoss

    here, loss = join(CPU), DerainLoss.__call__

    def broken(self, outputs, clean, *, epoch):
        total, terms = loss(self, outputs, clean, epoch=epoch)
        return (total, terms) if here.first else (total * math.nan, terms)

    DerainLoss.__call__ = broken
    return str(_raised(lambda: _retrain(split, folder, replace(RETRAIN, epochs=20), "run")))


@forks
def test_a_loss_that_breaks_in_one_process_stops_all(split, tmp_path):
    first, second = together(2, _diverge, split, tmp_path)
    assert first == second
    assert "train became nan at step 0" in first
    assert issubclass(DivergedError, RuntimeError)


@forks
@pytest.mark.parametrize("batch", [3, 1])
@pytest.mark.parametrize("run", ["search", "retrain"])
def test_a_batch_that_cannot_be_shared_is_refused_before_anything_is_trained(split, tmp_path, run, batch):
    message = f"a batch of {batch} scenes cannot be shared evenly by 2 processes: set batch=2"
    assert all(message in found for found in together(2, _refused, split, tmp_path, run, batch))
    assert not (tmp_path / "run").exists()


def _refused(split, folder, run, batch):
    function, settings = {"search": (_search, SEARCH), "retrain": (_retrain, RETRAIN)}[run]
    return str(_raised(lambda: function(split, folder, replace(settings, batch=batch), "run")))


def test_single_images_are_shared_where_scenes_are_fewer_than_the_processes(split):
    """One scene of two rains is two images for two processes, where each image is trained on its own."""
    compute = SimpleNamespace(processes=Processes(1, 2), dtype=torch.float32)
    settings = replace(RETRAIN, batch=1, multi_to_one=False, accumulate=2)
    step = step_footprint(tiny.SPACE, settings, compute, split.train, tiny.GENOTYPE)
    assert (step.batch, step.accumulate) == (1, 1)
    with pytest.raises(ValueError, match="cannot be shared evenly"):
        step_footprint(tiny.SPACE, replace(settings, multi_to_one=True), compute, split.train, tiny.GENOTYPE)


def _different_files(split, folder):
    from manas_lite.training.loop import note_data

    here = join(CPU)
    scenes = split.train if here.first else split.train[1:]
    with here.open(folder / "run", {}, kind="search") as run:
        return str(_raised(lambda: note_data(run, scenes, here)))


@forks
def test_machines_with_other_files_are_found_out(split, tmp_path):
    messages = together(2, _different_files, split, tmp_path)
    assert messages[0] == "None"
    assert "process 1 of 2 reads other data than the first" in messages[1]


# --- the launchers ---


@pytest.fixture
def accelerate():
    return pytest.importorskip(
        "accelerate", reason="the accelerate extra is not installed: pip install 'manas_lite[accelerate]'"
    )


def _pairs(folder):
    """A folder of pairs, as the command line takes it."""
    for i in range(10):
        for part in ("input", "target"):
            (folder / part).mkdir(parents=True, exist_ok=True)
            clean = tiny.picture(i, 32)
            write_image(folder / part / f"{i}.png", clean if part == "target" else clean // 2 + 120)
    return folder


@pytest.mark.slow
@pytest.mark.usefixtures("accelerate")
def test_accelerate_launches_search_and_retraining(tmp_path, repository):
    """Both commands, in two processes on the CPU; each result is printed and written once."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2"]
    launch += ["--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0", "-m"]
    fast = "--set epochs=2 --set steps=2 --set patch=16 --set batch=2 --device cpu --threads 1".split()  # noqa: SIM905
    where = ["--data", str(_pairs(tmp_path / "pairs")), "--runs-dir", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    for command in (["search", "--space", "smoke", "--set", "warmup=1"], ["retrain", "--genotype", "hand_made:smoke"]):
        done = subprocess.run(
            [*launch, "manas_lite", *command, *where, *fast], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count(str(tmp_path / command[0])) == 1, done.stdout
        manifest = json.loads((tmp_path / command[0] / "manifest.json").read_text())
        assert manifest["notes"]["compute"]["processes"] == 2
        assert manifest["finished"]


PROGRAM = """
import sys
from pathlib import Path
import tiny
from accelerate import notebook_launcher
from manas_lite.training.retraining import retrain

def work(folder):
    split = tiny.tiny_split(Path(folder) / "pictures")
    retrain(tiny.GENOTYPE, split, tiny.RETRAIN, runs_dir=folder, name="parts", progress=False)

tiny.tiny_split(Path(sys.argv[1]) / "pictures")
notebook_launcher(work, (sys.argv[1],), num_processes=2, use_port=sys.argv[2])
"""


@forks
@pytest.mark.slow
@pytest.mark.usefixtures("accelerate")
def test_a_notebook_launches_processes(tmp_path, repository):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(repository), str(repository / "tests")])}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), port],
        env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "parts" / "manifest.json").read_text())["notes"]["compute"]["processes"] == 2


@pytest.mark.parametrize("command", ["demo", "evaluate --weights x", "derain a b"])
def test_other_commands_are_not_for_several_processes(command, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(command.split()) == 2
    assert "one process" in capsys.readouterr().err
