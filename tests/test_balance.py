"""Who pulls at the architecture: parts that sum, a price that cannot decide alone, candidates that carry no weight."""

from dataclasses import replace

import pytest
import tiny
import torch

from manas_lite import SearchSpace, SuperNet, search
from manas_lite.losses import DerainLoss, LossSettings
from manas_lite.networks.costs import measure_costs
from manas_lite.training.balance import DECAY, Balance
from manas_lite.training.monitoring import decisions

SPACE = SearchSpace.preset("smoke")


def terms_of(net: SuperNet) -> dict:
    loss = DerainLoss(LossSettings(complexity_weight=0.5))
    return loss.architecture_terms(*net.logits(), *net.weights(), measure_costs(net.space))


def parts_of(net: SuperNet) -> dict:
    return {
        name: torch.autograd.grad(weight * value, net.arch_parameters(), retain_graph=True)
        for name, (weight, value) in terms_of(net).items()
    }


@pytest.fixture
def net():
    net = SuperNet(SPACE).double()
    generator = torch.Generator().manual_seed(0)
    for parameter in net.arch_parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator))
    return net


def images(net: SuperNet, seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in net.arch_parameters()]


def test_the_published_price_is_left_as_it_is_and_the_parts_are_logged(net):
    parts, image = parts_of(net), images(net, 1)
    whole = [i + sum(part[k] for part in parts.values()) for k, i in enumerate(image)]
    found, sizes = Balance(net.arch_parameters(), None)(whole, terms_of(net))
    assert all(torch.equal(a, b) for a, b in zip(found, whole, strict=True))
    for k, group in enumerate(("alpha", "beta")):
        assert sizes[f"{group}_image_pull"].item() == pytest.approx(image[k].norm().item())
        for name in ("complexity", "regularisation"):
            assert sizes[f"{group}_{name}_pull"].item() == pytest.approx(parts[name][k].norm().item())


def test_the_price_pulls_at_its_share_of_the_images_mean_pull(net):
    """Against a running mean by hand, over three steps."""
    parts, balance = parts_of(net), Balance(net.arch_parameters(), 0.2)
    mean = [torch.zeros_like(p) for p in net.arch_parameters()]
    for step in range(1, 4):
        image = images(net, step)
        whole = [i + sum(part[k] for part in parts.values()) for k, i in enumerate(image)]
        found, _ = balance(whole, terms_of(net))
        for k in range(2):
            mean[k] = DECAY * mean[k] + (1 - DECAY) * image[k]
            price = found[k] - image[k] - parts["regularisation"][k]
            expected = 0.2 * mean[k].norm() / (1 - DECAY**step)
            torch.testing.assert_close(price, parts["complexity"][k] / parts["complexity"][k].norm() * expected)


def test_images_that_only_make_noise_cannot_be_outvoted_by_their_size(net):
    """Pulls that cancel from step to step leave a price that is far smaller than one step's pull."""
    parts, balance = parts_of(net), Balance(net.arch_parameters(), 0.5)
    for step in range(200):
        image = [(-1) ** step * i for i in images(net, 1)]
        whole = [i + sum(part[k] for part in parts.values()) for k, i in enumerate(image)]
        found, _ = balance(whole, terms_of(net))
    price = found[0] - image[0] - parts["regularisation"][0]
    assert price.norm() < 0.05 * image[0].norm()


def test_what_is_masked_carries_no_weight_anywhere():
    plain, masked = SuperNet(SPACE), SuperNet(SPACE, masked=True)
    none = SPACE.operations.index("none")
    masked.beta.data[:, none] = 50.0
    assert masked.weights()[1][:, none].abs().max() == 0
    torch.testing.assert_close(masked.weights()[1].sum(1), torch.ones(len(SPACE.edge_branch)))
    others = [k for k in range(9) if k != none]
    expected = plain.beta[:, others].softmax(1)
    torch.testing.assert_close(masked.weights()[1][:, others], expected)
    total, terms = DerainLoss(LossSettings()).architecture(*masked.logits(), *masked.weights(), measure_costs(SPACE))
    gradients = torch.autograd.grad(total, masked.arch_parameters())
    assert all(torch.isfinite(value) for value in terms.values())
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert gradients[1][:, none].abs().max() == 0
    assert all(0 < record["weight"] <= 1 for record in decisions(masked, masked.derive()))
    allowed = SuperNet(replace(SPACE, allow_none=True), masked=True)
    assert allowed.weights()[1][:, none].min() > 0


def test_what_was_decided_is_listed_with_its_margin():
    net = SuperNet(SPACE)
    net.alpha.data.copy_(torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
    first, second, *edges = decisions(net, net.derive())
    p = torch.sigmoid(torch.tensor(2.0)).item()
    assert first == {
        "place": "module 0",
        "chosen": "parallel",
        "weight": pytest.approx(p, abs=1e-5),
        "against": "fusion",
        "margin": pytest.approx(2 * p - 1, abs=1e-5),
    }
    assert second["chosen"] == "fusion"
    net.beta.data[0, SPACE.operations.index("none")] = 5.0
    edge = decisions(net, net.derive())[2]
    assert edge["against"] == "none"
    assert edge["margin"] < 0  # what is derived did not have the largest weight
    assert len(edges) == len(SPACE.edge_branch)


def test_a_head_with_a_gain_lets_the_first_gradient_through():
    rainy = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for gain, silent in ((0.0, True), (0.1, False)):
        net = SuperNet(SPACE, head_gain=gain)
        gradients = torch.autograd.grad(net(rainy).square().mean(), net.arch_parameters())
        assert (max(g.abs().max() for g in gradients) == 0) == silent
    same = [SuperNet(SPACE, seed=3, head_gain=gain).stem.state_dict() for gain in (0.0, 0.1)]
    assert all(torch.equal(a, b) for a, b in zip(same[0].values(), same[1].values(), strict=True))


def test_a_search_with_all_switches_goes_on_where_it_was_cut(tmp_path, monkeypatch):
    from manas_lite.training.loop import Loop

    split = tiny.tiny_split(tmp_path / "pictures")
    settings = replace(tiny.SEARCH, price_share=0.2, mask_barred=True, head_gain=0.1, arch_batch=1, eigenvalue_every=0)
    whole = search(tiny.SPACE, split, settings, runs_dir=tmp_path / "whole", progress=False)
    save = Loop.save

    def cut(self: Loop, done: int, probe: torch.Tensor, **ended: bool) -> None:
        save(self, done, probe, **ended)
        if done == 8:
            raise KeyboardInterrupt

    monkeypatch.setattr(Loop, "save", cut)
    with pytest.raises(KeyboardInterrupt):
        search(tiny.SPACE, split, settings, runs_dir=tmp_path / "cut", progress=False)
    monkeypatch.undo()
    again = search(tiny.SPACE, split, settings, runs_dir=tmp_path / "cut", progress=False)
    assert again.log == whole.log
    assert torch.equal(again.supernet.alpha, whole.supernet.alpha)
    assert torch.equal(again.supernet.beta, whole.supernet.beta)
