"""Genotype: counts and names checked, JSON both ways, one name on every machine, seeded draws, named ones."""

import json
import os
import pickle
import subprocess
import sys
from collections import Counter
from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manas_lite.networks.costs import measure_costs
from manas_lite.networks.genotype import Genotype
from manas_lite.networks.modules import PUBLISHED_MODULES
from manas_lite.networks.ops import PUBLISHED_OPERATIONS
from manas_lite.networks.space import PRESETS, SearchSpace

SMOKE = SearchSpace.preset("smoke")
PAPER = SearchSpace.preset("paper")

spaces = st.builds(
    SearchSpace,
    channels=st.lists(st.sampled_from([4, 8, 12]), min_size=2, max_size=4).map(tuple),
    modules_per_cell=st.integers(1, 4),
    groups=st.sampled_from([1, 2, 4]),
    attention=st.booleans(),
    operations=st.lists(st.sampled_from(PUBLISHED_OPERATIONS), min_size=2, unique=True).map(tuple),
    allow_none=st.booleans(),
    stem=st.sampled_from(["bottleneck", "unshuffle"]),
    norm=st.sampled_from(["batch", "group", "none"]),
    residual=st.booleans(),
)


@given(spaces, st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_json_round_trip(space, seed):
    genotype = Genotype.random(space, seed)
    again = Genotype.from_json(genotype.to_json())
    assert again == genotype
    assert hash(again) == hash(genotype)
    assert again.to_json() == genotype.to_json()
    assert again.id == genotype.id


def test_json_is_versioned_and_plain():
    document = json.loads(Genotype.hand_made(SMOKE).to_json())
    assert document["format"] == "manas_lite.genotype"
    assert document["version"] == 1
    assert document["space"]["channels"] == list(SMOKE.channels)
    assert document["modules"] == ["parallel", "fusion"]
    assert document["edges"] == ["SE"] * 6


def test_layout_of_the_text_does_not_matter():
    genotype = Genotype.random(SMOKE, 1)
    document = json.loads(genotype.to_json())
    turned = {key: document[key] for key in reversed(document)}
    turned["space"] = {key: document["space"][key] for key in sorted(document["space"])}
    again = Genotype.from_json(json.dumps(turned, indent=4))
    assert again == genotype
    assert again.id == genotype.id


def test_the_name_of_an_architecture_stands():
    """Runs and released weights carry these names. If this fails, the JSON changed: raise its version."""
    space = SearchSpace((8, 16), 1, operations=("none", "SE", "CBAM"), norm="none", residual=True)
    assert Genotype.hand_made(space).id == "94180979517d"


def test_the_name_is_the_same_in_another_process(repository):
    genotype = Genotype.random(PAPER, 5)
    program = (
        "import sys; from manas_lite.networks.genotype import Genotype as G; print(G.from_json(sys.stdin.read()).id)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=genotype.to_json(),
        capture_output=True,
        text=True,
        check=True,
        cwd=repository,
        env={**os.environ, "PYTHONHASHSEED": "12345"},
    )
    assert done.stdout.strip() == genotype.id


def test_names_differ_where_genotypes_differ():
    drawn = {Genotype.random(SMOKE, seed) for seed in range(50)}
    others = {replace(g, space=replace(SMOKE, residual=not SMOKE.residual)) for g in drawn}
    assert len({g.id for g in drawn | others}) == len(drawn) + len(others) > 90


def test_frozen_and_usable_as_a_key():
    genotype = Genotype.hand_made(SMOKE)
    with pytest.raises(FrozenInstanceError):
        genotype.modules = ("fusion", "fusion")
    with pytest.raises(FrozenInstanceError):
        genotype.space.norm = "batch"
    assert {genotype: 1}[Genotype(SMOKE, list(genotype.modules), list(genotype.edges))] == 1


# --- drawing ---


def test_random_is_a_function_of_the_seed():
    assert Genotype.random(PAPER, 3) == Genotype.random(PAPER, 3)
    assert len({Genotype.random(PAPER, seed) for seed in range(20)}) == 20


def test_random_is_uniform_over_the_choices():
    drawn = [Genotype.random(PAPER, seed) for seed in range(200)]
    modules, edges = Counter(), Counter()
    for genotype in drawn:
        modules.update(genotype.modules)
        edges.update(genotype.edges)
    for counts, choices in ((modules, PUBLISHED_MODULES), (edges, PAPER.choices)):
        n, p = sum(counts.values()), 1 / len(choices)
        four_sigma = 4 * (n * p * (1 - p)) ** 0.5
        assert set(counts) == set(choices)
        assert all(abs(count - n * p) < four_sigma for count in counts.values())


def test_erratum_18_none_is_drawn_only_where_the_space_allows_it():
    allowed = replace(PAPER, allow_none=True)
    assert not any("none" in Genotype.random(PAPER, seed).edges for seed in range(50))
    assert any("none" in Genotype.random(allowed, seed).edges for seed in range(5))


# --- named ones ---


def test_named_genotypes():
    assert Genotype.all_parallel(PAPER).modules == ("parallel",) * 12
    assert Genotype.all_fusion(PAPER).modules == ("fusion",) * 12
    assert Genotype.hand_made(PAPER).modules == ("parallel", "parallel", "parallel", "fusion") * 3
    for named in (Genotype.all_parallel, Genotype.all_fusion, Genotype.hand_made):
        assert named(PAPER).edges == ("SE",) * 27
        assert named(PAPER, "CBAM").edges == ("CBAM",) * 27
        assert named(PAPER).space == PAPER


def test_no_attention_has_no_edges():
    genotype = Genotype.no_attention(PAPER)
    assert genotype.edges == ()
    assert genotype.modules == Genotype.hand_made(PAPER).modules
    assert genotype.space == replace(PAPER, attention=False)
    assert genotype.cost() < Genotype.hand_made(PAPER, "skip_connect").cost()


@pytest.mark.parametrize("name", PRESETS)
def test_cost_follows_the_choices(name):
    space = SearchSpace.preset(name)
    assert Genotype.all_fusion(space).cost() < Genotype.hand_made(space).cost()
    assert Genotype.hand_made(space).cost() < Genotype.all_parallel(space).cost()
    assert Genotype.all_parallel(space).cost() <= measure_costs(space).largest


# --- bad input ---


def text(**changes: object) -> str:
    return json.dumps({**json.loads(Genotype.hand_made(SMOKE).to_json()), **changes})


def space_text(**changes: object) -> str:
    return text(space={**json.loads(text())["space"], **changes})


def without(key: str) -> str:
    document = json.loads(text())
    del document[key]
    return json.dumps(document)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("", "the text is not JSON"),
        ("<html>", "the text is not JSON"),
        ("[1, 2]", "expected JSON with format 'manas_lite.genotype'"),
        ("{}", "expected JSON with format"),
        (text(format="darts"), "expected JSON with format"),
        (text(version=2), "genotype version 2: this package reads version 1"),
        (text(version=None), "genotype version None"),
        (without("version"), "genotype version None"),
        (text(version=True), "genotype version True: this package reads version 1"),
        (text(version=1.0), r"genotype version 1\.0: this package reads version 1"),
        (text(edgse=["SE"] * 6), "unknown setting 'genotype.edgse': did you mean 'edges'"),
        (text(version=2, more=1), "genotype version 2: this package reads version 1; a later one was written by a"),
        (text()[:-1] + ', "edges": []}', "the text is not JSON \\('edges' stands there twice"),
        (without("edges"), "missing setting 'genotype.edges'"),
        (without("space"), "missing setting 'genotype.space'"),
        (text(space=None), "space: expected a mapping of settings, got None"),
        (text(modules=3), r"genotype.modules: expected tuple\[str, ...\], got int 3"),
        (text(edges=None), r"genotype.edges: expected tuple\[str, ...\], got None"),
        (text(edges="SE"), r"genotype.edges: expected tuple\[str, ...\], got str 'SE'"),
        (text(edges=["SE"] * 5), "the space has 6 searched edges, the genotype 5"),
        (text(modules=["fusion"] * 3), "the space has 2 searched modules, the genotype 3"),
        (text(edges=["SE"] * 5 + ["ECA"]), "'ECA' is none of the space's edges: none, skip_connect"),
        (text(edges=["SE"] * 5 + [7]), r"genotype.edges\[5\]: expected str, got int 7"),
        (text(modules=["fusion", "Parallel"]), "'Parallel' is none of the space's modules: parallel, fusion"),
        (space_text(width=8), "unknown setting 'space.width'"),
        (space_text(norm="layer"), "unknown norm 'layer'"),
        (space_text(channels="8, 12"), r"space.channels: expected tuple\[int, ...\], got str '8, 12'"),
        (space_text(allow_none="no"), "space.allow_none: expected bool, got str 'no'"),
    ],
)
def test_a_bad_text_is_refused_by_name(broken, message):
    with pytest.raises(ValueError, match=message):
        Genotype.from_json(broken)


