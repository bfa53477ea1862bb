"""Retraining: chooses on whole validation pictures, keeps an average, and trains what it says."""

import dataclasses

import pytest
import tiny
import torch

from manas_lite.data import LeakError, Split, scene_loader
from manas_lite.losses import DerainLoss, LossSettings
from manas_lite.networks.genotype import Genotype
from manas_lite.networks.nets import DerainNet
from manas_lite.photos.zoo import fingerprint, load
from manas_lite.training.evaluation import evaluate
from manas_lite.training.loop import DivergedError, cosine
from manas_lite.training.retraining import Average, retrain
from manas_lite.training.schedules import RetrainSettings


@pytest.fixture(scope="module")
def split(tmp_path_factory) -> Split:
    return tiny.tiny_split(tmp_path_factory.mktemp("pictures"))


def run(split, tmp_path, name="retrain", genotype=tiny.GENOTYPE, **changes):
    settings = dataclasses.replace(tiny.RETRAIN, **changes)
    return retrain(genotype, split, settings, runs_dir=tmp_path, name=name, progress=False)


def test_learns_and_leaves_its_files(split, tmp_path):
    loss = LossSettings(external="l1", internal_weight=0)
    result = run(split, tmp_path, epochs=2, steps=40, batch=6, rate=5e-3, ema=None, loss=loss)
    losses = [r["external"] for r in result.log if r["kind"] == "step"]
    assert sum(losses[-20:]) < 0.8 * sum(losses[:20])
    for name in ("genotype.json", "weights.safetensors", "metrics.json", "manifest.json", "log.jsonl"):
        assert (result.path / name).stat().st_size > 0


def test_erratum_14_the_best_checkpoint_is_chosen_on_fixed_whole_pictures(split, tmp_path):
    result = run(split, tmp_path, epochs=5, rate=2e-2)
    scores = {r["epoch"]: r["val_psnr_rgb"] for r in result.log if r["kind"] == "epoch"}
    assert result.best_psnr == max(scores.values()) == scores[result.best_epoch]
    means = evaluate(result.net, split.val, conventions=["rgb"], measures=["psnr"]).means()
    assert means["psnr_rgb"] == pytest.approx(result.best_psnr, abs=1e-4)


def test_erratum_12_retraining_starts_from_json_and_weights_load_back(split, tmp_path):
    text = tiny.GENOTYPE.to_json()
    result = run(split, tmp_path, genotype=Genotype.from_json(text))
    again = load(result.path)
    assert again.genotype == tiny.GENOTYPE
    x = torch.rand(1, 3, 20, 30)
    assert torch.allclose(again(x), result.net(x), atol=1e-6)  # memory formats differ


def test_erratum_16_two_runs_with_one_seed_are_the_same(split, tmp_path):
    one, two, other = (run(split, tmp_path, n, seed=s) for n, s in (("one", 0), ("two", 0), ("other", 1)))
    assert one.log == two.log
    assert one.log != other.log
    for a, b in zip(one.net.parameters(), two.net.parameters(), strict=True):
        assert torch.equal(a, b)


def test_erratum_07_every_output_is_scored_against_its_own_scene(split, tmp_path, monkeypatch):
    """The batch that reaches the loss pairs R outputs with the clean picture of the same scene."""
    calls = []
    original = DerainLoss.__call__

    def spy(loss, outputs, clean, *, epoch):
        calls.append((outputs.shape, clean))
        return original(loss, outputs, clean, epoch=epoch)

    monkeypatch.setattr(DerainLoss, "__call__", spy)
    # an untrained residual network is the identity: outputs are the rainy pictures themselves
    loader = scene_loader(split.train, batch=2, patch=16, seed=0, steps=1)
    rainy, clean, _ = next(iter(loader)).to("cpu")
    net = DerainNet(tiny.GENOTYPE)
    outputs = net(rainy.flatten(0, 1)).unflatten(0, rainy.shape[:2])
    own = (outputs - clean[:, None]).abs().mean()
    swapped = (outputs - clean.flip(0)[:, None]).abs().mean()
    assert own < swapped
    run(split, tmp_path, epochs=1, steps=1)
    assert calls[0][0] == (2, 2, 3, 16, 16)
    assert torch.equal(calls[0][1], clean)


