"""What the evidence scripts share: their training is `retrain`'s, and rows of two protocols never meet."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from project import script

from manas_lite import DerainNet, retrain
from manas_lite.compute.runtime import Compute
from manas_lite.runs.progress import Progress
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


def study_of(seed: int, folder: Path, monkeypatch) -> arms.Study:
    """A study whose searches are done: they found one random architecture, in 10 CPU seconds."""
    found = type("Found", (), {"genotype": arms.Genotype.random(arms.SPACE, 5)})
    monkeypatch.setattr(arms.Study, "search", lambda self, arm: (found, 10.0))
    return arms.Study(tiny.tiny_split(folder), seed, folder)


def test_arms_have_the_same_flops_and_head(tmp_path, monkeypatch):
    study = study_of(1, tmp_path, monkeypatch)
    nets = {arm: next(study.networks(arm)).eval() for arm in ("random", "hand_made", "plain")}
    flops = {arm: arms.count_flops(net, torch.zeros(1, 3, 256, 256)) for arm, net in nets.items()}
    assert all(value == pytest.approx(arms.BUDGET, rel=0.08) for value in flops.values())
    assert nets["random"].genotype.cost("flops") <= arms.BUDGET
    assert next(study.networks("searched")).genotype == arms.Genotype.random(arms.SPACE, 5)
    other = next(study_of(2, tmp_path / "other", monkeypatch).networks("random"))
    assert other.genotype != nets["random"].genotype


def test_random_search_trains_until_it_has_paid_what_the_search_did(tmp_path, monkeypatch):
    """A training costs 4 s, the search 10 s: three random networks cost 12, and the fourth brings them to 16 of 14."""
    study, trained = study_of(0, tmp_path, monkeypatch), []
    monkeypatch.setattr(arms, "RESULTS", tmp_path)
    monkeypatch.setattr(arms.Study, "networks", lambda self, arm: itertools.repeat(None))

    def train(self, arm: str, net: None, candidate: int) -> dict:
        trained.append((arm, candidate))
        searching = 10.0 if arm in arms.SEARCHES else ""
        row = {"arm": arm, "seed": 0, "candidate": candidate, "seconds": 4.0, "search_seconds": searching}
        return row | {"images": {"a": 30.0}}

    monkeypatch.setattr(arms.Study, "train", train)
    arms.run_seed(study, Progress(len(arms.ARMS), "networks", show=False))
    assert [candidate for arm, candidate in trained if arm == "random"] == [0, 1, 2, 3]
    assert all(sum(arm == each for each, _ in trained) == 1 for arm in arms.ARMS if arm not in ("random", arms.BEST))
    count = len(trained)
    arms.run_seed(study, Progress(len(arms.ARMS), "networks", show=False))
    assert len(trained) == count  # all is done: nothing is searched or trained again
    assert arms.paid(experiments.rows(tmp_path / "runs.csv")[:1]) == 14
