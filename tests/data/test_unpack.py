"""Archives made by strangers."""

import bz2
import gzip
import io
import lzma
import os
import stat
import subprocess
import sys
import tarfile
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import zipped

from manas_lite.data import unpack
from manas_lite.data.registry import data_sets
from manas_lite.data.unpack import DEPTH, MEMBERS, ArchiveError, is_archive, unpack_archive

LIMIT = 10_000_000


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def tarred(*members: tarfile.TarInfo | tuple[str, bytes], mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return buffer.getvalue()


def packed(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def zip_with_mode(name: str, mode: int, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        archive.writestr(info, content)
    return buffer.getvalue()


@pytest.mark.parametrize("make", [lambda *f: tarred(*f, mode="w:bz2"), lambda *f: packed(dict(f))])
def test_what_unpacks_to_far_more_than_pictures_can_is_refused_whatever_the_limit(
    tmp_path: Path, monkeypatch, make
) -> None:
    monkeypatch.setattr(unpack, "_SMALL", 1 << 20)
    with pytest.raises(ArchiveError, match="bytes, more than the"):
        unpack_archive(write(tmp_path / "x.zip", make(("a.png", bytes(9 << 20)))), tmp_path / "set", 10**12)
    assert [p.name for p in tmp_path.iterdir()] == ["x.zip"]
    noise = np.random.default_rng(0).bytes(2 << 20)
    assert unpack_archive(write(tmp_path / "x.zip", make(("a.png", noise))), tmp_path / "set", 10**12).is_dir()


@pytest.mark.parametrize(
    "make", [zipped, lambda files: tarred(*files.items()), lambda f: tarred(*f.items(), mode="w:xz")]
)
def test_files_arrive_whole(tmp_path: Path, make) -> None:
    files = {"train/a.bin": b"a" * 3_000_000, "train/雨/b.bin": b"", "c": b"c"}
    into = unpack_archive(write(tmp_path / "x.zip", make(files)), tmp_path / "set", LIMIT)
    assert {p.relative_to(into).as_posix(): p.read_bytes() for p in into.rglob("*") if p.is_file()} == files
    assert sorted(p.name for p in tmp_path.iterdir()) == ["set", "x.zip"]


@pytest.mark.parametrize("pack", [zipped, lambda files: tarred(*files.items())])
def test_archives_in_an_archive_become_folders(tmp_path: Path, pack) -> None:
    """As repositories of data hold them. What only has such a name stays, and so does an archive in one of them."""
    deep = zipped({"z": b"z"})
    inner = {"a/1": b"1", "deep.zip": deep}
    files = {"x/train.zip": zipped(inner), "test.tar.gz": tarred(("2", b"2")), "notes.gz": b"no archive", "c": b"c"}
    into = unpack_archive(write(tmp_path / "x.zip", pack(files)), tmp_path / "set", LIMIT)
    assert {p.relative_to(into).as_posix(): p.read_bytes() for p in into.rglob("*") if p.is_file()} == {
        "x/train/a/1": b"1",
        "x/train/deep.zip": deep,
        "test.tar/2": b"2",
        "notes.gz": b"no archive",
        "c": b"c",
    }


@pytest.mark.parametrize(
    ("inner", "told"),
    [
        (lambda: zipped({"../out": b"x"}), r"x\.zip: in\.zip: .*outside the folder"),
        (lambda: tarred(special("link", tarfile.SYMTYPE, "/etc/passwd")), "link or device"),
        (lambda: zipped({str(n): b"" for n in range(30)}), "holds 21 members or more"),
        (lambda: zipped({"large": b"x" * (LIMIT - 1_000)}), "unpacks to"),
        (lambda: zipped({"a": b"x" * 50_000}).replace(b"x" * 40_000, b"y" * 40_000), "is broken"),
    ],
)
def test_an_archive_in_an_archive_has_the_limits_of_both_together(tmp_path: Path, monkeypatch, inner, told) -> None:
    monkeypatch.setattr("manas_lite.data.unpack.MEMBERS", 20)
    content = zipped({"in.zip": inner(), "other": b"o" * 2_000})
    with pytest.raises(ArchiveError, match=told):
        unpack_archive(write(tmp_path / "x.zip", content), tmp_path / "set", LIMIT)
    assert [p.name for p in tmp_path.rglob("*")] == ["x.zip"]


def test_two_archives_fill_one_folder(tmp_path: Path) -> None:
    for name, files in {"a": {"train/1": b"1", "both/x": b"x"}, "b": {"test/2": b"2", "both/y": b"y"}}.items():
        unpack_archive(write(tmp_path / name, zipped(files)), tmp_path / "set", LIMIT)
    assert sorted(p.name for p in (tmp_path / "set").rglob("*") if p.is_file()) == ["1", "2", "x", "y"]


HOSTILE = {
    "parent": (zipped({"../evil": b"x"}), "outside the folder"),
    "deep parent": (zipped({"a/../../evil": b"x"}), "outside the folder"),
    "backslash": (zipped({"..\\evil": b"x"}), "outside the folder"),
    "absolute": (zipped({"/evil": b"x"}), "outside the folder"),
    "drive": (zipped({"C:/evil": b"x"}), "outside the folder"),
    "zip link": (zip_with_mode("link", stat.S_IFLNK | 0o777, b"/etc"), "link or device"),
    "tar parent": (tarred(("../evil", b"x")), "outside the folder"),
    "tar absolute": (tarred(("/evil", b"x")), "outside the folder"),
    "tar link": (tarred(special("link", tarfile.SYMTYPE, "/etc")), "link or device"),
    "tar hard link": (tarred(("a", b"x"), special("b", tarfile.LNKTYPE, "a")), "link or device"),
    "tar device": (tarred(special("null", tarfile.CHRTYPE)), "link or device"),
    "bomb": (zipped({f"{i}": b"\0" * 3_000_000 for i in range(4)}), "12,000,000 bytes, more than the 10,000,000"),
    "tar bomb": (tarred(*((f"{i}", b"\0" * 3_000_000) for i in range(4))), "more than the 10,000,000"),
    "text": (b"I am no archive at all", "neither a zip nor a tar"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_archive_is_refused_and_writes_nothing(tmp_path: Path, kind: str) -> None:
    content, says = HOSTILE[kind]
    home = tmp_path / "home"
    home.mkdir()
    with pytest.raises(ArchiveError, match=says) as caught:
        unpack_archive(write(home / "x.zip", content), home / "sets" / "set", LIMIT)
    assert str(home / "x.zip") in str(caught.value)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["x.zip"]
    assert not (home / "sets" / "set").exists()


def test_archive_that_lies_about_its_size_is_stopped(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", b"\0" * 5_000_000)
    content = buffer.getvalue().replace((5_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    assert content != buffer.getvalue()
    with pytest.raises(ArchiveError):
        unpack_archive(write(tmp_path / "x.zip", content), tmp_path / "set", 1000)
    assert not (tmp_path / "set").exists()


def test_damaged_member_leaves_nothing_half_filled(tmp_path: Path) -> None:
    content = bytearray(zipped({"a": b"a" * 1000, "b": b"b" * 1000}))
    content[content.index(b"bbbb") + 500] ^= 1
    with pytest.raises(ArchiveError, match=r"broken.*download it again"):
        unpack_archive(write(tmp_path / "x.zip", bytes(content)), tmp_path / "set", LIMIT)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.zip"]


def test_truncated_tar_is_refused(tmp_path: Path) -> None:
    content = tarred(("a", bytes(range(256)) * 4000), mode="w")
    with pytest.raises(ArchiveError):
        unpack_archive(write(tmp_path / "x.tar", content[: len(content) // 2]), tmp_path / "set", LIMIT)
    assert not (tmp_path / "set").exists()


def test_too_small_a_disk_is_told_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(OSError, match=r"needs 5 bytes below .*, where 1,000 are free"):
        unpack_archive(write(tmp_path / "x.zip", zipped({"a": b"12345"})), tmp_path / "set", LIMIT)


def test_archives_are_known_by_their_bytes(tmp_path: Path) -> None:
    assert is_archive(write(tmp_path / "a.jpg", zipped({"a": b""})))
    assert is_archive(write(tmp_path / "b", tarred(("a", b""))))
    assert not is_archive(write(tmp_path / "c.zip", b"<html>"))


# -- limits that are counted while the archive is read ----------------------------------------------------------------


def refused(tmp_path: Path, content: bytes, says: str, limit: int = LIMIT) -> str:
    """Unpack, and return the one line in which it is refused; nothing may be left."""
    path = write(tmp_path / "x.archive", content)
    with pytest.raises(ArchiveError, match=says) as caught:
        unpack_archive(path, tmp_path / "set", limit)
    assert [p.name for p in tmp_path.iterdir()] == ["x.archive"]
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("place", ["member", "long name", "pax header", "after the end", "folder"])
def test_a_bomb_is_given_up_after_little_of_it(tmp_path: Path, monkeypatch, compress, place: str) -> None:
    """30 MB of zeros where a limit of 1 MB holds: what is decompressed of them is a slack of 4 MB at most."""
    bomb = 30_000_000
    if place == "after the end":
        content = tarred(("a", b"x"), mode="w") + bytes(bomb)
    else:
        types = {"member": tarfile.REGTYPE, "long name": tarfile.GNUTYPE_LONGNAME, "pax header": tarfile.XHDTYPE}
        info = special("a", types.get(place, tarfile.DIRTYPE))
        info.size = bomb
        content = info.tobuf(tarfile.GNU_FORMAT) + bytes(bomb)
    read = []
    for module, name in ((gzip, "GzipFile"), (bz2, "BZ2File"), (lzma, "LZMAFile")):

        class Watched(getattr(module, name)):
            def read(self, size=-1):
                piece = super().read(size)
                read.append(len(piece))
                return piece

        monkeypatch.setattr(module, name, Watched)
    refused(tmp_path, compress(content), "more than the 1,000,000|more bytes than its members state|broken", 1_000_000)
    assert 0 < sum(read) < 10_000_000


@pytest.mark.parametrize(
    "make", [lambda names: zipped(dict.fromkeys(names, b"")), lambda names: tarred(*((n, b"") for n in names))]
)
def test_too_many_members_are_refused(tmp_path: Path, monkeypatch, make) -> None:
    monkeypatch.setattr("manas_lite.data.unpack.MEMBERS", 20)
    refused(tmp_path, make([f"{i}" for i in range(21)]), "holds 21 members or more, and 20 are the most")
    path = write(tmp_path / "x.archive", make([f"{i}" for i in range(20)]))
    assert len(list(unpack_archive(path, tmp_path / "set", LIMIT).iterdir())) == 20


def test_the_limit_on_members_lets_every_registered_set_in_and_no_hundred_thousand() -> None:
    assert (
        2 * max(sum(chosen.pairs.values()) for chosen in data_sets().values() if chosen.automatic) < MEMBERS < 100_000
    )


def test_folders_of_a_tar_count_as_members(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("manas_lite.data.unpack.MEMBERS", 20)
    refused(tmp_path, tarred(*(special(f"{i}", tarfile.DIRTYPE) for i in range(30))), "20 are the most")


@pytest.mark.parametrize("depth", [DEPTH + 1, 500, 5000])
@pytest.mark.parametrize("pack", [zipped, lambda files: tarred(*files.items())])
def test_deep_folders_are_refused(tmp_path: Path, pack, depth: int) -> None:
    refused(tmp_path, pack({"d/" * depth + "x": b"x"}), f"{depth:,} folders deep")


def test_folders_as_deep_as_allowed_are_unpacked(tmp_path: Path) -> None:
    name = "d/" * DEPTH + "x"
    into = unpack_archive(write(tmp_path / "x.zip", zipped({name: b"x"})), tmp_path / "set", LIMIT)
    assert (into / name).read_bytes() == b"x"


def test_headers_nested_in_headers_are_refused(tmp_path: Path) -> None:
    """A thousand long names, each the header of the next: tarfile reads them by recursion."""
    link = special("a", tarfile.GNUTYPE_LONGNAME)
    link.size = 2
    refused(
        tmp_path, (link.tobuf(tarfile.GNU_FORMAT) + b"b\0".ljust(512, b"\0")) * 3000, "broken or of an unknown kind"
    )


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("damage", ["last bytes", "half", "checksum"])
def test_damaged_compression_is_refused_though_its_members_can_be_read(tmp_path: Path, mode: str, damage: str) -> None:
    content = bytearray(tarred(("a", os.urandom(100_000)), ("b", os.urandom(100_000)), mode=mode))
    if damage == "checksum":
        place = {"w:gz": -8, "w:bz2": -4, "w:xz": -20}[mode]
        content[place] ^= 0x55
    else:
        del content[-9 if damage == "last bytes" else len(content) // 2 :]
    refused(tmp_path, bytes(content), "download it again|neither a zip nor a tar")  # half a block of bz2 is nothing yet


@pytest.mark.parametrize("keep", [512, 1024, 1536, 2048, 1024 + 700])
def test_a_tar_without_its_end_is_refused(tmp_path: Path, keep: int) -> None:
    """Also one cut between two members, which lists well."""
    refused(tmp_path, tarred(("a", b"x" * 500), ("b", b"x" * 500), ("c", b""), mode="w")[:keep], "download it again")


def test_a_damaged_header_does_not_hide_the_members_behind_it(tmp_path: Path) -> None:
    content = bytearray(tarred(("a", b"x"), ("b", b"x"), ("c", b"x"), mode="w"))
    content[1024 + 3] ^= 0xFF
    refused(tmp_path, bytes(content), "download it again")


@pytest.mark.parametrize(
    "names", [("a", "a/b"), ("a/b", "a"), ("x" * 300, "b"), ("d/" * 20 + "y" * 250 + "/" + "z" * 256, "b")]
)
@pytest.mark.parametrize("pack", [zipped, lambda files: tarred(*files.items())])
def test_names_that_no_disk_can_hold(tmp_path: Path, pack, names) -> None:
    refused(tmp_path, pack(dict.fromkeys(names, b"x")), "x.archive")


def test_an_archive_in_an_archive_joins_the_folder_of_its_name(tmp_path: Path) -> None:
    files = {"train.zip": zipped({"1.png": b"1", "a/2.png": b"2"}), "train.tar": tarred(("3", b"3")), "train/a/4": b"4"}
    into = unpack_archive(write(tmp_path / "x.zip", zipped(files)), tmp_path / "set", LIMIT)
    assert sorted(p.relative_to(into).as_posix() for p in into.rglob("*") if p.is_file()) == [
        "train/1.png",
        "train/3",
        "train/a/2.png",
        "train/a/4",
    ]


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"train/1.png": b"y"}, r"x\.archive: train\.zip: '1\.png' cannot be made .*exists"),
        ({"train.tar": tarred(("1.png", b"y"))}, r"x\.archive: train\.zip: '1\.png' cannot be made .*exists"),
        ({"train": b"a file"}, r"x\.archive: train\.zip: 'train' cannot be made .*exists"),
        ({"train/1.png/a": b"y"}, r"x\.archive: train\.zip: '1\.png' cannot be made"),
    ],
)
def test_an_archive_in_an_archive_replaces_nothing(tmp_path: Path, files, told) -> None:
    refused(tmp_path, zipped({"train.zip": zipped({"1.png": b"x"}), **files}), told)


def test_the_last_of_two_members_of_one_name_counts(tmp_path: Path) -> None:
    into = unpack_archive(write(tmp_path / "x.tar", tarred(("a", b"old"), ("a", b"new"))), tmp_path / "set", LIMIT)
    assert (into / "a").read_bytes() == b"new"


def test_names_that_differ_in_the_case_of_letters_never_replace_one_another(tmp_path: Path, monkeypatch) -> None:
    """On the disks of Windows and macOS they are one file; here `open` is told so."""

    def folding(path, mode):
        return open(Path(path).with_name(Path(path).name.lower()), mode)

    monkeypatch.setattr(unpack, "open", folding, raising=False)
    monkeypatch.setattr(unpack, "is_archive", lambda path: False)
    monkeypatch.setattr(unpack, "_tar_opener", lambda path: None)
    refused(tmp_path, zipped({"A.png": b"1", "a.png": b"2"}), r"'a\.png' cannot be made .*exists")


@pytest.mark.parametrize(("there", "held"), [("a", "a/b"), ("a/b", "a")])
def test_what_is_there_in_the_place_of_a_folder_or_file_stays(tmp_path: Path, there: str, held: str) -> None:
    (tmp_path / "set" / there).parent.mkdir(parents=True)
    (tmp_path / "set" / there).write_bytes(b"mine")
    with pytest.raises(ArchiveError, match=r"x\.zip: holds 'a', and .*a is in its way"):
        unpack_archive(write(tmp_path / "x.zip", zipped({"Z": b"z", "0": b"0", held: b"x"})), tmp_path / "set", LIMIT)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [tmp_path / "x.zip", tmp_path / "set" / there]


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_that_zipfile_would_unpack_without_bound_is_refused(tmp_path: Path, method: int) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("a", b"x" * 1000)
    refused(tmp_path, buffer.getvalue(), f"packed by method {method}, not by deflate")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(["zip", "w", "w:gz", "w:bz2", "w:xz"]), data=st.data())
def test_a_changed_archive_is_unpacked_or_refused(tmp_path_factory, kind: str, data) -> None:
    """Any few bytes changed, or any tail lost: an ArchiveError, if any error at all, and nothing left over."""
    files = {"a/x": bytes(range(256)) * 20, "b": b"hello " * 300}
    content = bytearray(zipped(files) if kind == "zip" else tarred(*files.items(), mode=kind))
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(0, len(content))) :]
    folder = tmp_path_factory.mktemp("fuzz")
    with suppress(ArchiveError):
        into = unpack_archive(write(folder / "x", bytes(content)), folder / "set", LIMIT)
        assert sum(p.stat().st_size for p in into.rglob("*") if p.is_file()) <= LIMIT
    assert not list(folder.glob(".*"))


@pytest.mark.slow
def test_what_a_killed_unpacking_left_is_cleared_and_a_running_one_is_not(tmp_path: Path) -> None:
    path = write(tmp_path / "x.zip", zipped({"a": b"x" * 1000}))
    script = (
        "import os, signal, manas_lite.data.unpack as u\n"
        "u._copy = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"u.unpack_archive({str(path)!r}, {str(tmp_path / 'set')!r}, 10**6)"
    )
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2]).returncode == -9
        (killed,) = tmp_path.glob(".set.*.unpacking")  # the second call has cleared what the first one left
    older = tmp_path / ".set.abc.unpacking"  # of a version without locks
    (older / "train").mkdir(parents=True)
    running, other = tmp_path / ".set.def.unpacking", tmp_path / ".another.abc.unpacking"
    running.mkdir()
    other.mkdir()
    with FileLock(running / ".lock"):
        unpack_archive(path, tmp_path / "set", LIMIT)
    assert not killed.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == [other.name, running.name, "set", "x.zip"]


@pytest.mark.parametrize("make", [os.mkfifo, lambda p: p.symlink_to("/dev/zero"), lambda p: p.mkdir(), lambda p: None])
def test_only_regular_files_are_opened(tmp_path: Path, make) -> None:
    make(tmp_path / "x.zip")
    with pytest.raises(ArchiveError, match="no regular file"):
        unpack_archive(tmp_path / "x.zip", tmp_path / "set", LIMIT)


def test_the_cases_that_were_found(tmp_path: Path, repository: Path) -> None:
    cases = repository.parent / "shared" / "cases" / "files"
    if not cases.is_dir():
        pytest.skip("the shared cases are not here")
    for name, says in (
        ("deep.zip", "folders deep"),
        ("bomb.tar.bz2", "more than the"),
        ("crc.tgz", "download it again"),
    ):
        refused(tmp_path, (cases / name).read_bytes(), says)
