"""`data` as a web address, against a real server on loopback: fetched once, checked, and opened like a folder."""

import importlib
import io
import sys
from pathlib import Path

import pytest
from PIL import Image

from manas_course import mirrors
from manas_lite import open_split
from manas_lite.data.download import DownloadError

pytest.importorskip("requests", reason="downloads need the data extra: pip install 'manas_lite[data]'")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))
servers, samples = importlib.import_module("loopback"), importlib.import_module("samples")


@pytest.fixture
def server():
    with servers.loopback() as running:
        yield running


def png(array) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return buffer.getvalue()


def archive(count: int = 12, *, inside: str = "lecture/") -> bytes:
    files = {}
    for k in range(count):
        clean = samples.background(k)
        files[f"{inside}input/{k}.png"] = png(samples.rain_on(clean, k))
        files[f"{inside}target/{k}.png"] = png(clean)
    return samples.zipped(files)


def test_names_and_folders_are_handed_through(tmp_path: Path) -> None:
    for data in ("photos", "did-mdn", str(tmp_path), "./pairs"):
        assert mirrors.local(data, tmp_path) == data


def test_an_archive_is_fetched_once_and_opens_as_a_split(server, tmp_path: Path) -> None:
    url = server.on("/course/rain%20pairs.zip", servers.serve(archive()))
    folder = mirrors.local(url, tmp_path, progress=False)
    split = open_split(folder)
    assert sum(map(len, (split.train, split.val, split.test))) == 12
    assert mirrors.local(url, tmp_path, progress=False) == folder
    assert len(server.requests) == 1


def test_a_table_decides_where_there_is_one(server, tmp_path: Path) -> None:
    table = "rainy,clean\n" + "".join(f"input/{k}.png,target/{k}.png\n" for k in range(8))
    files = {"deep/pairs.csv": table.encode()}
    for k in range(12):
        clean = samples.background(k)
        files |= {f"deep/input/{k}.png": png(samples.rain_on(clean, k)), f"deep/target/{k}.png": png(clean)}
    url = server.on("/t.zip", servers.serve(samples.zipped(files)))
    split = open_split(mirrors.local(url, tmp_path, progress=False))
    assert sum(map(len, (split.train, split.val, split.test))) == 8


def test_two_addresses_do_not_share_a_folder(server, tmp_path: Path) -> None:
    first = server.on("/a/set.zip", servers.serve(archive(10)))
    second = server.on("/b/set.zip", servers.serve(archive(11)))
    folders = [mirrors.local(url, tmp_path, progress=False) for url in (first, second)]
    assert len(set(folders)) == 2


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (servers.html("<html>Please log in</html>"), "HTML page"),
        (servers.serve(b"no archive at all" * 99), "neither a zip nor a tar"),
        (servers.status(404), "404"),
    ],
)
def test_what_is_no_archive_is_told_and_leaves_no_folder(server, tmp_path: Path, answer, message: str) -> None:
    url = server.on("/x.zip", answer)
    with pytest.raises(DownloadError, match=message):
        mirrors.local(url, tmp_path, progress=False)
    assert not [path for path in (tmp_path / "mirrors").glob("x-*") if path.is_dir()]


def test_an_archive_that_leaves_its_folder_is_refused(server, tmp_path: Path) -> None:
    url = server.on("/evil.zip", servers.serve(samples.zipped({"../out.png": b"x" * 99})))
    with pytest.raises(DownloadError, match=r"\.\."):
        mirrors.local(url, tmp_path, progress=False)
    assert not list(tmp_path.rglob("out.png"))


@pytest.mark.parametrize(
    "link",
    [
        "https://drive.google.com/file/d/1AbC-d_9/view?usp=sharing",
        "https://drive.google.com/open?id=1AbC-d_9",
        "https://drive.google.com/uc?export=download&id=1AbC-d_9",
    ],
)
def test_a_drive_link_is_fetched_by_its_id(link: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(item, folder, *, progress, use):
        asked.append((item.drive, item.mirrors))
        folder.mkdir(parents=True)
        (folder / "got.zip").write_bytes(archive(3))
        use(folder / "got.zip")

    monkeypatch.setattr(mirrors, "fetch", fetch)
    assert Path(mirrors.local(link, tmp_path, progress=False)).is_dir()
    assert asked == [("1AbC-d_9", ())]
