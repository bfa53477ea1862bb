"""torch.compile in runs: never by itself, never in short runs, in a bounded number of graphs, cached on disk."""

import dataclasses
from dataclasses import replace

import pytest
import tiny
import torch
from torch._dynamo.utils import counters

from manas_lite.compute import runtime
from manas_lite.compute.processes import Processes
from manas_lite.compute.runtime import WORTH_COMPILING, Compute, ComputeSettings
from manas_lite.training.retraining import retrain
from manas_lite.training.schedules import RETRAIN_PRESETS, SEARCH_PRESETS
from manas_lite.training.searching import search

COMPILING = replace(tiny.COMPUTE, compile=True)


@pytest.fixture
def compilations(monkeypatch) -> list[dict]:
    """Calls of torch.compile, which then only replays what it captured, gradients included."""
    calls: list[dict] = []
    original = torch.compile

    def compile_(net, **options):
        calls.append(options)
        return original(net, backend="aot_eager", **options)

    monkeypatch.setattr(torch, "compile", compile_)
    torch.compiler.reset()
    counters.clear()
    yield calls
    torch.compiler.reset()


@pytest.mark.parametrize("presets", [SEARCH_PRESETS, RETRAIN_PRESETS])
def test_no_preset_compiles(presets):
    assert not any(settings.compute.compile for settings in presets.values())


def test_smoke_runs_never_compile(tmp_path, compilations):
    """Not even when told to: they are too short for it."""
    split = tiny.tiny_split(tmp_path / "pictures")
    for presets in (SEARCH_PRESETS, RETRAIN_PRESETS):
        assert presets["smoke"].epochs * presets["smoke"].steps < WORTH_COMPILING
    options = {"runs_dir": tmp_path, "progress": False}
    search(tiny.SPACE, split, replace(tiny.SEARCH, compute=COMPILING, epochs=2, steps=1), **options)
    retrain(tiny.GENOTYPE, split, replace(tiny.RETRAIN, compute=COMPILING, epochs=1, steps=1), **options)
    assert compilations == []


def test_runs_that_are_long_enough_compile(compilations):
    net = torch.nn.Linear(2, 2)
    assert Compute(COMPILING).compiled(net, WORTH_COMPILING - 1) is net
    assert Compute(tiny.COMPUTE).compiled(net, WORTH_COMPILING) is net
    assert Compute(COMPILING).compiled(net, WORTH_COMPILING) is not net
    assert compilations == [{"fullgraph": True, "dynamic": False}]


@pytest.mark.slow
@pytest.mark.parametrize(("what", "graphs"), [("retrain", 1), ("search", 2)])
def test_a_run_is_captured_in_as_many_graphs_as_it_has_kinds_of_passes(
    tmp_path, monkeypatch, compilations, what, graphs
):
    """A weight pass, and in search one of the architecture, whatever the number of steps; the result is the same."""
    monkeypatch.setattr(runtime, "WORTH_COMPILING", 1)
    split = tiny.tiny_split(tmp_path / "pictures")
    run, subject, settings = {
        "search": (search, tiny.SPACE, replace(tiny.SEARCH, eigenvalue_every=2)),
        "retrain": (retrain, tiny.GENOTYPE, tiny.RETRAIN),
    }[what]
    plain, fast = (
        run(subject, split, replace(settings, compute=compute), runs_dir=tmp_path, name=name, progress=False)
        for name, compute in (("plain", tiny.COMPUTE), ("fast", COMPILING))
    )
    assert counters["stats"]["unique_graphs"] == graphs
    nets = [getattr(result, "supernet" if what == "search" else "net") for result in (plain, fast)]
    for a, b in zip(*(net.state_dict().values() for net in nets), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_what_was_compiled_is_found_again(tmp_path, monkeypatch):
    """By the default compiler, as another process would: from the folder on disk."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(runtime, "WORTH_COMPILING", 1)
    compute, x = Compute(COMPILING), torch.rand(2, 3, 8, 8)
    hits = []
    for _ in range(2):
        torch.compiler.reset()
        counters.clear()
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
        compute.compiled(net, 1)(x).sum().backward()
        hits.append((counters["inductor"]["fxgraph_cache_hit"], counters["aot_autograd"]["autograd_cache_hit"]))
    assert sum(hits[0]) == 0
    assert sum(hits[1]) > 0
    torch.compiler.reset()


@pytest.mark.parametrize(
    "changes",
    [
        {"order": "exact"},
        {"relaxation": "gumbel", "hard": True, "sampled": True},
        {"relaxation": "gumbel", "temperature": 2.0},
    ],
)
def test_what_cannot_be_compiled_is_refused_beforehand(changes):
    replace(tiny.SEARCH, compute=COMPILING)
    with pytest.raises(ValueError, match="compile takes passes that are the same in every step"):
        replace(tiny.SEARCH, compute=COMPILING, **changes)


def test_compiling_and_recomputing_exclude_each_other():
    with pytest.raises(ValueError, match="compile and recompute='edges' exclude each other"):
        ComputeSettings(compile=True, recompute="edges")


def test_compiling_is_for_one_process(monkeypatch):
    monkeypatch.setattr(runtime, "join", lambda device: Processes(0, 2, 2))
    with pytest.raises(ValueError, match="compile is for one process, not for 2"):
        Compute(COMPILING, together=True)
    assert dataclasses.replace(COMPILING, compile=False) == tiny.COMPUTE
