"""The tables of sets, and `get` from registry to folder."""

import io
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from loopback import Loopback, html, serve
from PIL import Image
from samples import background, rain_on

from manas_lite.data import open_split, registry
from manas_lite.data.download import DownloadError, get
from manas_lite.data.layouts import LAYOUTS
from manas_lite.data.registry import (
    Archive,
    DataSet,
    archive,
    count_differences,
    data_folder,
    data_set,
    data_sets,
    list_set,
    locate,
    manual_steps,
)
from manas_lite.data.unpack import ArchiveError

PUBLISHED = {  # pairs train / test, as published
    "rain13k": (13711, None),
    "test100": (None, 98),
    "rain100h": (None, 100),
    "rain100l": (None, 100),
    "test1200": (None, 1200),
    "test2800": (None, 2800),
    "did-mdn": (12000, 1200),
    "rain100l-old": (200, 100),
    "rain200l": (1800, 200),
    "rain200h": (1800, 200),
    "rain100h-old": (1800, 100),
    "rain800": (700, 100),
    "rain1400": (12600, 1400),
    "outdoor-rain": (9000, 750),
    "spa-data": (None, 1000),
    "raincityscapes": (9432, 1188),
    "gt-rain": (26124, 2100),
    "raw-rain": (None, None),
    "hri": (None, None),
    "rainycoco": (None, None),
    "rain13k-hub": (13711, None),
    "ddn-data": (12600, 1400),
    "realrain-1k": (1568, 448),
    "rainds": (None, None),
}


def test_every_published_set_has_its_row() -> None:
    assert {n: (s.pairs.get("train"), s.pairs.get("test")) for n, s in data_sets().items()} == PUBLISHED


@pytest.mark.parametrize("name", PUBLISHED)
def test_rows_are_complete_and_consistent(name: str) -> None:
    chosen = data_set(name)
    assert chosen.title
    assert chosen.licence
    assert chosen.citation
    assert chosen.group in ("name", "hash")
    assert chosen.layout is None or chosen.layout in LAYOUTS
    assert chosen.automatic or chosen.manual
    for item in map(archive, chosen.archives):
        assert item.sources()
        assert chosen.folder.startswith(item.into)
        assert item.unpacked_limit > 10**9
    for part, backgrounds in chosen.backgrounds.items():
        if chosen.rains.isdigit():
            assert backgrounds * int(chosen.rains) == chosen.pairs[part]


@pytest.mark.parametrize("name", PUBLISHED)
def test_manual_steps_name_source_place_and_command(name: str, tmp_path: Path) -> None:
    chosen, told = data_set(name), manual_steps(data_set(name), tmp_path)
    assert str(tmp_path) in told
    assert chosen.licence in told
    assert "python -m manas_lite.data" in told
    if chosen.drive_folder:
        assert f"https://drive.google.com/drive/folders/{chosen.drive_folder}" in told
    for item in map(archive, chosen.archives):
        assert all(page in told for page in item.sources().values())
        if item.drive:
            assert f"https://drive.google.com/uc?id={item.drive}" in told
        if item.drive or item.mirrors:
            assert str(tmp_path / "archives" / item.name) in told
        else:
            assert str(tmp_path / item.into) in told


def test_unknown_set_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"no set is called 'rain100'; did you mean 'rain100h' or 'rain100l'"):
        data_set("rain100")


def test_unknown_key_in_a_table_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_table", lambda _: {"x": {"titel": "typo"}})
    with pytest.raises(ValueError, match=r"unknown setting 'x\.titel'.*'title'"):
        data_sets()
    monkeypatch.setattr(registry, "_table", lambda _: {"x": {"title": "too little"}})
    with pytest.raises(ValueError, match=r"missing setting .*'x\.folder'"):
        data_sets()


def test_data_folder_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MANAS_LITE_SETS", str(tmp_path / "env"))
    assert data_folder(tmp_path) == tmp_path
    assert data_folder() == tmp_path / "env"
    monkeypatch.delenv("MANAS_LITE_SETS")
    assert data_folder().is_relative_to(Path.home())


@pytest.mark.slow
def test_installed_wheel_brings_its_own_tables(tmp_path: Path, repository: Path) -> None:
    """The wheel's files alone, away from the clone: the command line still knows every set."""
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path / "wheels"), str(repository)]
    subprocess.run(build, check=True, cwd=tmp_path)
    (wheel,) = (tmp_path / "wheels").glob("*.whl")
    with zipfile.ZipFile(wheel) as built:
        built.extractall(tmp_path / "installed")
    script = "import manas_lite.data.registry as r; print(r.__file__); print(*r.data_sets(), sep='\\n')"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    where, *names = done.stdout.splitlines()
    assert Path(where).is_relative_to(tmp_path / "installed")
    assert set(names) == set(PUBLISHED)


# -- get, end to end ----------------------------------------------------------------------------------------------


