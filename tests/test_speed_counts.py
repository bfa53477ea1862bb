"""The benchmarks compare equals, and the counts behind their claims hold: dispatches, FLOPs, kept bytes."""

import json
import subprocess
import sys

import pytest
import textbook as oracle
import torch
from torch import Tensor

from benchmarks import cases, growth, kit, report, targets, textbook
from benchmarks.measure import dispatches, flops, interleaved, ratio, saved_bytes
from manas_lite.compute.runtime import Compute, ComputeSettings
from manas_lite.losses import DerainLoss
from manas_lite.networks.genotype import Genotype
from manas_lite.networks.nets import DerainNet, SuperNet
from manas_lite.networks.space import SearchSpace

SPACE = SearchSpace((16, 32, 48), 2)
COMPUTE = Compute(ComputeSettings(device="cpu", threads=1))


def pair(seed: int | None = None) -> tuple[SuperNet | DerainNet, textbook.Network]:
    net = SuperNet(SPACE) if seed is None else DerainNet(Genotype.random(SPACE, seed))
    net = net.double().train()
    oracle.randomise(net)
    return net, kit.twin(net)


def scenes(batch: int, patch: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, 3, 3, patch, patch)
    rainy, clean = (torch.rand(s, generator=generator, dtype=torch.float64) for s in (shape, shape[:1] + shape[2:]))
    return rainy, clean


# --- both sides compute the same ---


@pytest.mark.parametrize("seed", [None, 0, 1])
@pytest.mark.parametrize("train", [True, False])
def test_both_networks_are_the_same_function(seed, train):
    net, twin = pair(seed)
    net.train(train), twin.train(train)
    x = scenes(1, 16)[0].flatten(0, 1)
    torch.testing.assert_close(twin(x), net(x), rtol=0, atol=1e-10)


def test_both_losses_are_the_same():
    rainy, clean = scenes(3, 24)
    expected = DerainLoss(kit.LOSS)(rainy, clean, epoch=0)[0]
    assert textbook.image_loss(rainy, clean).item() == pytest.approx(expected.item(), rel=1e-6)


def test_both_search_steps_move_everything_alike():
    """Weights and logits after two whole steps, from the same batches."""
    net, twin = pair()
    train, val = scenes(2, 16), scenes(2, 16, seed=1)
    sgd = torch.optim.SGD(net.weight_parameters(), 2e-3, 0.9, weight_decay=3e-4)
    adam = torch.optim.Adam(net.arch_parameters(), 3e-2, betas=(0.5, 0.999), weight_decay=1e-3)
    weights = [p for name, p in twin.named_parameters() if name not in ("alpha", "beta")]
    other_sgd = torch.optim.SGD(weights, 2e-3, 0.9, weight_decay=3e-4)
    other_adam = torch.optim.Adam([twin.alpha, twin.beta], 3e-2, betas=(0.5, 0.999), weight_decay=1e-3)
    for _ in range(2):
        with pytest.MonkeyPatch.context() as patch:  # the kit's loss leaves float64 as it is only if nobody narrows it
            patch.setattr(torch.Tensor, "float", torch.Tensor.double)
            ours = kit.search_step(net, sgd, adam, train, val, COMPUTE)
        theirs = textbook.search_step(twin, other_sgd, other_adam, train, val)
    assert ours.item() == pytest.approx(theirs, rel=1e-5)
    torch.testing.assert_close(twin.alpha, net.alpha, rtol=0, atol=1e-5)
    torch.testing.assert_close(twin.beta, net.beta, rtol=0, atol=1e-5)
    again = kit.twin(net)
    for (name, a), b in zip(again.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7, msg=name)


def test_all_nine_operations_are_built_on_a_derived_edge_and_one_runs():
    net, twin = pair(0)
    extra = sum(p.numel() for p in twin.parameters()) - sum(p.numel() for p in net.parameters())
    assert extra > 0
    x = scenes(1, 16)[0].flatten(0, 1)
    twin(x).sum().backward()
    unused = [name for name, p in twin.named_parameters() if p.grad is None]
    assert unused
    assert all("operations" in name for name in unused)


def test_pictures_are_the_same():
    space = SearchSpace((8, 16), 1)
    whole = cases.derain_textbook(45, 38, space)()
    for options in ({}, {"tile": 16}):
        ours = cases.derain_kit(45, 38, space=space, **options)()
        assert (ours - whole).abs().max() < 1e-4 * whole.abs().max()


# --- counts ---


def test_the_loss_takes_twenty_times_fewer_dispatches():
    size = cases.Size(batch=16)
    assert dispatches(cases.loss_textbook(size)) > 20 * dispatches(cases.loss_kit(size))


def test_a_search_step_leaves_out_a_sixth_of_the_arithmetic_or_more():
    """The architecture step needs no gradients of weights; a textbook's backward pass computes them all the same."""
    size = cases.Size(SPACE, batch=1, rains=2, patch=32)
    ours, theirs = flops(cases.search_kit(size)), flops(cases.search_textbook(size))
    assert 0.7 < ours / theirs < 0.84


