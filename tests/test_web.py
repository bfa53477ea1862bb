"""The page that derains in the browser: its build, and in headless Chromium its pixels against `derain`."""

import gzip
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from project import ROOT
from test_experiments import script
from torch.nn import functional as F

from manas_lite import derain, load

build_web = script("build_web")
FAKE = {"ort.mjs": b"export {};", "ort.wasm.bin": bytes(1000)}
FACTS = {"about": "Made up.", "multiple": 4, "bytes_per_pixel": 100.0}


# --- the build ---


@pytest.mark.parametrize("names", [["a"], ["rain-b", "another one"]])
def test_the_page_lists_each_file_and_each_model(tmp_path: Path, names: list[str]) -> None:
    models = {name: (FACTS, name.encode() * 9) for name in names}
    sizes = build_web.write_page(tmp_path, FAKE, models)
    assert sizes == {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    contents = json.loads((tmp_path / "contents.json").read_text())
    assert [model["name"] for model in contents["models"]] == names
    for model in contents["models"]:
        assert gzip.decompress((tmp_path / model["file"]).read_bytes()) == model["name"].encode() * 9
    offline = (tmp_path / "offline.js").read_text()
    kept = set(json.loads(offline[offline.index("[") : offline.index("]") + 1]))
    assert kept == {"./", *sizes} - {"sw.js", "offline.js"}


def test_what_the_page_names_is_there(tmp_path: Path) -> None:
    sizes = build_web.write_page(tmp_path, FAKE, {"a": (FACTS, b"x")})
    named = set()
    for path in (ROOT / "web").iterdir():
        found = re.findall(r"""["'](?:\./)?([\w.-]+\.(?:js|mjs|css|svg|bin|json|txt|jpg))["']""", path.read_text())
        named |= set(found)
    assert {"app.js", "worker.js", "ort.mjs", "contents.json", "style.css"} <= named <= set(sizes)


def test_another_model_is_another_version(tmp_path: Path) -> None:
    versions = []
    for data in (b"x", b"x", b"y"):
        build_web.write_page(tmp_path, FAKE, {"a": (FACTS, data)})
        versions.append((tmp_path / "offline.js").read_text())
    assert versions[0] == versions[1] != versions[2]


def test_sources_name_no_other_host() -> None:
    for path in (ROOT / "web").iterdir():
        text = path.read_text(encoding="utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")  # a name, not loaded
        assert not re.search(r"(https?|wss?):|[\"'(]//", text), path


def test_a_page_over_the_limit_is_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).bytes(build_web.LIMIT)
    with pytest.raises(build_web.BuildError, match="more than 15000000"):
        build_web.write_page(tmp_path, FAKE, {"a": (FACTS, noise)})


def test_another_archive_than_the_pinned_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / f"{build_web.PACKAGE}-{build_web.VERSION}.tgz").write_bytes(b"another")
    with pytest.raises(build_web.BuildError, match="sha512"):
        build_web.fetch_runtime(tmp_path)


def test_without_npm_the_message_says_where_the_archive_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(build_web.BuildError, match=r"put its archive at .*\.tgz"):
        build_web.fetch_runtime(tmp_path / "npm")


# --- in the browser ---

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install 'manas_lite[dev]'")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
NAMES = sorted(card.parent.name for card in build_web.SHIPPED.glob("*/card.json"))
NAME = NAMES[0]
ARCHIVES = ROOT / "build" / "npm"


