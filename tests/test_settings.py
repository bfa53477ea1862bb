"""Settings: what is read, what is refused, and in which words."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from manas_lite.runs.settings import Difference, difference, override, parse, to_dict


@dataclass(frozen=True)
class Optimiser:
    rate: float = 0.1
    kind: Literal["sgd", "adam"] = "sgd"
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float | None = None

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise ValueError(f"rate is {self.rate}: it must be above 0")


@dataclass(frozen=True)
class Run:
    name: str
    epochs: int = 3
    channels: tuple[int, ...] = (32, 64)
    residual: bool = True
    weights: Optimiser = field(default_factory=Optimiser)
    arch: Optimiser | None = None
    folder: Path | None = None
    rains: dict[str, float] = field(default_factory=dict)


def test_defaults_and_conversions():
    run = parse(Run, {"name": "a", "channels": [8, 16, 32], "weights": {"rate": 1, "betas": [0, 1]}, "folder": "x/y"})
    assert run == Run("a", 3, (8, 16, 32), True, Optimiser(1.0, betas=(0.0, 1.0)), folder=Path("x/y"))
    assert isinstance(run.weights.rate, float)
    assert isinstance(run.channels, tuple)


def test_built_settings_are_taken_as_they_are():
    weights = Optimiser(rate=0.5)
    assert parse(Run, {"name": "a", "weights": weights, "arch": None}).weights is weights


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (
            {"name": "a", "epoch": 3},
            "unknown setting 'epoch': did you mean 'epochs'? Valid: name, epochs, channels",
        ),
        (
            {"name": "a", "weights": {"lr": 1.0}},
            "unknown setting 'weights.lr': did you mean 'rate'? Valid: rate, kind",
        ),
        ({"name": "a", "arch": {"raet": 1.0}}, "unknown setting 'arch.raet': did you mean 'rate'?"),
        ({"name": "a", 7: 1}, "unknown setting '7'"),
        ({}, "missing setting 'name'"),
        ({"name": 3}, "name: expected str, got int 3"),
        ({"name": None}, "name: expected str, got None"),
        ({"name": "a", "epochs": 3.0}, "epochs: expected int, got float 3.0"),
        ({"name": "a", "epochs": True}, "epochs: expected int, got bool True"),
        ({"name": "a", "epochs": "3"}, "epochs: expected int, got str '3'"),
        ({"name": "a", "residual": 1}, "residual: expected bool, got int 1"),
        ({"name": "a", "channels": 32}, "channels: expected tuple[int, ...], got int 32"),
        ({"name": "a", "channels": "32"}, "channels: expected tuple[int, ...], got str '32'"),
        ({"name": "a", "channels": [32, "64"]}, "channels[1]: expected int, got str '64'"),
        ({"name": "a", "weights": {"rate": "1e-3"}}, "weights.rate: expected float, got str '1e-3'"),
        ({"name": "a", "weights": {"rate": True}}, "weights.rate: expected float, got bool True"),
        ({"name": "a", "weights": {"rate": float("nan")}}, "weights.rate: expected a finite number, got nan"),
        (
            {"name": "a", "weights": {"betas": [0.9]}},
            "weights.betas: expected 2 values, tuple[float, float], got 1",
        ),
        ({"name": "a", "weights": {"clip": "no"}}, "weights.clip: expected float or None, got str 'no'"),
        (
            {"name": "a", "weights": {"kind": "adamw"}},
            "weights.kind: unknown choice 'adamw': did you mean 'adam'?",
        ),
        ({"name": "a", "weights": {"rate": -1.0}}, "weights: rate is -1.0: it must be above 0"),
        ({"name": "a", "weights": 3}, "weights: expected a mapping of settings, got int 3"),
        ({"name": "a", "rains": {"light": "x"}}, "rains.light: expected float, got str 'x'"),
        ({"name": "a", "rains": {1: 2.0}}, "rains: expected dict[str, float], got dict"),
        ("name: a", "Run: expected a mapping of settings, got str"),
    ],
)
def test_mistakes_are_named(mapping: Any, message: str):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the message is compared below
        parse(Run, mapping)
    assert str(error.value).startswith(message)


def test_where_prefixes_every_name():
    with pytest.raises(ValueError, match=r"^unknown setting 'search\.raet': did you mean 'rate'\?"):
        parse(Optimiser, {"raet": 1.0}, where="search")
    with pytest.raises(ValueError, match=r"^search: rate is 0\.0"):
        parse(Optimiser, {"rate": 0.0}, where="search")


def test_yaml_that_reads_numbers_as_text_is_cast_by_field():
    written = yaml.safe_load("{name: '3', epochs: '2', residual: 'off', weights: {rate: 1e-3, clip: none}}")
    assert written["weights"]["rate"] == "1e-3"  # why the switch exists: YAML wants 1.0e-3
    run = parse(Run, written, text=True)
    assert run == Run("3", 2, residual=False, weights=Optimiser(1e-3))


@given(
    st.builds(
        Run,
        name=st.text(),
        epochs=st.integers(),
        channels=st.lists(st.integers()).map(tuple),
        residual=st.booleans(),
        weights=st.builds(
            Optimiser,
            rate=st.floats(1e-9, 1e9),
            kind=st.sampled_from(["sgd", "adam"]),
            betas=st.tuples(st.floats(0, 1), st.floats(0, 1)),
            clip=st.none() | st.floats(0, 1e9),
        ),
        arch=st.none() | st.builds(Optimiser, rate=st.floats(1e-9, 1e9)),
        folder=st.none() | st.just(Path("runs/demo")),
        rains=st.dictionaries(st.text(), st.floats(0, 1)),
    )
)
def test_settings_survive_json(run: Run):
    written = json.loads(json.dumps(to_dict(run), allow_nan=False))
    assert parse(Run, written) == run
    assert difference(run, written) == []


# --- overrides ---


def test_overrides_are_cast_by_field():
    run = Run("a", arch=Optimiser())
    changed = override(
        run,
        [
            "epochs=7",
            "weights.rate=1e-3",
            "weights.kind=adam",
            "weights.clip=2",
            "arch.betas=(0.5, 0.999)",
            "channels=8,16",
            "residual=no",
            "folder=out",
            "name=b=c",
        ],
    )
    expected = Run(
        "b=c",
        7,
        (8, 16),
        False,
        Optimiser(1e-3, "adam", clip=2.0),
        Optimiser(betas=(0.5, 0.999)),
        Path("out"),
    )
    assert changed == expected
    assert run == Run("a", arch=Optimiser())
    assert override(changed, ["weights.clip=none"]).weights.clip is None


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("epochs", "cannot read 'epochs': write key=value"),
        ("epoch=3", "unknown setting 'epoch': did you mean 'epochs'?"),
        ("weights.lr=3", "unknown setting 'weights.lr': did you mean 'rate'?"),
        ("epochs=2.5", "epochs: expected int, got str '2.5'"),
        ("residual=maybe", "residual: expected bool, got str 'maybe'"),
        ("weights.rate=fast", "weights.rate: expected float, got str 'fast'"),
        ("weights.rate=inf", "weights.rate: expected a finite number, got inf"),
        ("weights.rate=-1", "weights: rate is -1.0"),
        ("weights.kind=sdg", "weights.kind: unknown choice 'sdg': did you mean 'sgd'?"),
        ("weights=fast", "weights: a group of settings cannot be set from text; set one of weights.rate, "),
        ("epochs.rate=1", "epochs: it holds no settings of its own"),
    ],
)
def test_bad_overrides_are_named(assignment: str, message: str):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the message is compared below
        override(Run("a"), [assignment])
    assert str(error.value).startswith(message)


# --- differences ---


def test_differences_are_listed_by_field():
    here, there = Run("a", weights=Optimiser(0.01)), Run("a", epochs=4, weights=Optimiser(0.1, clip=1.0))
    found = difference(here, there)
    assert found == [
        Difference("epochs", 3, 4),
        Difference("weights.rate", 0.01, 0.1),
        Difference("weights.clip", None, 1.0),
    ]
    assert str(found[1]) == "weights.rate 0.01 here, 0.1 there"
    assert difference(here, here) == []


def test_differences_of_groups_and_absent_fields():
    assert difference({"a": 1}, {"b": True}) == [
        Difference("a", 1, "absent"),
        Difference("b", "absent", True),
    ]
    assert difference({"a": 1}, {"a": True}) == [Difference("a", 1, True)]
    assert difference(Run("a"), to_dict(Run("a", arch=Optimiser())))[0].field == "arch"


def test_only_dataclasses_are_settings():
    with pytest.raises(ValueError, match="expected a settings dataclass, got dict"):
        to_dict({"a": 1})
