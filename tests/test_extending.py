"""The kit is extended from outside the package, as CONTRIBUTING.md says: each recipe, end to end.

`own_parts.py` is written as a stranger would write it: one file that registers a gate, a module, a distance and a loss
term, and imports nothing but public names. It is run in other processes, by the command line.
"""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from manas_course import micro_bench
from manas_course.micro_bench import architectures
from manas_lite import (
    DerainNet,
    Genotype,
    SearchSpace,
    SuperNet,
    derain,
    draw,
    load,
    losses,
    retrain,
    search,
)
from manas_lite.networks import modules, ops
from manas_lite.networks.costs import measure_costs
from manas_lite.photos.images import read_image, write_image
from manas_lite.photos.tiling import derain_tiled
from manas_lite.runs.arguments import import_file

OWN = '''
import torch
from torch import nn
from torch.nn import functional as F

from manas_lite.losses import distance, term
from manas_lite.networks.modules import conv_norm, searched_module
from manas_lite.networks.ops import Gate, operation


@operation("ECA")
class EfficientGate(Gate):
    """sigmoid(conv over neighbouring channels of the mean): Wang et al., CVPR 2020."""

    needs = frozenset({"mean"})
    extent = 1

    def __init__(self, channels, norm="batch"):
        super().__init__(channels, norm)
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def gate(self, x, seen):
        mean = seen.mean  # (B, c, 1, 1), or (B, c, H, W) where it is of local windows
        rows = mean.permute(0, 2, 3, 1).reshape(-1, 1, mean.shape[1])
        out = self.conv(rows).view(mean.shape[0], mean.shape[2], mean.shape[3], mean.shape[1])
        return torch.sigmoid(out.permute(0, 3, 1, 2))


@operation("wide_conv")
class WideGate(Gate):
    """A gate that reads far: 11 x 11 pixels, twice."""

    def __init__(self, channels, norm="batch"):
        super().__init__(channels, norm)
        self.body = nn.Sequential(*(nn.Conv2d(channels, channels, 11, padding=5, groups=channels) for _ in range(2)))

    def gate(self, x, seen):
        return torch.sigmoid(self.body(x))


@searched_module("inverted")
class InvertedModule(nn.Module):
    """Depthwise 5x5 between two 1x1 convolutions, on each branch."""

    def __init__(self, widths, norm):
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(
                conv_norm(w, 2 * w, 1, norm),
                nn.ReLU(),
                nn.Conv2d(2 * w, 2 * w, 5, padding=2, groups=2 * w),
                nn.ReLU(),
                conv_norm(2 * w, w, 1, norm, last=True),
            )
            for w in widths
        )

    def forward(self, x):
        return [branch + block(branch) for block, branch in zip(self.blocks, x)]


@distance("huber")
def huber(outputs, target):
    return F.huber_loss(outputs, target, delta=0.1)


@term("edges")
def edges(outputs, clean):
    """The mean squared difference of vertical edges."""
    return (outputs.diff(dim=-2) - clean.unsqueeze(1).diff(dim=-2)).square().mean()


@term("decided", on="architecture")
def decided(alpha_logits, beta_logits, alpha_weights, beta_weights, costs):
    return (1 - alpha_weights.amax(1)).mean()
'''
OPERATIONS = (*ops.PUBLISHED_OPERATIONS, "ECA", "wide_conv")
MODULES = (*modules.PUBLISHED_MODULES, "inverted")


@pytest.fixture
def own_file(tmp_path):
    path = tmp_path / "own_parts.py"
    path.write_text(OWN, encoding="utf-8")
    return path


