"""Switches of a run that save memory: the same search and retraining, or a clear word that it did not fit."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import tiny
import torch

from benchmarks.measure import Dispatches
from manas_lite.compute.allocations import AllocationPeak
from manas_lite.compute.footprint import OutOfMemoryError, StepFootprint
from manas_lite.compute.runtime import ComputeSettings
from manas_lite.data import SceneBatch
from manas_lite.networks.nets import SuperNet
from manas_lite.networks.relaxation import Relaxation
from manas_lite.training import loop
from manas_lite.training.loop import parts_of
from manas_lite.training.retraining import retrain
from manas_lite.training.searching import search

SPACE = replace(tiny.SPACE, norm="none")
SAVING = replace(tiny.COMPUTE, recompute="all")


@pytest.fixture
def split(tmp_path):
    return tiny.tiny_split(tmp_path / "pictures")


@pytest.fixture
def _double(monkeypatch):
    """Runs in float64, where sums in another order agree to many digits."""
    monkeypatch.setattr("manas_lite.compute.runtime.Compute.prepare", lambda self, net: net.double())
    monkeypatch.setattr("manas_lite.compute.runtime.Compute.images", lambda self, batch: batch.flatten(0, 1).double())
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("accumulate", [2, 3, 100])
def test_a_search_in_parts_is_the_whole_one_without_batch_norm(split, tmp_path, accumulate):
    settings = replace(tiny.SEARCH, batch=3, eigenvalue_every=0, clip=1.0)
    whole = search(SPACE, split, settings, runs_dir=tmp_path, name="whole", progress=False)
    parts = search(
        SPACE, split, replace(settings, accumulate=accumulate), runs_dir=tmp_path, name="parts", progress=False
    )
    states = whole.supernet.state_dict(), parts.supernet.state_dict()
    for (name, a), b in zip(states[0].items(), states[1].values(), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-8, atol=1e-10, msg=name)
    assert parts.genotype == whole.genotype
    for a, b in zip(whole.log, parts.log, strict=True):
        assert a.keys() == b.keys()
        if a["kind"] == "step":
            assert all(b[name] == pytest.approx(a[name], rel=1e-5) for name in a if name != "kind")


@pytest.mark.usefixtures("_double")
def test_a_retraining_in_parts_is_the_whole_one_without_batch_norm(split, tmp_path):
    genotype = replace(tiny.GENOTYPE, space=SPACE)
    settings = replace(tiny.RETRAIN, batch=3, clip=1.0)
    nets = [
        retrain(genotype, split, replace(settings, accumulate=n), runs_dir=tmp_path, name=f"{n}", progress=False).net
        for n in (1, 2)
    ]
    for a, b in zip(*(net.state_dict().values() for net in nets), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-7, atol=1e-9)


def test_batch_norm_sees_the_parts(split, tmp_path):
    """The one difference, as documented; without it this file's equality would hold here too."""
    losses = []
    for n in (1, 2):
        settings = replace(tiny.SEARCH, accumulate=n, batch=4)
        log = search(tiny.SPACE, split, settings, runs_dir=tmp_path, name=f"{n}", progress=False).log
        losses.append([record["train"] for record in log if record["kind"] == "step"])
    assert losses[0][-1] != pytest.approx(losses[1][-1], rel=1e-5)


def test_parts_cover_the_batch_with_their_shares():
    rainy = torch.arange(7.0).reshape(7, 1, 1, 1, 1)
    batch = SceneBatch(rainy, rainy[:, 0], torch.arange(7))
    parts = parts_of(batch, 3)
    assert sum(share for share, _ in parts) == pytest.approx(1)
    assert torch.equal(torch.cat([part.rainy for _, part in parts]), rainy)
    assert sum(share * part.rainy.mean() for share, part in parts) == pytest.approx(rainy.mean())
    assert all(len(part.rainy) == len(part.clean) == len(part.index) for _, part in parts)


@pytest.mark.parametrize("order", ["finite-difference", "exact"])
def test_higher_orders_take_the_batch_whole(order):
    with pytest.raises(ValueError, match="accumulate is 2"):
        replace(tiny.SEARCH, accumulate=2, order=order)