def small_set(parts: dict[str, int], swapped: bool = False) -> bytes:
    """A zip of Rain13K's test layout with these numbers of pairs."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for part, count in parts.items():
            for i in range(count):
                clean = background(i + 50 * len(part))
                pictures = {"target": clean, "input": rain_on(clean, i)}
                for folder, picture in pictures.items():
                    content = io.BytesIO()
                    Image.fromarray(picture).save(content, "PNG")
                    archive.writestr(f"data/{part}/{folder}/{i}.png", content.getvalue())
    return buffer.getvalue()


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> DataSet:
    """A registered set of five training and three test pairs that comes in one archive without a source."""
    row = DataSet(
        name="tiny",
        title="Tiny",
        folder="tiny/data",
        pairs={"train": 5, "test": 3},
        rains="1",
        group="hash",
        licence="free",
        citation="nobody",
        archives=("tiny.zip",),
    )
    item = Archive(name="tiny.zip", into="tiny", unpacked_limit=10**8)
    monkeypatch.setattr(registry, "data_set", lambda name: row)
    monkeypatch.setattr(registry, "archive", lambda name: item)
    return row


def test_get_downloads_unpacks_and_opens(server: Loopback, tiny: DataSet, tmp_path: Path) -> None:
    url = server.on("/tiny.zip", serve(small_set({"train": 5, "test": 3})))
    where = get("tiny", tmp_path, mirrors=[url], progress=False)
    assert where == tmp_path / "tiny" / "data"
    assert count_differences(tiny, list_set(tiny, tmp_path)) == []
    assert get("tiny", tmp_path, progress=False) == where  # nothing to do
    assert len(server.requests) == 1
    split = open_split("tiny", root=tmp_path)
    assert (len(split.train) + len(split.val), len(split.test)) == (5, 3)


def test_get_takes_an_archive_that_is_there(tiny: DataSet, tmp_path: Path) -> None:
    given = tmp_path / "downloads" / "whatever.zip"
    given.parent.mkdir()
    given.write_bytes(small_set({"train": 5, "test": 3}))
    assert get("tiny", tmp_path / "sets", given=given, progress=False).is_dir()
    by_hand = tmp_path / "others" / "archives" / "tiny.zip"
    by_hand.parent.mkdir(parents=True)
    by_hand.write_bytes(given.read_bytes())
    assert get("tiny", tmp_path / "others", progress=False).is_dir()


def test_interrupted_unpacking_is_taken_up_without_a_new_download(
    server: Loopback, tiny: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.on("/tiny.zip", serve(small_set({"train": 5, "test": 3})))

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("manas_lite.data.unpack._copy", interrupted)
        with pytest.raises(KeyboardInterrupt):
            get("tiny", tmp_path, mirrors=[url], progress=False)
    assert not (tmp_path / "tiny").exists()
    get("tiny", tmp_path, mirrors=[url], progress=False)
    assert len(server.requests) == 1


def test_get_that_fails_ends_in_manual_steps(server: Loopback, tiny: DataSet, tmp_path: Path) -> None:
    url = server.on("/tiny.zip", html("<html>quota</html>"))
    with pytest.raises(DownloadError, match=r"(?s)HTML page.*By hand:.*archives/tiny.zip"):
        get("tiny", tmp_path, mirrors=[url], progress=False)


def test_wrong_counts_are_told(tiny: DataSet, server: Loopback, tmp_path: Path) -> None:
    url = server.on("/tiny.zip", serve(small_set({"train": 4, "test": 3})))
    get("tiny", tmp_path, mirrors=[url], progress=False)
    assert count_differences(tiny, list_set(tiny, tmp_path)) == ["tiny: 4 train pairs, the registry states 5"]
    with pytest.warns(UserWarning, match="4 train pairs, the registry states 5"):
        open_split("tiny", root=tmp_path)


def test_a_wrong_archive_does_not_keep_the_right_one_out(tiny: DataSet, tmp_path: Path) -> None:
    given, record = tmp_path / "given.zip", tmp_path / "sets" / "archives" / "record.json"
    given.write_bytes(small_set({"train": 2, "test": 1}))
    get("tiny", tmp_path / "sets", given=given, progress=False)
    assert not record.exists()
    given.write_bytes(small_set({"train": 5, "test": 3}))
    where = get("tiny", tmp_path / "sets", given=given, progress=False)
    assert count_differences(tiny, list_set(tiny, tmp_path / "sets")) == []
    assert record.exists()
    shutil.rmtree(where)
    given.write_bytes(small_set({"train": 4, "test": 3}))
    with pytest.raises(DownloadError, match="from the first download"):
        get("tiny", tmp_path / "sets", given=given, progress=False)


def test_empty_folder_is_no_set(tiny: DataSet, server: Loopback, tmp_path: Path) -> None:
    (tmp_path / "tiny" / "data").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="data get tiny"):
        open_split("tiny", root=tmp_path)
    url = server.on("/tiny.zip", serve(small_set({"train": 5, "test": 3})))
    where = get("tiny", tmp_path, mirrors=[url], progress=False)
    assert len(list((where / "train" / "input").iterdir())) == 5


def test_an_archive_of_something_else_is_passed_over(tiny: DataSet, server: Loopback, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as other:
        other.writestr("holiday/1.png", b"")
        other.writestr("tiny/data/README.txt", b"moved")
    urls = [server.on("/other.zip", serve(buffer.getvalue()))]
    urls.append(server.on("/tiny.zip", serve(small_set({"train": 5, "test": 3}))))
    get("tiny", tmp_path, mirrors=urls, progress=False)
    assert count_differences(tiny, list_set(tiny, tmp_path)) == []
    assert not list(tmp_path.rglob("holiday"))  # nothing of the other one was put among the sets
    assert not list(tmp_path.rglob("README.txt"))


def test_archive_of_something_else_is_told(tiny: DataSet, server: Loopback, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as other:
        other.writestr("holiday/1.png", b"")
    url = server.on("/tiny.zip", serve(buffer.getvalue()))
    with pytest.raises(DownloadError, match="holds no folder tiny/data"):
        get("tiny", tmp_path, mirrors=[url], progress=False)


def test_set_by_hand_says_how(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"(?s)cannot be downloaded automatically.*rain1400/training"):
        get("rain1400", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"python -m manas_lite.data get rain100l --root"):
        locate("rain100l", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"python -m manas_lite.data get rain100l"):
        open_split("rain100l", root=tmp_path)


def test_documentation_lists_every_set_with_its_command(repository: Path) -> None:
    lines = (repository / "docs" / "datasets.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("|") and "data get " in line]
    written = {}
    for row in rows:
        title, train, test, rains, sources, licence, command = (cell.strip() for cell in row.strip("|").split("|"))
        written[command.strip("`").split()[-1]] = (title, train, test, rains, sources, licence)
    stated = {
        name: (
            chosen.title,
            *(f"{chosen.pairs[part]:,}" if part in chosen.pairs else "-" for part in ("train", "test")),
            chosen.rains,
            ", ".join(kind for item in map(archive, chosen.archives) for kind in item.sources()) or "*by hand*",
            chosen.licence,
        )
        for name, chosen in data_sets().items()
    }
    for name, (*_, sources, _) in written.items():
        assert ("(not official)" in sources) == (not data_set(name).official)
    assert {name: (*row[:4], row[4].removesuffix(" (not official)"), row[5]) for name, row in written.items()} == stated


# -- get, twice and damaged ---------------------------------------------------------------------------------------


def test_a_damaged_archive_is_downloaded_anew_from_the_mirror_that_now_serves_a_good_one(
    server: Loopback, tiny: DataSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = small_set({"train": 5, "test": 3})
    damaged = bytearray(good)
    damaged[good.index(b"IDAT") + 20] ^= 1
    kept = tmp_path / "archives" / "tiny.zip"
    kept.parent.mkdir()
    kept.write_bytes(damaged)
    get("tiny", tmp_path, mirrors=[server.on("/tiny.zip", serve(good))], progress=False)
    assert count_differences(tiny, list_set(tiny, tmp_path)) == []
    assert kept.read_bytes() == good
    assert kept.with_name("tiny.zip.damaged").read_bytes() == damaged
    assert f"set aside as {kept}.damaged" in capsys.readouterr().err


def test_a_damaged_archive_that_was_given_stays_where_it_is(tiny: DataSet, tmp_path: Path) -> None:
    good = small_set({"train": 5, "test": 3})
    given = tmp_path / "given.zip"
    given.write_bytes(good.replace(b"IDAT", b"IDAX", 1))
    with pytest.raises(ArchiveError, match=r"given\.zip: is broken"):
        get("tiny", tmp_path / "sets", given=given, progress=False)
    assert given.exists()


def test_two_gets_of_one_set_at_once_are_one_download(
    server: Loopback, tiny: DataSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    started, go_on = threading.Event(), threading.Event()
    answer = serve(small_set({"train": 5, "test": 3}))

    def slow(handler: object) -> None:
        started.set()
        go_on.wait(20)
        answer(handler)

    url = server.on("/tiny.zip", slow)
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(get, "tiny", tmp_path, mirrors=[url], progress=False)]
        assert started.wait(20)
        calls.append(pool.submit(get, "tiny", tmp_path, mirrors=[url], progress=False))
        said = ""
        for _ in range(400):
            said += capsys.readouterr().err
            if said:
                break
            time.sleep(0.05)
        go_on.set()
        assert [call.result(20) for call in calls] == [tmp_path / "tiny" / "data"] * 2
    assert "another download" in said
    assert len(server.requests) == 1
