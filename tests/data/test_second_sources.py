"""Where a set comes from besides one address: a model hub, a folder on Drive, a class cache; and what is recorded."""

import io
import json
import re
import shutil
import sys
import tarfile
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import requests
from fake_hub import FakeHub, fake_hub
from loopback import Loopback, html, serve
from PIL import Image
from samples import background, rain_on, zipped

from manas_lite.data import download, registry
from manas_lite.data.__main__ import main
from manas_lite.data.download import DownloadError, fetch, get, record
from manas_lite.data.registry import (
    Archive,
    archive,
    count_differences,
    data_set,
    data_sets,
    list_set,
    record_archives,
)
from manas_lite.photos.hub import Address
from manas_lite.runs.checkpoint import sha256_of

SET = """
[tiny]
title = "Tiny"
folder = "tiny"
pairs = { train = 3, test = 2 }
rains = "1"
group = "hash"
archives = ["tiny.tar"]
official = false
licence = "free"
citation = "nobody"
"""
ARCHIVE = """
["tiny.tar"]
into = "tiny"
unpacked_limit = 10_000_000
"""
Tables = Callable[..., Path]


def png(picture: object) -> bytes:
    content = io.BytesIO()
    Image.fromarray(picture).save(content, "PNG")
    return content.getvalue()


def pictures(train: int = 3, test: int = 2) -> dict[str, bytes]:
    """Return the files of the set, by name."""
    files = {"README.md": b"a set", ".gitattributes": b"*.png filter=lfs\n"}
    for part, count in (("train", train), ("test", test)):
        for i in range(count):
            clean = background(i + 50 * len(part))
            files |= {f"{part}/target/{i}.png": png(clean), f"{part}/input/{i}.png": png(rain_on(clean, i))}
    return files


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    pytest.importorskip("huggingface_hub", reason="needs the extra: pip install 'manas_lite[hub]'")
    with fake_hub(monkeypatch, tmp_path / "hub-cache") as running:
        yield running


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Tables:
    """A function that writes the user's tables: the set, and its archive with these keys; returns the data folder."""
    monkeypatch.setenv("MANAS_LITE_SETS", str(tmp_path / "sets"))
    monkeypatch.delenv("MANAS_LITE_CLASS_CACHE", raising=False)
    installed = tmp_path / "installed" / "sets"  # as in a wheel: there is no clone whose table would be written
    installed.mkdir(parents=True)
    for name in ("sets.toml", "archives.toml"):
        (installed / name).write_text("", encoding="utf-8")
    monkeypatch.setattr(registry, "_tables", lambda: installed)

    def write(keys: str = "") -> Path:
        (tmp_path / "sets").mkdir(exist_ok=True)
        (tmp_path / "sets" / "sets.toml").write_text(SET)
        (tmp_path / "sets" / "archives.toml").write_text(ARCHIVE + keys)
        return tmp_path / "sets"

    return write


def whole(root: Path) -> bool:
    return count_differences(data_set("tiny"), list_set(data_set("tiny"), root)) == []


def pinned(hub: FakeHub, files: dict[str, bytes]) -> str:
    """Put files into the repository o/rain, and return the line of a table that names them."""
    return f'hub = "o/rain@{hub.repository("o/rain", "datasets").commit(files)}"'


# -- a model hub --------------------------------------------------------------------------------------------------


def test_a_pinned_repository_is_fetched_packed_and_unpacked(hub: FakeHub, tables: Tables, capsys) -> None:
    there = hub.repository("o/rain", "datasets")
    sha = there.commit(pictures())
    there.commit({"train/input/0.png": b"changed later"})
    root = tables(f'hub = "o/rain@{sha}"')
    assert get("tiny", progress=False) == root / "tiny"
    assert whole(root)
    assert "not pinned" not in capsys.readouterr().err
    kept = json.loads((root / "archives" / "record.json").read_text())["tiny.tar"]
    assert kept["source"] == f"hub:o/rain@{sha}"
    assert kept["sha256"] == sha256_of(root / "archives" / "tiny.tar")
    assert sorted(p.name for p in (root / "archives").iterdir()) == [".lock", "record.json", "tiny.tar"]