@pytest.mark.parametrize("order", ["first", "exact"])
def test_a_search_that_recomputes_is_the_same_search(split, tmp_path, order):
    results = [
        search(
            tiny.SPACE, split, replace(tiny.SEARCH, order=order, compute=compute),
            runs_dir=tmp_path, name=name, progress=False,
        )
        for name, compute in (("plain", tiny.COMPUTE), ("saving", SAVING))
    ]  # fmt: skip
    plain, saving = (r.supernet.state_dict() for r in results)
    for name, value in plain.items():
        torch.testing.assert_close(saving[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_recomputing_may_start_in_the_middle_of_a_run(split, tmp_path):
    """It is a matter of the machine, not of the run: a search cut for want of memory can go on with it."""
    settings = replace(tiny.SEARCH, compute=replace(tiny.COMPUTE, recompute="edges"))
    search(tiny.SPACE, split, tiny.SEARCH, runs_dir=tmp_path, name="run", progress=False)
    search(tiny.SPACE, split, settings, runs_dir=tmp_path, name="run", progress=False)


# --- whole runs, counted and compared in float64 ---

SAMPLED = {"relaxation": "gumbel", "hard": True, "sampled": True}
SHORT = replace(tiny.SEARCH, epochs=2, steps=2, eigenvalue_every=0)
SWITCHES = {
    "plain": {},
    "edges recomputed": {"compute": replace(tiny.COMPUTE, recompute="edges")},
    "all recomputed": {"compute": SAVING},
    "in parts": {"accumulate": 2},
    "sampled": SAMPLED,
    "all at once": {**SAMPLED, "accumulate": 2, "compute": SAVING},
}


def searched(split, tmp_path, name, space=tiny.SPACE, settings=SHORT, **changes):
    return search(space, split, replace(settings, **changes), runs_dir=tmp_path, name=name, progress=False)


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("switch", ["edges recomputed", "all recomputed"])
@pytest.mark.parametrize("relaxation", [{}, SAMPLED], ids=["softmax", "sampled"])
def test_recomputing_changes_no_gradient_of_a_search(split, tmp_path, switch, relaxation):
    """Weights, statistics and logits after every step agree to the last digits: so did all gradients."""
    plain = searched(split, tmp_path, "plain", **relaxation)
    saving = searched(split, tmp_path, "saving", **relaxation, **SWITCHES[switch])
    for (name, a), b in zip(plain.supernet.state_dict().items(), saving.supernet.state_dict().values(), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-9, atol=1e-11, msg=name)
    assert saving.genotype == plain.genotype


@pytest.mark.usefixtures("_double")
def test_recomputing_changes_no_gradient_of_a_retraining(split, tmp_path):
    nets = [
        retrain(
            tiny.GENOTYPE, split, replace(tiny.RETRAIN, compute=compute), runs_dir=tmp_path, name=name, progress=False
        ).net
        for name, compute in (("plain", tiny.COMPUTE), ("saving", SAVING))
    ]
    for a, b in zip(*(net.state_dict().values() for net in nets), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-9, atol=1e-11)


@pytest.mark.usefixtures("_double")
def test_parts_of_a_batch_share_one_draw(split, tmp_path):
    """Noise belongs to the step, not to the pass: a sampled search in parts is the whole one."""
    whole, parts = (
        searched(split, tmp_path, f"{n}", SPACE, **SAMPLED, batch=4, accumulate=n).supernet.state_dict() for n in (1, 2)
    )
    for (name, a), b in zip(whole.items(), parts.values(), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-8, atol=1e-10, msg=name)


@pytest.mark.parametrize("switch", SWITCHES)
def test_no_switch_touches_the_random_state(split, tmp_path, switch):
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002 - the state that nobody should read
    before = torch.get_rng_state(), np.random.get_state()[1].tobytes()  # noqa: NPY002
    searched(split, tmp_path, "run", **SWITCHES[switch])
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tobytes() == before[1]  # noqa: NPY002


def counted(mode, run):
    with mode:
        run()
    return mode


@pytest.mark.slow
def test_each_switch_lowers_the_peak_of_a_search(split, tmp_path):
    """Bytes of tensors alive at once, over a whole search; the batch is large enough to outweigh the rest."""
    large = replace(SHORT, epochs=2, steps=1, batch=8, patch=24)
    peaks = {
        name: counted(AllocationPeak(), partial(searched, split, tmp_path, name, settings=large, **changes)).peak
        for name, changes in SWITCHES.items()
    }
    assert peaks["edges recomputed"] < 0.8 * peaks["plain"]
    assert peaks["all recomputed"] < 0.5 * peaks["plain"]
    assert peaks["in parts"] < 0.6 * peaks["plain"]
    assert peaks["sampled"] < 0.7 * peaks["plain"]
    assert peaks["all at once"] < min(peaks["in parts"], peaks["sampled"])


def test_a_sampled_search_takes_fewer_operations(split, tmp_path):
    """Those of the candidates that were not drawn are never called: in weight and architecture steps alike."""
    hard = counted(Dispatches(), partial(searched, split, tmp_path, "hard", **{**SAMPLED, "sampled": False}))
    sampled = counted(Dispatches(), partial(searched, split, tmp_path, "sampled", **SAMPLED))
    assert sampled.calls < 0.6 * hard.calls


def test_a_row_is_moved_through_its_drawn_weight_alone():
    """GDAS: d w_best / d logits = p_best (1[j = best] - p_j) / temperature, times what the drawn candidate says."""
    relaxation = Relaxation("gumbel", temperature=0.7, hard=True, sampled=True)
    logits = torch.randn(1, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    noise = torch.randn(1, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (row,) = relaxation.weights(logits, noise)
    weights = relaxation.chosen(row)
    (best,) = (k for k, weight in enumerate(weights) if weight is not None)
    assert best == int((logits + noise).argmax())
    assert weights[best].item() == pytest.approx(1)
    (gradient,) = torch.autograd.grad(3.0 * weights[best], logits)
    p = torch.softmax((logits + noise) / 0.7, 1)[0].detach()
    one_hot = torch.eye(5, dtype=torch.float64)[best]
    torch.testing.assert_close(gradient[0], 3.0 * p[best] * (one_hot - p) / 0.7)


def test_a_sampled_search_runs_and_moves_the_logits(split, tmp_path):
    settings = replace(tiny.SEARCH, relaxation="gumbel", hard=True, sampled=True)
    result = search(tiny.SPACE, split, settings, runs_dir=tmp_path, progress=False)
    start = SuperNet(tiny.SPACE, seed=settings.seed)
    assert (result.supernet.beta - start.beta).abs().max() > 0.01


@pytest.mark.parametrize("what", ["search", "retrain"])
def test_running_out_of_memory_is_a_clear_message(split, tmp_path, monkeypatch, what):
    def full(*_args, **_kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(f"manas_lite.training.{'searching' if what == 'search' else 'retraining'}.weight_step", full)
    monkeypatch.setattr(StepFootprint, "advice", lambda step, limit: ["batch=1"])  # tested with the estimate
    run = {"search": partial(search, tiny.SPACE), "retrain": partial(retrain, tiny.GENOTYPE)}[what]
    settings = {"search": tiny.SEARCH, "retrain": tiny.RETRAIN}[what]
    message = r"cpu ran out of memory\. a .* step of 2 scenes x 2 rains of .*: set batch=1"
    with pytest.raises(OutOfMemoryError, match=message) as caught:
        run(split, settings, runs_dir=tmp_path, progress=False)
    assert "CUDA" not in str(caught.value)


def test_a_step_too_large_is_announced(split, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("manas_lite.compute.footprint.free_bytes", lambda device: 10**6)
    monkeypatch.setattr(StepFootprint, "advice", lambda step, limit: ["batch=1"])
    settings = replace(tiny.SEARCH, patch=24, batch=30, epochs=2, steps=1, warmup=1, eigenvalue_every=0)
    search(tiny.SPACE, split, settings, runs_dir=tmp_path)
    shown = capsys.readouterr()
    assert "warning: a search step of 30 scenes x 2 rains of 24x24 pixels needs about" in shown.out + shown.err


def test_the_level_is_checked_with_the_settings():
    with pytest.raises(ValueError, match="recompute"):
        ComputeSettings(recompute="some")


def test_one_graph_lives_at_a_time():
    """Each loss is differentiated before the next is made."""
    weight = torch.nn.Parameter(torch.ones((), dtype=torch.float64))
    events = []

    def loss_of(part):
        i = int(part.index)
        events.append(f"made {i}")
        loss = weight * (i + 1.0)
        loss.register_hook(lambda _: events.append(f"differentiated {i}"))
        return loss, {"own": loss.detach()}

    optimizer = torch.optim.SGD([weight], 0.5)
    batch = SceneBatch(torch.zeros(3, 1, 3, 4, 4), torch.zeros(3, 3, 4, 4), torch.arange(3))
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    terms = loop.weight_step(optimizer, loss_of, batch, parts=3, scaler=scaler)
    assert events == [f"{verb} {i}" for i in range(3) for verb in ("made", "differentiated")]
    assert weight.item() == pytest.approx(1 - 0.5 * (1 + 2 + 3) / 3)
    assert terms["train"].item() == terms["own"].item() == pytest.approx(2)


@pytest.mark.parametrize("reached", [(True, True, False), (False, True, True), (False, False, True)])
def test_a_part_that_does_not_reach_a_weight_takes_nothing_away(reached):
    weights = [torch.nn.Parameter(torch.ones((), dtype=torch.float64)) for _ in range(2)]

    def loss_of(part):
        i = int(part.index)
        return weights[0] * (weights[1] if reached[i] else 1.0), {}

    optimizer = torch.optim.SGD(weights, 1.0)
    batch = SceneBatch(torch.zeros(3, 1, 3, 4, 4), torch.zeros(3, 3, 4, 4), torch.arange(3))
    loop.weight_step(optimizer, loss_of, batch, parts=3, scaler=torch.amp.GradScaler("cpu", enabled=False))
    assert weights[1].item() == pytest.approx(1 - sum(reached) / 3)
