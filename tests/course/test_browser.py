"""A reader's hand: JupyterLab served on loopback, notebook 08 opened in Chromium, the slider moved, the picture seen
to change. The screenshot is kept as an artefact: in $MANAS_LITE_ARTEFACTS, else in `runs/browser` of the clone.

And a lecturer's eye: the slides of every notebook, opened from the disk."""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from project import ROOT
from test_slides import executed

from tools.course import contents, slides

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install 'manas_lite[dev]'")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no browser to test with: apt-get install chromium chromium-driver"
)
SLIDER = ".jupyter-widgets .noUi-handle"
PICTURE = ".jp-OutputArea img.widget-image, .jp-OutputArea img.jupyter-widgets"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[str]:
    """JupyterLab on a free port of loopback over a folder that holds notebook 08; yields its address."""
    shutil.copy(contents.find("08").path, tmp_path / "08.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--no-browser", "--allow-root", f"--port={port}", "--ip=127.0.0.1", f"--ServerApp.root_dir={tmp_path}"]
    options += ["--IdentityProvider.token=", "--ServerApp.password=", "--LabApp.extension_manager=readonly"]
    home = {"HOME": str(tmp_path / "home"), "JUPYTER_CONFIG_DIR": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    with open(tmp_path / "server.txt", "wb") as log:
        command = [sys.executable, "-m", "jupyterlab", *options]
        process = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, **home}, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline and process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        else:
            pytest.fail("JupyterLab did not start:\n" + (tmp_path / "server.txt").read_text()[-2000:])
        yield f"http://127.0.0.1:{port}/lab/tree/08.ipynb?reset"
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture
def browser() -> Iterator["webdriver.Chrome"]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"):
        options.add_argument(argument)
    options.add_argument("--window-size=1300,1400")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


def shown(browser: "webdriver.Chrome") -> str:
    """A digest of the picture that the widget shows, as its bytes came to the browser; empty while there is none."""
    script = """
        const done = arguments[1], image = document.querySelector(arguments[0]);
        if (!image || !image.src) return done("");
        fetch(image.src).then(r => r.arrayBuffer()).then(b => done(Array.from(new Uint8Array(b)).join()));
    """
    data = browser.execute_async_script(script, PICTURE)
    return hashlib.sha256(data.encode()).hexdigest() if data else ""


@pytest.mark.slow
@needs_browser
def test_moving_the_slider_of_notebook_08_changes_the_picture(lab: str, browser: "webdriver.Chrome") -> None:
    browser.set_script_timeout(60)
    browser.get(lab)
    wait = WebDriverWait(browser, 240, poll_frequency=0.5)
    wait.until(lambda b: b.find_elements(By.CSS_SELECTOR, ".jp-Notebook .jp-CodeCell"))
    wait.until(lambda b: "Idle" in b.page_source or b.find_elements(By.CSS_SELECTOR, "[data-status='idle']"))
    run_all(browser)
    wait.until(lambda b: b.find_elements(By.CSS_SELECTOR, SLIDER))
    before = wait.until(shown)
    handle = browser.find_elements(By.CSS_SELECTOR, SLIDER)[0]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", handle)
    browser.execute_script("arguments[0].focus()", handle)
    position = handle.get_attribute("aria-valuenow")
    for _ in range(15):
        browser.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    soon = WebDriverWait(browser, 60)
    soon.until(lambda b: b.find_elements(By.CSS_SELECTOR, SLIDER)[0].get_attribute("aria-valuenow") != position)
    soon.until(lambda b: shown(b) not in ("", before), "the slider moved, the picture did not change")
    keep(browser)
    errors = browser.find_elements(By.CSS_SELECTOR, "[data-mime-type='application/vnd.jupyter.stderr']")
    assert not [error.text for error in errors if "Traceback" in error.text]


def run_all(browser: "webdriver.Chrome") -> None:
    """The menu Run > Run All Cells, as a hand would choose it."""
    menu = WebDriverWait(browser, 60)
    item = menu.until(lambda b: [e for e in b.find_elements(By.CSS_SELECTOR, ".lm-MenuBar-item") if e.text == "Run"])
    item[0].click()
    entry = menu.until(
        lambda b: [e for e in b.find_elements(By.CSS_SELECTOR, ".lm-Menu-itemLabel") if e.text == "Run All Cells"]
    )
    entry[0].click()


def keep(browser: "webdriver.Chrome") -> None:
    folder = Path(os.environ.get("MANAS_LITE_ARTEFACTS", ROOT / "runs" / "browser"))
    folder.mkdir(parents=True, exist_ok=True)
    assert browser.save_screenshot(str(folder / "notebook_08.png"))
    facts = {"browser": browser.capabilities["browserVersion"], "notebook": "08"}
    (folder / "notebook_08.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")


LOOK = """
const slide = Reveal.getCurrentSlide(), said = (e) => e.closest("aside, .katex"), small = [];
for (const e of slide.querySelectorAll("*")) {
  if (said(e) || ![...e.childNodes].some((c) => c.nodeType === 3 && c.data.trim())) continue;
  if (parseFloat(getComputedStyle(e).fontSize) < 24) small.push(e.textContent.trim().slice(0, 40));
}
const parts = [...slide.children].filter((e) => e.tagName !== "ASIDE").map((e) => e.getBoundingClientRect());
return { small, heading: slide.innerText.slice(0, 40), last: Reveal.isLastSlide(),
  over: Math.max(0, ...parts.map((e) => e.bottom)) - innerHeight };
"""
"""What is too small for the last row on the slide that is shown, and how far it reaches below the screen."""


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("notebook", contents.notebooks(), ids=lambda n: n.stem)
def test_slides_are_legible_and_set_their_formulas_from_one_file(
    notebook: contents.Notebook, browser: "webdriver.Chrome", tmp_path: Path
) -> None:
    nbformat.write(executed(notebook), tmp_path / "run.ipynb")
    page = slides.write_slides(notebook, tmp_path / "run.ipynb", tmp_path / "slides.html")
    browser.set_window_size(1280, 860)
    browser.get(page.as_uri())
    WebDriverWait(browser, 120).until(lambda b: b.execute_script("return !!window.Reveal && Reveal.isReady()"))
    script = "return performance.getEntriesByType('resource').map(e => e.name).filter(n => /^https?:/.test(n))"
    assert browser.execute_script(script) == []
    formulas = browser.execute_script("return ['.katex', '.katex-error'].map(c => document.querySelectorAll(c).length)")
    assert formulas[1] == 0
    if any("$" in line for lines in slides.bullets(notebook.source).values() for line in lines):
        assert formulas[0] > 0
    browser.execute_script("Reveal.configure({ transition: 'none' })")
    seen = 0
    while True:
        found = browser.execute_script(LOOK)
        assert found["small"] == [], found
        if "NotImplementedError" not in browser.execute_script("return Reveal.getCurrentSlide().innerText"):
            assert found["over"] <= 0, found  # a long exercise scrolls
        seen += 1
        if found["last"]:
            break
        browser.execute_script("Reveal.next()")
    assert seen == browser.execute_script("return Reveal.getTotalSlides()")