def test_one_to_one_trains_the_same_number_of_images(split, tmp_path, monkeypatch):
    seen = []
    original = DerainNet.forward
    monkeypatch.setattr(
        DerainNet,
        "forward",
        lambda net, x: (seen.append(len(x)) if net.training else None) or original(net, x),
    )
    run(split, tmp_path, "many", epochs=1)
    many, seen[:] = list(seen), []
    run(split, tmp_path, "one", epochs=1, multi_to_one=False)
    assert many == seen


def test_the_average_is_the_textbook_recursion():
    net = DerainNet(tiny.GENOTYPE)
    average = Average(net, 0.9)
    expected = {name: p.detach().clone() for name, p in net.named_parameters()}
    for step in range(5):
        with torch.no_grad():
            for p in net.parameters():
                p.add_(torch.randn_like(p))
        average.follow(net, step)
        decay = min(0.9, (1 + step) / (10 + step))
        for name, p in net.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * p.detach()
    for name, p in average.net.named_parameters():
        assert torch.allclose(p, expected[name], atol=1e-6)


def test_a_test_file_is_never_opened(split, tmp_path):
    with pytest.raises(LeakError, match=r"innocent\.png belongs to a sealed part"):
        run(tiny.leaking_split(split, tmp_path), tmp_path)


def test_a_broken_loss_stops_with_the_step(split, tmp_path):
    with pytest.raises(DivergedError, match=r"at step \d+"):
        run(split, tmp_path, rate=1e30, epochs=6)


def test_a_directory_of_another_genotype_is_refused(split, tmp_path):
    run(split, tmp_path)
    with pytest.raises(ValueError, match="genotype"):
        run(split, tmp_path, genotype=Genotype.all_parallel(tiny.SPACE))


def test_tuning_begins_where_its_start_is_and_ends_no_worse(split, tmp_path):
    first = run(split, tmp_path, epochs=3, rate=5e-3)
    still = retrain(
        tiny.GENOTYPE,
        split,
        dataclasses.replace(tiny.RETRAIN, epochs=1, steps=1, rate=0.0),
        start=first.net,
        runs_dir=tmp_path,
        name="still",
        progress=False,
    )
    for mine, theirs in zip(still.net.parameters(), first.net.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)
    wild = dataclasses.replace(tiny.RETRAIN, epochs=1, rate=1.0, clip=None)  # a rate that ruins any network
    ruined = retrain(tiny.GENOTYPE, split, wild, start=first.net, runs_dir=tmp_path, name="wild", progress=False)
    assert ruined.best_epoch == -1
    assert fingerprint(ruined.net) == fingerprint(first.net)


def test_tuning_is_continued_with_the_same_start_only(split, tmp_path):
    first, other = (DerainNet(tiny.GENOTYPE, seed=seed).eval() for seed in (1, 2))
    settings = dataclasses.replace(tiny.RETRAIN, epochs=1)
    retrain(tiny.GENOTYPE, split, settings, start=first, runs_dir=tmp_path, name="tuned", progress=False)
    again = retrain(tiny.GENOTYPE, split, settings, start=first, runs_dir=tmp_path, name="tuned", progress=False)
    assert len([r for r in again.log if r["kind"] == "epoch"]) == 1
    for start in (other, None):
        with pytest.raises(ValueError, match="start"):
            retrain(tiny.GENOTYPE, split, settings, start=start, runs_dir=tmp_path, name="tuned", progress=False)
    with pytest.raises(ValueError, match="not of"):
        retrain(
            Genotype.random(tiny.GENOTYPE.space, 1), split, settings, start=first, runs_dir=tmp_path, progress=False
        )


def test_cosine():
    assert cosine(0, 100, 1.0, 0.1) == pytest.approx(1.0)
    assert cosine(50, 100, 1.0, 0.0) == pytest.approx(0.5)
    assert cosine(100, 100, 1.0, 0.1) == pytest.approx(0.1)
    assert [cosine(s, 100, 1.0, 0.0, warmup=4) for s in range(4)] == pytest.approx([0.25, 0.5, 0.75, 1.0])


@pytest.mark.parametrize("change", [{"ema": 1.0}, {"epochs": 0}, {"val_scenes": 0}, {"clip": 0.0}, {"clip": -1.0}])
def test_impossible_settings(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        dataclasses.replace(tiny.RETRAIN, **change)


def test_unknown_preset():
    with pytest.raises(ValueError, match="choose one of"):
        RetrainSettings.preset("huge")
