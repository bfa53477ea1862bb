"""The course as a site: every page and picture is there, every link leads somewhere, and no other host is asked."""

import base64
import io
import posixpath
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from PIL import Image
from project import ROOT
from test_experiments import script

from tools.course import contents, runner, slides, sources

pytest.importorskip("sphinx", reason="the extra `site` is not installed")
site = script("build_site")
NOTEBOOKS = contents.notebooks()
LOADED = {"script": ("src",), "img": ("src", "srcset"), "source": ("src", "srcset"), "iframe": ("src",)}
LOADED |= {"link": ("href",), "video": ("src", "poster"), "audio": ("src",), "object": ("data",), "embed": ("src",)}


def picture(colour: str = "red") -> str:
    data = io.BytesIO()
    Image.new("RGB", (60, 40), colour).save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode()


def executed(notebook: contents.Notebook) -> Any:
    """The solution version as if it had run: text, a picture, a widget and the course's own records from every cell."""
    from nbformat.v4 import new_output

    built = sources.build(notebook, "solution")
    for cell in built.cells:
        if cell.cell_type == "code":
            widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "0"}}
            record = {"application/vnd.manas-lite.check+json": {"passed": True}, "text/plain": "passed"}
            cell.outputs = [new_output("stream", text=f"printed by {notebook.number}\n")]
            cell.outputs += [new_output("display_data", data) for data in ({"image/png": picture()}, widget, record)]
    built.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    return built


# --- the pages, before Sphinx reads them ---


