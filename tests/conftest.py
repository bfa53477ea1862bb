"""Shared fixtures: thread count fixed, real data found or loudly skipped."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

settings.register_profile("kit", deadline=None)  # a busy machine is no fault
settings.load_profile("kit")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True, scope="session")
def _fixed_threads():
    """Bit-exact tests need one thread count; networks this small are fastest with one."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory):
    """What tests see of pictures is kept apart from what the user has seen."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MANAS_LITE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real deraining samples: $MANAS_LITE_DATA, or `shared/data` beside the clone."""
    path = Path(os.environ.get("MANAS_LITE_DATA", REPOSITORY.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"real deraining samples not found at {path}: set MANAS_LITE_DATA")
    return path