def in_browser(test: Callable) -> Any:
    missing = not (CHROMIUM and DRIVER)
    reason = "no browser to test with: apt-get install chromium chromium-driver"
    return pytest.mark.slow(pytest.mark.skipif(missing, reason=reason)(test))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built page."""
    pytest.importorskip("onnx", reason="the extra onnx is not installed")
    if shutil.which("npm") is None and not list(ARCHIVES.glob("*.tgz")):
        pytest.skip("no npm to fetch onnxruntime-web with")
    folder = tmp_path_factory.mktemp("web")
    build_web.write_page(folder, build_web.fetch_runtime(ARCHIVES), build_web.export_models())
    return folder


class Counting(SimpleHTTPRequestHandler):
    """Serves a folder without a word, and counts the bytes of the files that it sends."""

    def log_message(self, *_: Any) -> None:
        pass

    def copyfile(self, source: Any, outputfile: Any) -> None:
        self.server.sent += os.fstat(source.fileno()).st_size  # type: ignore[attr-defined]
        super().copyfile(source, outputfile)


class Site:
    """The page served on loopback, until `close`."""

    def __init__(self, folder: Path) -> None:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Counting, directory=str(folder)))
        self.server.sent = 0
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_port}/"
        self.open = True

    def close(self) -> None:
        if self.open:
            self.open = False
            self.server.shutdown()
            self.server.server_close()


@pytest.fixture
def site(page: Path) -> Iterator[Site]:
    site = Site(page)
    yield site
    site.close()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator["webdriver.Chrome"]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"):
        options.add_argument(argument)
    options.add_argument("--lang=en")
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=DRIVER))
    driver.set_window_size(1280, 1000)
    driver.downloads = tmp_path / "downloads"
    driver.downloads.mkdir()
    where = {"behavior": "allow", "downloadPath": str(driver.downloads)}
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", where)
    driver.set_script_timeout(120)
    try:
        yield driver
    finally:
        driver.quit()


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth picture under a few bright streaks."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (5, 6, 3), np.uint8)
    image = np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    for x in random.integers(0, width, width // 8):
        y = random.integers(0, height)
        image[y : y + 12, x] += 90
    return image.clip(0, 255).astype(np.uint8)


def send(browser: "webdriver.Chrome", path: Path, model: str = NAME) -> None:
    """Choose a network and a file; wait for the result."""
    WebDriverWait(browser, 30).until(lambda b: b.find_elements(By.CSS_SELECTOR, "#model option"))
    choice = browser.find_element(By.CSS_SELECTOR, "#model")
    browser.execute_script(
        """const wanted = [...arguments[0].options].find(option => option.text === arguments[1]);
        arguments[0].value = wanted.value; arguments[0].dispatchEvent(new Event("change"));""",
        choice,
        model,
    )
    browser.find_element(By.ID, "file").send_keys(str(path))
    finish(browser)


def finish(browser: "webdriver.Chrome", timeout: float = 120) -> None:
    def done(b: "webdriver.Chrome") -> bool:
        error = b.find_element(By.ID, "error").text
        assert not error, error
        return "derained in" in b.find_element(By.ID, "status").text

    WebDriverWait(browser, timeout, poll_frequency=0.2).until(done)


def put(browser: "webdriver.Chrome", control: str, value: float, event: str = "input") -> None:
    browser.execute_script(
        "const e = document.getElementById(arguments[0]); e.value = arguments[1]; e.dispatchEvent(new Event('input'));"
        "if (arguments[2] !== 'input') e.dispatchEvent(new Event(arguments[2]));",
        control,
        value,
        event,
    )
    time.sleep(0.3)  # the strength is drawn with the next frame


def saved(browser: "webdriver.Chrome") -> tuple[str, np.ndarray]:
    """Press Save; return the file's name and its pixels, and remove the file."""
    folder = Path(browser.downloads)
    browser.find_element(By.ID, "save").click()
    (path,) = WebDriverWait(browser, 60, poll_frequency=0.1).until(lambda _: list(folder.glob("*.png")))
    with Image.open(path) as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("RGB"))
    path.unlink()
    return path.name, pixels


def gap(a: np.ndarray, b: np.ndarray) -> int:
    assert a.shape == b.shape
    return int(np.abs(a.astype(int) - b.astype(int)).max())