def test_the_same_revision_gives_the_same_bytes(hub: FakeHub, tmp_path: Path) -> None:
    sha = hub.repository("o/rain", "datasets").commit(pictures())
    item = Archive(name="tiny.tar", into="tiny", unpacked_limit=10**7, hub=f"o/rain@{sha}")
    first, second = (fetch(item, tmp_path / place, progress=False) for place in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    with tarfile.open(first) as tar:
        assert sorted(tar.getnames()) == sorted(pictures())


def test_a_repository_without_a_revision_says_so_and_keeps_the_one_it_took(
    hub: FakeHub, tables: Tables, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    there = hub.repository("o/rain", "datasets")
    first = there.commit(pictures())
    root = tables('hub = "o/rain"')
    get("tiny", progress=False)
    assert f"hub:o/rain is not pinned: this is revision {first}; --record" in capsys.readouterr().err
    later = there.commit({"train/input/0.png": b"changed later"})
    assert there.find("main") == later
    for path in (root / "tiny", root / "archives" / "tiny.tar"):
        path.rename(tmp_path / f"kept-{path.name}")
    get("tiny", progress=False)  # the revision from before, though the branch has moved
    assert (root / "archives" / "tiny.tar").read_bytes() == (tmp_path / "kept-tiny.tar").read_bytes()


def test_archives_in_a_repository_become_folders(hub: FakeHub, tables: Tables) -> None:
    files = pictures()
    train = {name: data for name, data in files.items() if name.startswith("train")}
    test = {name.removeprefix("test/"): data for name, data in files.items() if name.startswith("test")}
    root = tables(pinned(hub, {"a/train.zip": zipped(train), "test.zip": zipped(test), "README.md": b"x"}))
    get("tiny", progress=False)
    assert whole(root)
    assert not list((root / "tiny").rglob("*.zip"))


def test_what_a_set_does_not_need_is_left_out(hub: FakeHub, tables: Tables) -> None:
    line = pinned(hub, {**pictures(), "models/a/scene.zip": b"x" * 20_000_000})
    root = tables(f'{line}\nhub_skip = ["models/*"]')
    get("tiny", progress=False)
    assert whole(root)
    assert not any("scene" in name for name in hub.fetched())


@pytest.mark.parametrize(
    ("repository", "told"),
    [("o/rain@" + "1" * 40, "no such revision"), ("o/else@" + "1" * 40, "no such repository")],
)
def test_a_wrong_repository_is_told_and_the_next_source_asked(
    hub: FakeHub, tables: Tables, server: Loopback, repository: str, told: str
) -> None:
    pinned(hub, pictures())
    root = tables(f'hub = "{repository}"')
    with pytest.raises(DownloadError, match=rf"(?s)\n  - hub:{repository}: [a-z ]*{told}.*By hand:"):
        get("tiny", progress=False)
    url = server.on("/tiny.zip", serve(zipped(pictures())))
    tables(f'hub = "{repository}"\nmirrors = ["{url}"]')
    get("tiny", progress=False)
    assert whole(root)


def test_a_row_whose_repository_is_none_is_told(tables: Tables) -> None:
    tables('hub = "o rain"')
    with pytest.raises(ValueError, match="'o rain' is no address of a hub: expected hub:OWNER/NAME@REVISION"):
        get("tiny", progress=False)


@pytest.mark.parametrize("name", ["train/input/0.png", "README.md"])
def test_a_file_that_is_not_the_revisions_is_refused(hub: FakeHub, tables: Tables, name: str) -> None:
    files = pictures()
    hub.damage[name] = bytes(len(files[name]))  # of the right size
    root = tables(pinned(hub, files))
    with pytest.raises(DownloadError, match=rf"{name} has the hash \w+, the revision states"):
        get("tiny", progress=False)
    del hub.damage[name]
    get("tiny", progress=False)  # it is fetched anew
    assert whole(root)


@pytest.mark.parametrize("odd", ["../../x.png", "/x.png", "a/../../x.png", "..\\x.png", "a//x.png"])
def test_a_listing_cannot_write_elsewhere(hub: FakeHub, tables: Tables, odd: str, tmp_path: Path) -> None:
    hub.listed_as["odd.png"] = odd
    tables(pinned(hub, {**pictures(), "odd.png": png(background(1))}))
    with pytest.raises(DownloadError, match="would be written outside the folder"):
        get("tiny", progress=False)
    assert hub.fetched() == []
    assert not list(tmp_path.rglob("x.png"))


def test_more_than_a_set_can_have_is_not_begun(hub: FakeHub, tables: Tables) -> None:
    tables(pinned(hub, {**pictures(), "large.zip": bytes(11_000_000)}))
    with pytest.raises(DownloadError, match=r"more than the 10,000,000 that this set can have"):
        get("tiny", progress=False)
    assert hub.fetched() == []


def test_without_the_package_the_extra_is_named_and_the_next_source_asked(
    tables: Tables, server: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    root = tables('hub = "o/rain"')
    with pytest.raises(DownloadError, match=r"manas_lite\[hub\]"):
        get("tiny", progress=False)
    tables(f'hub = "o/rain"\nmirrors = ["{server.on("/t", serve(zipped(pictures())))}"]')
    get("tiny", progress=False)
    assert whole(root)


# -- a folder on Drive ----------------------------------------------------------------------------------------------


def test_a_drive_folder_is_one_command(tables: Tables, server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    """gdown itself, whose requests to Google's hosts reach the loopback server: 60 files in folders of folders."""
    send = requests.adapters.HTTPAdapter.send

    def redirected(self, request, *args, **kwargs):
        parts = urllib.parse.urlsplit(request.url)
        if parts.hostname and parts.hostname.endswith("google.com"):
            request.url = f"{server.url}{parts.path}/{urllib.parse.parse_qs(parts.query)['id'][0]}"
        return send(self, request, *args, **kwargs)

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", redirected)

    def folder(name: str, inside: list[str]) -> str:
        """Serve a folder's page, and return the link to it."""
        drive_id = f"folder-{name}".ljust(28, "_").replace("/", "-")
        server.on(f"/embeddedfolderview/{drive_id}", html(f"<title>{name}</title>{''.join(inside)}"))
        return f'<a href="https://drive.google.com/drive/folders/{drive_id}">{name.rpartition("/")[2]}</a>'

    def file(name: str, data: bytes) -> str:
        drive_id = f"file-{name}".ljust(28, "_").replace("/", "-").replace(".", "-")
        server.on(f"/uc/{drive_id}", serve(data, name=name.rpartition("/")[2]))
        return f'<a href="https://drive.google.com/file/d/{drive_id}/view">{name.rpartition("/")[2]}</a>'

    files = pictures(15, 15)
    parts = []
    for part in ("train", "test"):
        kinds = [
            folder(home, [file(name, data) for name, data in files.items() if name.startswith(f"{home}/")])
            for home in (f"{part}/input", f"{part}/target")
        ]
        parts.append(folder(part, kinds))
    folder("top", parts)
    root = tables(f'drive_folder = "{"folder-top".ljust(28, "_")}"')
    (root / "sets.toml").write_text(SET.replace("train = 3, test = 2", "train = 15, test = 15"))
    get("tiny", progress=False)
    assert whole(root)
    server.answers.clear()
    monkeypatch.setattr(download, "sleep", lambda seconds: None)
    with pytest.raises(DownloadError, match=r"(?s)Drive folder .*404.*drive/folders/folder-top"):
        get("tiny", root / "other", progress=False)


# -- a class cache ----------------------------------------------------------------------------------------------------


@pytest.fixture
def lecturer(hub: FakeHub, tables: Tables, tmp_path: Path) -> Path:
    """The folder of archives of somebody who has got the set; the hub is gone afterwards."""
    root = tables(pinned(hub, pictures()))
    get("tiny", progress=False)
    (root / "archives").rename(tmp_path / "class")
    shutil.rmtree(root / "tiny")
    hub.repositories.clear()
    hub.requests.clear()
    return tmp_path / "class"


def on_loopback(folder: Path, server: Loopback) -> str:
    """Serve the files of a folder; return the address of it."""
    for file in folder.iterdir():
        server.on(f"/class/{file.name}", serve(file.read_bytes(), content_type="application/octet-stream"))
    return f"{server.url}/class/"


@pytest.mark.parametrize("how", ["folder", "address", "variable"])
def test_a_class_cache_is_asked_before_the_internet(
    lecturer: Path, hub: FakeHub, server: Loopback, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "variable":
        monkeypatch.setenv("MANAS_LITE_CLASS_CACHE", str(lecturer))
    place = {"folder": lecturer, "address": on_loopback(lecturer, server)}.get(how)
    get("tiny", cache=place, progress=False)
    assert whole(tmp_path / "sets")
    assert hub.requests == []
    assert (tmp_path / "sets" / "archives" / "tiny.tar").read_bytes() == (lecturer / "tiny.tar").read_bytes()


@pytest.mark.parametrize("how", ["folder", "address"])
@pytest.mark.parametrize("fault", ["flipped", "short", "gone", "no record", "not listed", "bad record", "web page"])
def test_a_class_cache_that_is_wrong_is_told_and_the_registrys_sources_asked(
    lecturer: Path, server: Loopback, tables: Tables, how: str, fault: str
) -> None:
    kept, listed = lecturer / "tiny.tar", lecturer / "record.json"
    data = bytearray(kept.read_bytes())
    data[len(data) // 2] ^= 1
    match fault:
        case "flipped":
            kept.write_bytes(data)
        case "short":
            kept.write_bytes(data[: len(data) // 2])
        case "gone":
            kept.unlink()
        case "no record":
            listed.unlink()
        case "not listed":
            listed.write_text("{}")
        case "bad record":
            listed.write_text("{")
        case "web page":
            kept.write_bytes(b"<!doctype html><p>sign in")
    place = str(lecturer) if how == "folder" else on_loopback(lecturer, server)
    with pytest.raises(DownloadError, match=rf"class cache {re.escape(place)}: .*(?s:.*By hand)"):
        get("tiny", cache=place, progress=False)
    url = server.on("/tiny.zip", serve(zipped(pictures())))
    root = tables(f'mirrors = ["{url}"]')
    get("tiny", cache=place, progress=False)
    assert whole(root)


def test_a_class_cache_cannot_go_against_the_table(lecturer: Path, tables: Tables, tmp_path: Path) -> None:
    """Its record agrees with its archive, and neither with the registry's sha256."""
    tables(f'sha256 = "{"0" * 64}"')
    with pytest.raises(DownloadError, match=r"class cache .*expected 0000"):
        get("tiny", cache=lecturer, progress=False)
    tables(f'sha256 = "{sha256_of(lecturer / "tiny.tar")}"')
    get("tiny", cache=lecturer, progress=False)
    assert whole(tmp_path / "sets")


# -- what is recorded -------------------------------------------------------------------------------------------------


def test_record_pins_what_came(hub: FakeHub, tables: Tables, capsys: pytest.CaptureFixture[str]) -> None:
    sha = hub.repository("o/rain", "datasets").commit(pictures())
    root = tables('hub = "o/rain"')
    assert main(["list"]) == 0
    assert re.search(r"^tiny +3 +2 +1 +\? +hub, not pinned +no +Tiny; free$", capsys.readouterr().out, re.MULTILINE)
    assert main(["get", "tiny", "--record", "--quiet"]) == 0
    told = capsys.readouterr()
    assert told.out == f"{root / 'tiny'}\n"
    assert f"recorded in {root / 'recorded.json'}" in told.err
    assert "Not published by its authors" in told.err
    path, item = root / "archives" / "tiny.tar", archive("tiny.tar")
    assert (item.hub, item.size, item.sha256) == (f"o/rain@{sha}", path.stat().st_size, sha256_of(path))
    assert item.unpacked_limit == 10_000_000
    assert main(["list"]) == 0
    assert re.search(r"^tiny +3 +2 +1 +0\.00 GB +hub +no +yes +Tiny; free$", capsys.readouterr().out, re.MULTILINE)
    assert main(["get", "tiny", "--record", "--quiet"]) == 0  # a second time changes nothing
    assert archive("tiny.tar") == item


def test_nothing_is_recorded_of_a_set_that_is_not_whole(hub: FakeHub, tables: Tables, capsys) -> None:
    root = tables(pinned(hub, pictures(train=2)))
    assert main(["get", "tiny", "--record", "--quiet"]) == 2
    assert "tiny.tar did not prove right yet" in capsys.readouterr().err
    assert not (root / "recorded.json").exists()


def test_a_comment_in_somebody_elses_tar_is_no_source(tables: Tables, server: Loopback) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", pax_headers={"comment": f"hub:evil/set@{'a' * 40}"}) as tar:
        for name, data in pictures().items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    tables(f'mirrors = ["{server.on("/t", serve(packed.getvalue()))}"]')
    get("tiny", progress=False)
    record("tiny")
    assert archive("tiny.tar").sha256
    assert archive("tiny.tar").hub is None


def test_in_a_clone_the_clones_table_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clone = tmp_path / "data_scripts" / "sets"
    shutil.copytree(Path(__file__).parents[2] / "data_scripts" / "sets", clone)
    monkeypatch.setattr(registry, "_tables", lambda: clone)
    monkeypatch.setenv("MANAS_LITE_SETS", str(tmp_path / "sets"))
    before, others = archive("did-mdn.zip"), {name: data_set(name) for name in data_sets()}
    assert record_archives({"did-mdn.zip": {"size": 5, "sha256": "a" * 64}}) == clone / "recorded.json"
    assert archive("did-mdn.zip") == replace(before, size=5, sha256="a" * 64)
    record_archives({"rain13k-test.zip": {"size": 7}, "did-mdn.zip": {"size": 6, "sha256": "a" * 64}})
    assert (archive("did-mdn.zip").size, archive("rain13k-test.zip").size) == (6, 7)
    assert {name: data_set(name) for name in data_sets()} == others
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "recorded.json").write_text('{"did-mdn.zip": {"size": 8}}')  # the user's own has the last word
    assert archive("did-mdn.zip").size == 8


# -- the user's tables -----------------------------------------------------------------------------------------------


def test_the_users_tables_add_rows_and_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANAS_LITE_SETS", str(tmp_path))
    before = data_sets()
    (tmp_path / "sets.toml").write_text(SET + '[did-mdn]\nlicence = "asked and granted"\n')
    (tmp_path / "archives.toml").write_text(ARCHIVE + '["did-mdn.zip"]\nmirrors = ["http://127.0.0.1/d.zip"]\n')
    after = data_sets()
    assert list(after) == [*before, "tiny"]
    assert after["did-mdn"].licence == "asked and granted"
    assert after["did-mdn"].pairs == before["did-mdn"].pairs
    assert archive("did-mdn.zip").mirrors == ("http://127.0.0.1/d.zip",)
    assert archive("did-mdn.zip").drive
    assert archive("tiny.tar").into == "tiny"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sets.toml", "x = 3\n"),
        ("sets.toml", "[tiny\n"),
        ("archives.toml", "[[tiny]]\n"),
        ("recorded.json", "[]"),
        ("recorded.json", "{"),
        ("recorded.json", '{"tiny.tar": 5}'),
    ],
)
def test_a_users_table_that_is_none_is_named(tables: Tables, name: str, text: str) -> None:
    root = tables()
    (root / name).write_text(text)
    with pytest.raises(ValueError, match=re.escape(f"{root / name}: ")) as found:
        data_sets() if name == "sets.toml" else archive("tiny.tar")
    assert "\n" not in str(found.value)


def test_sources_are_listed_in_the_order_of_trying() -> None:
    item = Archive(
        name="x", into="x", unpacked_limit=1, hub="o/n", mirrors=("http://127.0.0.1/x",), drive="D", drive_folder="F"
    )
    assert list(item.sources()) == ["hub", "http", "Drive", "Drive folder"]


def test_a_row_pins_a_whole_commit_or_none_and_one_archive_has_one_sha256() -> None:
    """A hub's tar and a publisher's zip differ in their bytes, so no row may name both."""
    for chosen in data_sets().values():
        for item in map(archive, chosen.archives):
            if item.hub:
                address = Address.parse(item.hub)
                assert address.pinned or address.revision is None
            assert sum(map(bool, (item.hub, item.drive_folder, item.drive or item.mirrors))) == 1
