"""The course's tests need its extra; `project.py` of the tests' root is shared."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
for needed in ("papermill", "jupytext", "nbval"):
    pytest.importorskip(needed, reason="the course's extra is not installed: pip install 'manas_lite[course]'")