@in_browser
def test_saved_pixels_are_those_of_derain(site: Site, browser: "webdriver.Chrome", tmp_path: Path) -> None:
    browser.get(site.address)
    for number, (size, model) in enumerate(product([(321, 481), (50, 37), (3, 2)], NAMES)):
        path = tmp_path / f"street.{number}.png"
        rainy = picture(*size, seed=number)
        Image.fromarray(rainy).save(path)
        send(browser, path, model)
        name, found = saved(browser)
        assert name == f"street.{number}-derained.png"
        assert gap(found, derain(rainy, load(model))) <= 1
    net = load(NAME)
    Image.fromarray(rainy := picture(120, 90)).save(path)
    send(browser, path)
    assert gap(derain(rainy, net), rainy) > 10  # equality says something
    for strength in (0, 0.45, 1.7):
        put(browser, "strength", 100 * strength)
        assert gap(saved(browser)[1], derain(rainy, net, strength=strength)) <= 1
    put(browser, "strength", 100)
    put(browser, "scale", 35, "change")
    finish(browser)
    assert gap(saved(browser)[1], derain(rainy, net, scale=0.35)) <= 1


@in_browser
def test_grey_transparent_and_turned_pictures(site: Site, browser: "webdriver.Chrome", tmp_path: Path) -> None:
    browser.get(site.address)
    net, rainy = load(NAME), picture(64, 80)
    grey = tmp_path / "grey.png"
    Image.fromarray(rainy[..., 0]).save(grey)
    send(browser, grey)
    found = saved(browser)[1]
    assert (found == found[..., :1]).all()
    assert gap(found[..., 0], derain(rainy[..., 0].copy(), net)) <= 1
    clear = np.dstack([rainy, np.full(rainy.shape[:2], 255, np.uint8)])
    clear[:20, :30] = 0
    Image.fromarray(clear).save(tmp_path / "clear.png")
    send(browser, tmp_path / "clear.png")
    over_white = rainy.copy()
    over_white[:20, :30] = 255
    assert gap(saved(browser)[1], derain(over_white, net)) <= 1
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rainy).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    send(browser, tmp_path / "turned.jpg")
    assert saved(browser)[1].shape == (80, 64, 3)


@in_browser
def test_little_memory_means_tiles_and_the_page_says_so(
    site: Site, browser: "webdriver.Chrome", tmp_path: Path
) -> None:
    browser.execute_cdp_cmd(
        "Page.addScriptToEvaluateOnNewDocument",
        {"source": "Object.defineProperty(navigator, 'deviceMemory', {get: () => 0.25})"},
    )
    browser.get(site.address)
    rainy = picture(520, 1100)
    Image.fromarray(rainy).save(tmp_path / "wide.png")
    send(browser, tmp_path / "wide.png")
    assert "in tiles" in browser.find_element(By.ID, "status").text
    net = load(NAME)
    tensor = torch.from_numpy(rainy).permute(2, 0, 1)[None] / 255
    expected = np.concatenate(
        [  # tiles of 1024 with a margin of 256, written out
            net(tensor[..., :1100])[..., :1024].detach(),
            net(tensor[..., 768:1100])[..., 256:].detach(),
        ],
        axis=3,
    )
    assert gap(saved(browser)[1], (expected.clip(0, 1) * 255).round()[0].transpose(1, 2, 0)) <= 1


@in_browser
def test_what_cannot_be_done_is_said_in_a_sentence(site: Site, browser: "webdriver.Chrome", tmp_path: Path) -> None:
    browser.get(site.address)
    broken = tmp_path / "notes.jpg"
    broken.write_bytes(b"no picture")
    with pytest.raises(AssertionError, match=r"cannot open notes\.jpg as a picture"):
        send(browser, broken)
    Image.fromarray(picture(40, 40)).save(tmp_path / "good.png")
    send(browser, tmp_path / "good.png")  # the page goes on
    browser.execute_script("window.Worker.prototype.postMessage = function () {"
                           " this.onmessage({data: {failed: 'run', why: 'std::bad_alloc'}}); };")  # fmt: skip
    with pytest.raises(AssertionError, match="too little free memory"):
        send(browser, tmp_path / "good.png")


