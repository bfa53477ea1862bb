"""What the evidence scripts share: their training is `retrain`'s, and rows of two protocols never meet."""

from dataclasses import replace

import pytest
import tiny
import torch
from project import script

from manas_lite import DerainNet, retrain
from manas_lite.compute.runtime import Compute
from manas_lite.training.loop import training_batches

experiments, arms = script("experiments"), script("arms")


def test_training_in_memory_is_retraining_to_the_bit(tmp_path):
    recipe = replace(tiny.RETRAIN, epochs=1, steps=6, warmup=2, clip=1.0, seed=3)  # one epoch: nothing to choose
    split = tiny.tiny_split(tmp_path / "data")
    expected = retrain(tiny.GENOTYPE, split, recipe, runs_dir=tmp_path, name="run", progress=False).net.state_dict()
    compute = Compute(tiny.COMPUTE)
    with compute.session():
        batches = list(training_batches(split.train, recipe, seed=3, start=0))
        found = experiments.train(DerainNet(tiny.GENOTYPE, seed=3), batches, recipe, compute).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_training_in_memory_needs_an_average():
    with pytest.raises(ValueError, match="ema"):
        experiments.train(torch.nn.Identity(), [], replace(tiny.RETRAIN, ema=None), Compute(tiny.COMPUTE))


def test_rows_of_another_protocol_are_refused(tmp_path):
    path = tmp_path / "study" / "protocol.json"
    experiments.check_protocol(path, {"data": "here", "recipe": {"steps": 600, "betas": (0.5, 0.999)}})
    experiments.check_protocol(path, {"data": "here", "recipe": {"steps": 600, "betas": (0.5, 0.999)}})
    with pytest.raises(ValueError, match="another recipe"):
        experiments.check_protocol(path, {"data": "here", "recipe": {"steps": 2000, "betas": (0.5, 0.999)}})


def test_rows_survive_the_file(tmp_path):
    table = tmp_path / "new" / "table.csv"
    for k in range(3):
        experiments.append(table, {"arm": f"arm, {k}", "psnr": k + 0.5})
    experiments.rewrite(table, experiments.rows(table)[1:])
    assert experiments.rows(table) == [{"arm": "arm, 1", "psnr": "1.5"}, {"arm": "arm, 2", "psnr": "2.5"}]


def test_plain_has_the_flops_that_were_asked_for():
    flops = 1.9e9
    net = arms.Plain.of_cost(flops, seed=0)
    found = arms.count_flops(net.eval(), torch.zeros(1, 3, 256, 256))
    block = arms.count_flops(arms.Plain(2).eval(), torch.zeros(1, 3, 256, 256)) - arms.count_flops(
        arms.Plain(1).eval(), torch.zeros(1, 3, 256, 256)
    )
    assert abs(found - flops) <= block / 2
    picture = torch.rand(1, 3, 33, 47)
    assert torch.equal(net(picture), picture)  # untrained it takes nothing off, at any size


def test_arms_of_one_seed_share_batches_and_size(tmp_path, monkeypatch):
    found = type("Found", (), {"genotype": arms.Genotype.random(arms.SPACE, 5)})
    study = arms.Study(tiny.tiny_split(tmp_path), 1, tmp_path)
    study.__dict__["searches"] = dict.fromkeys(arms.SEARCHES, (found, 10.0))
    for arm in arms.SAME_SIZE:
        net = next(study.networks(arm))
        assert net.genotype != found.genotype
        assert net.genotype.cost() == pytest.approx(found.genotype.cost(), rel=0.03)
    first = next(study.networks("random"))
    assert first.genotype != next(arms.Study(study.split, 2, tmp_path).networks("random")).genotype


def test_random_search_pays_no_less_than_the_search():
    study = arms.Study(None, 0, None)
    study.__dict__["searches"] = {"searched": (None, 10.0)}
    rows = [{"arm": "searched", "seed": "0", "seconds": "4"}, {"arm": "random", "seed": "0", "seconds": "8"}]
    assert arms.budget(study, rows) == 14
    assert arms.paid(rows, "random", 0) == 8 < arms.budget(study, rows)  # another one is trained
    assert arms.paid([*rows, rows[1]], "random", 0) == 16 >= arms.budget(study, rows)
    assert arms.paid(rows, "random", 1) == 0