def test_a_search_step_takes_fewer_dispatches():
    size = cases.Size(SPACE, batch=4, patch=32)
    assert dispatches(cases.search_kit(size)) < 0.8 * dispatches(cases.search_textbook(size))


def test_the_supernet_keeps_fewer_bytes():
    net, twin = pair()
    x = scenes(1, 16)[0].flatten(0, 1)
    theirs = saved_bytes(twin, x)
    kept = {}
    for checkpoint in ("none", "edges", "all"):
        net.set_recompute(checkpoint)
        kept[checkpoint] = saved_bytes(net, x)
    assert kept["none"] < 0.87 * theirs
    assert kept["edges"] < 0.62 * theirs
    assert kept["all"] < 0.2 * theirs


# --- the tools themselves ---


def test_turns_are_interleaved_and_the_first_round_is_dropped():
    order: list[str] = []
    seconds = interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2)
    assert order == ["a", "b"] * 3
    assert [len(values) for values in seconds.values()] == [2, 2]


def test_ratios_are_within_rounds():
    assert ratio([2.0, 30.0, 4.0], [1.0, 10.0, 4.0]) == {"median": 2.0, "least": 1.0, "most": 3.0}


def row(who: str, seconds: float, peak: int, **size: int) -> dict:
    faster = {"median": 12.0 / seconds}
    memory = {"before": 100, "peak": peak}
    return {
        "who": who, "size": size, "seconds": [seconds] * 3, "faster": faster, "memory": memory,
        "flops": 60.0,
    }  # fmt: skip


def test_targets_are_judged_by_what_was_found():
    """By hand: 12 s against 8 is 1.5x; 60 FLOP at 10 a second leave 6 s, so 2x is the roof."""
    rows = [row("textbook", 12, 1100), row("kit", 8, 900), row("thrifty", 14, 600), row("slow", 24, 200)]
    page = targets.table(
        {"search": {"found": {"rows": rows}, "date": "today"}, "pace": {"found": {"a": 10.0, "b": 4.0}}}
    ).splitlines()
    cells = {line.split(" | ")[0].strip("| "): line.split(" | ")[1:] for line in page[2:]}
    assert cells["search step, times faster"] == [
        "at least 1.2 / 1.5x", "1.5x", "aim", "2.00x", "today", "`--only search` |",
    ]  # fmt: skip
    # the slow one takes less memory, but twice the time
    assert cells["search step, share of memory at no more than 1.2x time"][1:3] == ["0.5x", "aim"]
    assert cells["loss, times fewer dispatches"][1:3] == ["not measured", "–"]
    verdicts = [targets.TARGETS[0].verdict(value) for value in (1.1, 1.3, 1.6)]
    assert verdicts == ["**missed**", "floor", "aim"]


def test_tables_stand_between_their_marks(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- one -->\nold\n<!-- end -->\nb\n<!-- two -->\nkept\n<!-- end -->\nc\n")
    report.write_tables("new", page, "one")
    assert page.read_text() == "a\n<!-- one -->\nnew\n<!-- end -->\nb\n<!-- two -->\nkept\n<!-- end -->\nc\n"


def test_slopes_are_those_of_the_power_that_made_the_points():
    points = [
        {"swept": "patch", "value": n, "seconds": {"kit": 3 * n**2, "textbook": n**3}, "saved_bytes": {"kit": 5 * n}}
        for n in (2, 4, 8)
    ]
    points += [{"grown": "scenes", "value": n, "seconds": max(n, 100.0)} for n in (10, 100, 1000)]  # a cost that starts
    rows = [line.strip("| ").split(" | ") for line in report.growth_table(points).splitlines()[2:]]
    assert rows == [
        ["patch", "2", "8", "kit, seconds", "2.00", "2.00"],
        ["patch", "2", "8", "textbook, seconds", "3.00", "3.00"],
        ["patch", "2", "8", "kit, saved bytes", "1.00", "1.00"],
        ["scenes", "10", "1,000", "kit, seconds", "0.50", "1.00"],
    ]


def test_growth_has_a_point_per_size():
    net = DerainNet(Genotype.random(SearchSpace((4, 8), 1), 0))
    points = growth.growth((16, 32), (10, 12), net)
    sizes = [(point["grown"], point["value"]) for point in points]
    assert sizes[:2] == [("pixels of a picture", 256), ("pixels of a picture", 1024)]
    assert sorted(sizes[2:]) == sorted(
        (grown, n) for n in (10, 12) for grown in ("scenes of a new folder", "scenes of a folder opened again")
    )
    assert points[1]["bytes"] == pytest.approx(4 * points[0]["bytes"], rel=0.2)


@pytest.mark.slow
def test_peak_memory_is_of_a_fresh_process(repository):
    """And a full-HD picture at paper size stays within 4 GiB."""
    hold = torch.ones(2**28)  # a gigabyte here is none of its business
    size = json.dumps({"height": 1080, "width": 1920})
    command = [sys.executable, "-m", "benchmarks.memory", "derain kit, tiles", size, "2"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert 0 < found["before"] < found["peak"] < 4 * 2**30
    assert found["before"] < 2**30 <= hold.nbytes