@in_browser
def test_resizing_is_that_of_torch(site: Site, browser: "webdriver.Chrome") -> None:
    browser.get(site.address)
    random = np.random.default_rng(1)
    for height, width, new_height, new_width in [
        (7, 9, 3, 4),
        (40, 31, 13, 6),
        (5, 4, 17, 23),
        (1, 6, 1, 2),
        (8, 8, 8, 8),
    ]:
        values = random.random((height, width), np.float32)
        found = browser.execute_async_script(
            "const [v, w, h, nw, nh, done] = arguments;"
            "import('./pixels.js').then(({resize}) => done([...resize(Float32Array.from(v), w, h, nw, nh)]));",
            values.ravel().tolist(), width, height, new_width, new_height,
        )  # fmt: skip
        size = [new_height, new_width]
        expected = F.interpolate(torch.from_numpy(values)[None, None], size=size, mode="bicubic", antialias=True)
        np.testing.assert_allclose(np.reshape(found, size), expected[0, 0], atol=1e-5)


@in_browser
def test_example_by_keyboard_offline_and_from_this_host_alone(site: Site, browser: "webdriver.Chrome") -> None:
    browser.get(site.address)
    WebDriverWait(browser, 30).until(lambda b: b.find_elements(By.CSS_SELECTOR, "#model option"))
    focus(browser, "example")
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    finish(browser)
    keep(browser)
    focus(browser, "split")
    before = clip(browser)
    for _ in range(10):
        browser.switch_to.active_element.send_keys(Keys.ARROW_LEFT)
    assert clip(browser) != before

    assert hosts(browser) == {site.address.split("/")[2]}
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]

    active = "navigator.serviceWorker.ready.then(() => arguments[0](true))"
    assert browser.execute_async_script(active)
    assert 3_000_000 < site.server.sent < build_web.LIMIT  # the page, its worker, and what is kept for later
    site.close()
    browser.get(site.address)
    WebDriverWait(browser, 30).until(lambda b: b.find_elements(By.CSS_SELECTOR, "#model option"))
    browser.find_element(By.ID, "example").click()
    finish(browser)


def focus(browser: "webdriver.Chrome", wanted: str) -> None:
    """Reach a control with the tabulator alone."""
    browser.execute_script("document.activeElement.blur()")
    for _ in range(20):
        webdriver.ActionChains(browser).send_keys(Keys.TAB).perform()
        if browser.switch_to.active_element.get_attribute("id") == wanted:
            return
    raise AssertionError(f"{wanted} is out of reach of the keyboard")


def clip(browser: "webdriver.Chrome") -> str:
    return browser.execute_script("return getComputedStyle(document.getElementById('after')).clipPath")


def hosts(browser: "webdriver.Chrome") -> set[str]:
    """Return the hosts that the page asked. The browser of these tests knows no other, so workers found none either."""
    asked = set()
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            address = message["params"]["request"]["url"]
            if not address.startswith(("data:", "blob:", "chrome:")):
                asked.add(address.split("/")[2])
    return asked


@in_browser
@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_window(site: Site, browser: "webdriver.Chrome", width: int) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    browser.get(site.address)
    WebDriverWait(browser, 30).until(lambda b: b.find_elements(By.CSS_SELECTOR, "#model option"))
    for language in ("en", "zh"):
        assert browser.execute_script("return document.documentElement.lang") == language
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        browser.find_element(By.ID, "language").click()


def keep(browser: "webdriver.Chrome") -> None:
    folder = Path(os.environ.get("MANAS_LITE_ARTEFACTS", ROOT / "runs" / "browser"))
    folder.mkdir(parents=True, exist_ok=True)
    assert browser.save_screenshot(str(folder / "web.png"))