@pytest.fixture
def own(own_file):
    """The space with the parts of that file, which are registered for one test."""
    registries = (ops.OPERATIONS, modules.MODULES, losses.DISTANCES, losses.TERMS)
    before = [dict(registry) for registry in registries]
    import_file(own_file)
    yield SearchSpace.preset("smoke", operations=OPERATIONS, modules=MODULES)
    for registry, entries in zip(registries, before, strict=True):
        registry.clear()
        registry.update(entries)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    for i in range(10):
        clean = tiny.picture(i, 32)
        for part, picture in (("rainy", clean // 2 + 120), ("clean", clean)):
            (folder / part).mkdir(exist_ok=True)
            write_image(folder / part / f"{i}.png", picture)
    return folder


def everything(space):
    """A genotype in which each part of one's own stands somewhere."""
    edges = ["ECA", "wide_conv", *["SE"] * len(space.edge_branch)][: len(space.edge_branch)]
    return Genotype(space, ("inverted", *["parallel"] * (len(space.module_branches) - 1)), tuple(edges))


def test_what_others_register_changes_nothing_published(own):
    paper = SearchSpace.preset("paper")
    assert paper.operations == ops.PUBLISHED_OPERATIONS
    assert len(paper.operations) == 9
    assert paper.count() == 2**12 * 8**27
    assert paper.id == "a7953d56c460"
    assert Genotype.hand_made(SearchSpace.preset("smoke")).id == "494db1fde183"
    assert architectures.SPACE.operations == ops.PUBLISHED_OPERATIONS
    assert len(micro_bench.load().architectures) == 128
    assert SuperNet(paper).alpha.shape == (12, 2)


def test_own_parts_are_costed_counted_and_mixed(own):
    assert own.count() == 3**2 * 10 ** len(own.edge_branch)
    genotype = everything(own)
    for unit, size in (("parameters", (64, 64)), ("flops", (64, 64))):
        costs = measure_costs(own, unit, size)
        assert costs.modules.shape == (2, 3)
        assert costs.edges.shape == (len(own.edge_branch), 11)
    assert genotype.cost() == sum(p.numel() for p in DerainNet(genotype).parameters())
    supernet = SuperNet(own)
    assert supernet.alpha.shape == (2, 3)
    derived = DerainNet(genotype).inherit(supernet).eval()
    with torch.no_grad():
        for logits, names, chosen in (
            (supernet.alpha, own.modules, genotype.modules),
            (supernet.beta, own.operations, genotype.edges),
        ):
            logits.fill_(-1e9)
            for row, name in enumerate(chosen):
                logits[row, names.index(name)] = 0
    torch.nn.init.normal_(supernet.head.weight)
    derived.head.weight.data.copy_(supernet.head.weight)
    rainy = torch.rand(1, 3, 24, 20, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(supernet.eval()(rainy), derived(rainy))


def test_own_parts_go_the_whole_way_in_python(own, tmp_path):
    split = tiny.tiny_split(tmp_path / "pictures")
    terms = {"edges": 0.1, "decided": 0.01}
    loss = replace(tiny.SEARCH.loss, external="huber+ssim", terms=terms)
    settings = replace(tiny.SEARCH, loss=loss, eigenvalue_every=0)
    found = search(own, split, settings, runs_dir=tmp_path, progress=False)
    steps = [record for record in found.log if record["kind"] == "step"]
    assert all(np.isfinite(record["edges"]) for record in steps)
    assert all("decided" in record for record in steps if "arch" in record)
    mixed = [weights.detach().softmax(1) for weights in found.supernet.arch_parameters()]
    for figure in (
        draw.search_curves(found.log, own),
        draw.mixture(*mixed, own),
        draw.architecture(found.genotype),
        draw.architecture(everything(own)),
    ):
        figure.draw_without_rendering()

    recipe = replace(tiny.RETRAIN, loss=replace(tiny.RETRAIN.loss, external="huber", terms={"edges": 0.1}))
    trained = retrain(everything(own), split, recipe, runs_dir=tmp_path, progress=False)
    assert Genotype.load(tmp_path / "retrain" / "genotype.json") == everything(own)
    net = load(tmp_path / "retrain")
    picture = tiny.picture(3, 40)
    assert np.array_equal(derain(picture, net), derain(picture, trained.net))


def test_own_parts_are_derained_in_tiles(own):
    net = DerainNet(everything(own), seed=1).eval()
    torch.nn.init.normal_(net.head.weight)
    rainy = torch.rand(1, 3, 150, 130, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(derain_tiled(net, rainy, tile=32), net(rainy), rtol=0, atol=1e-5)


def command(*arguments, ok=True):
    done = subprocess.run(
        [sys.executable, "-m", "manas_lite", *map(str, arguments)], capture_output=True, text=True, timeout=300
    )
    assert (done.returncode == 0) == ok, done.stderr
    return done.stdout + done.stderr


def test_own_parts_go_the_whole_way_on_the_command_line(own_file, pairs, tmp_path):
    fast = ["--set", "epochs=2", "--set", "steps=2", "--set", "patch=16", "--set", "batch=2", "--threads", "1"]
    common = ["--import", own_file, "--data", pairs, "--runs-dir", tmp_path, *fast]
    own_loss = ["--set", "loss.external=huber+ssim", "--set", "loss.terms.edges=0.1"]
    space = ["--set", f"space.operations={','.join(OPERATIONS)}", "--set", f"space.modules={','.join(MODULES)}"]
    command("search", "--space", "smoke", *common, *own_loss, *space, "--set", "warmup=1")
    manifest = json.loads((tmp_path / "search" / "manifest.json").read_text())
    assert manifest["settings"]["loss"]["terms"] == {"edges": 0.1}
    assert manifest["space"]["modules"] == [*MODULES]
    command("retrain", "--genotype", tmp_path / "search", *common, *own_loss)
    out = tmp_path / "out.png"
    command("derain", pairs / "rainy" / "0.png", out, "--weights", tmp_path / "retrain", "--import", own_file)
    assert read_image(out).shape == (32, 32, 3)
    refused = command("derain", pairs / "rainy" / "1.png", out, "--weights", tmp_path / "retrain", ok=False)
    assert "import the file that registers one of your own first" in refused
    assert "Traceback" not in refused
    refused = command("search", "--space", "smoke", "--set", "loss.terms.edges=1", ok=False)
    assert "unknown loss term 'edges'" in refused


@pytest.mark.slow
def test_own_parts_are_exported(own, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    from manas_lite.photos.onnx_export import export_onnx

    net = DerainNet(everything(own), seed=1).eval()
    path = export_onnx(net, tmp_path / "own.onnx")
    rainy = torch.rand(1, 3, 33, 47)
    (found,) = onnxruntime.InferenceSession(path).run(None, {"rainy": rainy.numpy()})
    assert np.abs(found - net(rainy).clamp(0, 1).detach().numpy()).max() < 1e-4


def test_a_name_belongs_to_one_class(own):
    with pytest.raises(ValueError, match="'SE' is registered already"):
        ops.operation("SE")(type("Other", (ops.Gate,), {}))
    with pytest.raises(ValueError, match="cannot name a candidate"):
        ops.operation("a.b")(type("Other", (ops.Gate,), {}))
    with pytest.raises(ValueError, match="'internal' is a published term"):
        losses.term("internal")


@pytest.mark.parametrize("needs", ["mean", frozenset({"means"}), {"mean"}])
def test_what_a_gate_needs_is_checked_when_it_is_registered(own, needs):
    with pytest.raises(ValueError, match=r"own: needs is .* a frozenset of mean, peak, profile"):
        ops.operation("own")(type("Own", (ops.Gate,), {"needs": needs}))


def test_a_loss_term_returns_one_number(own):
    losses.term("maps")(lambda outputs, clean: outputs)
    loss = losses.DerainLoss(losses.LossSettings(terms={"maps": 0.1}))
    with pytest.raises(ValueError, match=r"'maps' must return one number, it returned \(1, 2, 3, 16, 16\)"):
        loss(torch.rand(1, 2, 3, 16, 16), torch.rand(1, 3, 16, 16), epoch=0)