@pytest.mark.parametrize("notebook", NOTEBOOKS[:2], ids=lambda n: n.stem)
def test_a_page_shows_outputs_and_folds_answers(notebook: contents.Notebook) -> None:
    page = site.page_of(executed(notebook), "blank.ipynb")
    solution = sources.build(notebook, "solution").cells
    answers = [cell.source for cell in solution if "exercise" in sources.tags(cell)]
    assert answers
    for cell in page.cells:
        if cell.cell_type != "code":
            continue
        assert [output.output_type for output in cell.outputs] == ["stream", "display_data", "display_data"]
        assert [set(output.get("data", {})) for output in cell.outputs[1:]] == [{"image/png"}, {"text/plain"}]
        if cell.source.startswith("# @title Set-up"):
            assert sources.tags(cell) == ["remove-cell"]
        else:
            folded = cell.source in answers or cell.source.startswith("# @title")
            assert sources.tags(cell) == (["hide-input"] if folded else [])
    assert "widgets" not in page.metadata
    assert "<to_fill_in/blank.ipynb>" in page.cells[0].source


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A clone of a few pages, to link from and to at will."""
    for name, text in {
        "README.md": "# Home\n",
        "docs/one.md": "# One\n\n## A part\n",
        "data/table.csv": "1\n",
        "tables/README.md": "# Tables\n",
        "manas_lite/losses.py": "",
        "scripts/other.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("link", "shown", "carried"),
    [
        ("../README.md", "../index.md", "README.md"),
        ("one.md#a-part", "one.md#a-part", "docs/one.md"),
        ("../data/table.csv", "../data/table.csv", "data/table.csv"),
        ("../tables", "../tables/README.md", "tables/README.md"),
        ("../manas_lite/losses.py", "../api/manas_lite/losses.md", None),
        ("../scripts/other.py", "../scripts/other.py", "scripts/other.py"),
    ],
)
def test_links_are_those_of_the_site(root: Path, link: str, shown: str, carried: str | None) -> None:
    text, found = site._linked(f"See [it]({link}), or ![it]({link}).", "docs/two.md", root, {"manas_lite.losses"})
    assert text == f"See [it]({shown}), or ![it]({shown})."
    assert found == ([carried] * 2 if carried else [])


@pytest.mark.parametrize(
    "text", ["[a](https://x.org/README.md)", "[a](#part)", "```\n[a](nowhere.md)\n```", "f(a)[b](c d)"]
)
def test_what_leads_elsewhere_or_is_code_is_left_alone(root: Path, text: str) -> None:
    assert site._linked(text, "docs/two.md", root, set()) == (text, [])


def test_a_link_to_nothing_is_named(root: Path) -> None:
    with pytest.raises(site.BuildError, match=r"docs/two\.md links nowhere\.md"):
        site._linked("[a](nowhere.md)", "docs/two.md", root, set())


def test_a_notebook_without_a_fitting_copy_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    def run(notebook: contents.Notebook, **given: Any) -> Any:
        ran.append((notebook.number, given["preset"]))
        return runner.Outcome(notebook.stem, "smoke", {}, "failed", "no luck", 0, 0, "", tmp_path)

    monkeypatch.setattr(site.runner, "run", run)
    with pytest.raises(site.BuildError, match=r"00_start_here failed \(no luck\)"):
        site.executed(NOTEBOOKS[0], tmp_path, "smoke")
    assert ran == [("00", "smoke")]
    monkeypatch.setattr(site.slides, "unfit", lambda notebook, copy: "")
    assert site.executed(NOTEBOOKS[1], tmp_path, "smoke") == tmp_path / f"{NOTEBOOKS[1].stem}.ipynb"
    assert len(ran) == 1


def test_every_page_of_docs_stands_in_a_section() -> None:
    pages = {path.relative_to(ROOT).as_posix(): "" for path in (ROOT / "docs").glob("*.md")}
    made = site._sections({"index.md": "# Home\n", "README.zh-CN.md": "# 中文\n", "docs/never_named.md": "", **pages})
    listed = Counter(name for text in made.values() for name in re.findall(r"^/(.+)$", text, re.MULTILINE))
    assert listed == Counter([*pages, "docs/never_named.md"])
    assert "/docs/never_named.md" in made["project.md"]


# --- the site ---


class Page(HTMLParser):
    """The ids of a page, what it links, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.ids |= {value for key in ("id", "name") if (value := given.get(key))}
        self.links += [given["href"] or ""] if tag == "a" and "href" in given else []
        self.loads += [value for key in LOADED.get(tag, ()) if (value := given.get(key))]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of notebooks that look as if they had run."""
    folder = tmp_path_factory.mktemp("site")
    copies = {notebook.stem: folder / notebook.path.name for notebook in NOTEBOOKS}
    for notebook in NOTEBOOKS:
        nbformat.write(executed(notebook), copies[notebook.stem])
    site.assemble(folder / "source", copies)
    site.build(folder / "source", folder / "out")
    return folder / "out"


@pytest.fixture(scope="module")
def pages(built: Path) -> dict[str, Page]:
    found = built.rglob("*.html")
    return {path.relative_to(built).as_posix(): Page(path.read_text(encoding="utf-8")) for path in found}


@pytest.mark.slow
def test_every_link_leads_to_a_file_and_a_place_in_it(built: Path, pages: dict[str, Page]) -> None:
    broken, checked = [], 0
    for name, page in pages.items():
        for link in page.links + page.loads:
            to = urlsplit(link)
            if to.scheme or to.netloc:
                continue
            checked += 1
            target = posixpath.normpath(str(PurePosixPath(name).parent / unquote(to.path))) if to.path else name
            place = unquote(to.fragment)
            if not (built / target).is_file() or (place and target in pages and place not in pages[target].ids):
                broken.append(f"{name}: {link}")
    assert checked > 1000
    assert broken == []


@pytest.mark.slow
def test_nothing_is_loaded_from_another_host(built: Path, pages: dict[str, Page]) -> None:
    foreign = [f"{name}: {link}" for name, page in pages.items() for link in page.loads if re.match(r"(\w+:)?//", link)]
    loading = re.compile(r"""(?:url\(|@import|import\(|importScripts\(|fetch\()\s*["']?(?:https?:)?//[^"')]+""")
    for path in (*built.rglob("*.css"), *built.rglob("*.js"), *built.rglob("*.html")):
        foreign += [f"{path.name}: {found}" for found in loading.findall(path.read_text(encoding="utf-8"))]
    assert foreign == []


@pytest.mark.slow
def test_every_notebook_and_module_has_its_page(built: Path, pages: dict[str, Page]) -> None:
    for notebook in NOTEBOOKS:
        name = f"notebooks/{notebook.stem}.html"
        text = (built / name).read_text(encoding="utf-8")
        assert f"printed by {notebook.number}" in text
        assert any(load.startswith("../_images/") for load in pages[name].loads)
    names = {path.relative_to(ROOT).with_suffix("") for path in (ROOT / "manas_lite").rglob("*.py")}
    plain = {name for name in names if not name.name.startswith("__")}
    assert {f"api/{name.as_posix()}.html" for name in plain} <= set(pages)
    assert {"index.html", "search.html", "docs/results.html", "README.zh-CN.html"} <= set(pages)
    assert "printed by 00" in (built / "notebooks" / "00_start_here.zh-CN.html").read_text(encoding="utf-8")


webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install 'manas_lite[dev]'")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium that finds no host by its name."""
    if not (CHROMIUM and DRIVER):
        pytest.skip("no browser to test with: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


def wait(browser: Any, question: str) -> Any:
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 60).until(lambda driver: driver.execute_script(question))


@pytest.mark.slow
def test_in_a_browser_without_a_network_formulas_are_set_and_pictures_shown(built: Path, browser: Any) -> None:
    browser.get((built / "notebooks" / "03_bilevel_search.html").as_uri())
    assert wait(browser, "return document.querySelectorAll('.math .katex').length") > 20
    assert browser.execute_script("return document.querySelectorAll('.katex-error').length") == 0
    assert wait(browser, "return [...document.images].every(image => image.complete && image.naturalWidth > 0)")
    # what is asked of another host finds no address, which is logged as severe
    severe = [line["message"] for line in browser.get_log("browser") if line["level"] == "SEVERE"]
    assert severe == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "page"),
    [("hypergradient", "api/manas_lite/bilevel.html"), ("Pareto", "notebooks/10_figures.html")],
)
def test_the_search_finds_notebooks_and_the_reference(built: Path, browser: Any, words: str, page: str) -> None:
    browser.get(f"{(built / 'search.html').as_uri()}?q={words}")
    found = "return [...document.querySelectorAll('#search-results a')].map(link => link.getAttribute('href'))"
    assert wait(browser, f"{found}.some(link => link.startsWith('{page}'))"), browser.execute_script(found)


@pytest.mark.slow
def test_dark_mode_is_dark_and_a_phone_scrolls_one_way(built: Path, browser: Any) -> None:
    shade = "return getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).slice(0, 3).map(Number)"
    for name in ("index.html", "api/manas_lite/losses.html", "notebooks/00_start_here.html"):
        browser.set_window_size(420, 900)
        browser.get((built / name).as_uri())
        assert wait(browser, "return document.documentElement.scrollWidth <= window.innerWidth"), name
        for mode, dark in (("dark", True), ("light", False)):
            browser.execute_script(f"document.documentElement.dataset.theme = '{mode}'")
            assert (sum(browser.execute_script(shade)) < 200) == dark


def test_slides_hold_the_files_that_set_formulas() -> None:
    """The site takes KaTeX from there."""
    names = {path.name for path in slides.KATEX.iterdir()}
    assert {"katex.min.js", "auto-render.min.js", "katex.min.css", "LICENSE"} <= names
    style = (slides.KATEX / "katex.min.css").read_text(encoding="utf-8")
    assert set(re.findall(r"url\(fonts/([\w-]+\.woff2)\)", style)) == {
        name for name in names if name.endswith(".woff2")
    }
