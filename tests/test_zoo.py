"""Shipped models: found by name, checked against their cards, and what their result files say."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from project import script
from safetensors.torch import load_file

from manas_lite import DerainNet, Genotype, SearchSpace, load
from manas_lite.photos import zoo
from manas_lite.runs.checkpoint import CheckpointError, sha256_of

SPACE = SearchSpace.preset("smoke")
SelfEnsemble = script("train_models").SelfEnsemble


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A package that ships one model, called `small`."""
    folder = tmp_path / "models" / "small"
    folder.mkdir(parents=True)
    net = DerainNet(Genotype.hand_made(SPACE), seed=3)
    zoo.save_network(folder, net)
    (folder / "card.json").write_text(json.dumps({"sha256": sha256_of(folder / zoo.WEIGHTS)}))
    monkeypatch.setattr(zoo, "SHIPPED", tmp_path / "models")
    return folder, net


def test_shipped_model_is_found_by_name(shipped):
    _, net = shipped
    x = torch.rand(1, 3, 21, 30)
    assert torch.equal(load("small")(x), net.eval()(x))


def test_shipped_model_with_other_weights_is_refused(shipped):
    folder, _ = shipped
    zoo.save_network(folder, DerainNet(Genotype.hand_made(SPACE), seed=4))
    with pytest.raises(CheckpointError, match="its card states"):
        load("small")


def test_unknown_model_names_the_shipped_ones(shipped):
    with pytest.raises(FileNotFoundError, match="shipped models: small"):
        load("rain-litee")


def test_half_a_model_is_refused(shipped):
    folder, _ = shipped
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(FileNotFoundError):
        load("small")


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_half_precision_is_half_a_file_and_rounds_each_weight(tmp_path, norm):
    net = DerainNet(Genotype.hand_made(replace(SPACE, norm=norm)), seed=3)
    sizes = {}
    for half in (False, True):
        (tmp_path / str(half)).mkdir()
        zoo.save_network(tmp_path / str(half), net, half=half)
        sizes[half] = sum(len(v.numpy().tobytes()) for v in load_file(tmp_path / str(half) / zoo.WEIGHTS).values())
    assert sizes[True] < 0.52 * sizes[False]
    found = load(tmp_path / "True").state_dict()
    for name, value in net.state_dict().items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value.half().to(value.dtype))


@pytest.mark.parametrize("symmetries", [8, 4, 2])
def test_self_ensemble_commutes_with_the_flips_and_turns_that_it_takes(symmetries):
    net = DerainNet(Genotype.hand_made(SPACE), seed=0).double().eval()
    torch.nn.init.normal_(net.head.weight, std=0.1, generator=torch.Generator().manual_seed(0))
    both, x = SelfEnsemble(net, symmetries), torch.rand(1, 3, 24, 16, dtype=torch.float64)
    with torch.no_grad():
        plain = both(x)
        assert (plain - net(x)).abs().max() > 1e-4
        same = set()
        for turns in range(4):
            for flip in (False, True):
                turned = torch.rot90(x, turns, (2, 3))
                turned = turned.flip(3) if flip else turned
                back = both(turned).flip(3) if flip else both(turned)
                if torch.allclose(torch.rot90(back, -turns, (2, 3)), plain, atol=1e-12):
                    same.add((turns, flip))
        flips = {(turns, flip) for turns in {8: range(4), 4: (0, 2), 2: (0,)}[symmetries] for flip in (False, True)}
        assert same == flips


def test_self_ensemble_of_the_identity_is_the_identity():
    x = torch.rand(2, 3, 7, 9)
    assert torch.allclose(SelfEnsemble(torch.nn.Identity())(x), x)
