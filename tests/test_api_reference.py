"""The reference that `make api` writes: complete, described, and read without a network."""

import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
from project import ROOT

import manas_lite

pytest.importorskip("pdoc", reason="the extra `dev` is not installed")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("api")
    command = [sys.executable, str(ROOT / "scripts" / "api_reference.py"), str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Warn" not in done.stderr, done.stderr
    return folder


def entry(page: str, name: str) -> str:
    """Return the text of one name on a page, from its own heading to the next name's."""
    found = re.search(rf'<section id="{name}">.*?(?=<section id=|</main>)', page, re.DOTALL)
    assert found is not None, f"{name} has no entry"
    return found[0]


@pytest.mark.slow
def test_every_stable_name_has_an_entry_with_a_docstring(pages: Path) -> None:
    page = (pages / "manas_lite.html").read_text(encoding="utf-8")
    for name in manas_lite.__all__:
        if (pages / "manas_lite" / f"{name}.html").is_file():  # a module
            assert f'href="manas_lite/{name}.html"' in page
            continue
        text = re.search(r'<div class="docstring">(.*?)</div>', entry(page, name), re.DOTALL)
        assert text is not None, f"{name} has no docstring"
        assert len(re.sub(r"<[^>]+>", "", text[1]).split()) > 3, f"{name} has no docstring"


@pytest.mark.slow
def test_every_module_has_a_page_that_its_package_links(pages: Path) -> None:
    for info in pkgutil.walk_packages(manas_lite.__path__, "manas_lite."):
        if not info.name.endswith("__main__"):
            page = pages / f"{info.name.replace('.', '/')}.html"
            assert page.is_file(), info.name
            package, _, name = info.name.rpartition(".")
            above = pages / f"{package.replace('.', '/')}.html"
            assert f'{package.rpartition(".")[2]}/{name}.html"' in above.read_text(encoding="utf-8"), info.name


@pytest.mark.slow
def test_pages_load_nothing_from_elsewhere(pages: Path) -> None:
    for page in pages.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"<(?:script|link|img)[^>]+(?:src|href)=[\"']https?://", text), page.name
