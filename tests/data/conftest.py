"""Fixtures for the tests of data."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from loopback import Loopback, loopback
from samples import save_pair


@pytest.fixture
def server() -> Iterator[Loopback]:
    with loopback() as running:
        yield running


@pytest.fixture
def pairs_folder(tmp_path: Path) -> Callable[..., Path]:
    """A function making a folder of `count` pairs in input/ and target/."""

    def make(count: int, name: str = "set", first: int = 0) -> Path:
        for i in range(first, first + count):
            save_pair(tmp_path / name / "input" / f"{i}.png", tmp_path / name / "target" / f"{i}.png", seed=i)
        return tmp_path / name

    return make