def test_operations_outside_the_space_are_refused():
    space = replace(SMOKE, operations=("skip_connect", "SE"))
    with pytest.raises(ValueError, match="'CBAM' is none of the space's edges: skip_connect, SE"):
        Genotype.hand_made(space, "CBAM")


def test_load_reads_what_was_written(tmp_path):
    genotype = Genotype.random(SMOKE, 0)
    path = tmp_path / "genotype.json"
    path.write_text(genotype.to_json(), encoding="utf-8")
    assert Genotype.load(path) == Genotype.load(str(path)) == genotype


def test_load_names_the_file_that_is_missing_or_something_else(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no genotype at .*none\.json: search\(\) writes"):
        Genotype.load(tmp_path / "none.json")
    with pytest.raises(FileNotFoundError, match="no genotype at"):
        Genotype.load(tmp_path)
    for name, content in {
        "pickle.json": pickle.dumps({"alpha": [1, 2]}),
        "weights.json": bytes(range(256)),
        "page.json": b"<!DOCTYPE html>",
        "short.json": text()[:100].encode(),
        "empty.json": b"",
    }.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ValueError, match=name):
            Genotype.load(path)


def test_a_pickle_is_not_executed(tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "sprung"),))

    path = tmp_path / "genotype.json"
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match=r"genotype\.json"):
        Genotype.load(path)
    assert not (tmp_path / "sprung").exists()
