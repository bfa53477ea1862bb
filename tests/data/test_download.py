"""Downloads against a real HTTP server on loopback that misbehaves; gdown goes through it too."""

import gzip
import io
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import gdown
import pytest
import requests
from loopback import Loopback, html, serve, status
from samples import zipped

from manas_lite.data import download
from manas_lite.data.download import DownloadError, fetch, fetch_drive, fetch_url, verify
from manas_lite.data.registry import Archive
from manas_lite.data.unpack import unpack_archive
from manas_lite.runs.checkpoint import sha256_of

BODY = zipped({f"{i}.bin": os.urandom(40_000) for i in range(25)})  # about a megabyte
OTHER = zipped({f"{i}.bin": os.urandom(40_000) for i in range(25)})


class Waits(list):
    """Records the pauses instead of making them."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def item(*mirrors: str, **more) -> Archive:
    return Archive(name="set.zip", into="set", unpacked_limit=10**9, mirrors=mirrors, **more)


def get(archive: Archive, folder: Path, waits: Waits | None = None) -> Path:
    with patch.object(download, "sleep", Waits() if waits is None else waits):
        return fetch(archive, folder, progress=False)


def test_whole_file_arrives_and_is_recorded(server: Loopback, tmp_path: Path) -> None:
    path = get(item(server.on("/a", serve(BODY))), tmp_path)
    assert path.read_bytes() == BODY
    assert sha256_of(path) in (tmp_path / "record.json").read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["record.json", "set.zip"]


def test_cut_line_is_resumed_where_it_broke(server: Loopback, tmp_path: Path) -> None:
    url = server.on("/a", serve(BODY, cut=300_000), serve(BODY, cut=300_000), serve(BODY))
    assert get(item(url), tmp_path).read_bytes() == BODY
    starts = [int(r.removeprefix("bytes=")[:-1]) if r else 0 for _, r in server.requests]
    assert len(starts) == 3
    assert starts[0] == 0
    # What arrived last may be lost with the line, but less than one chunk of 64 KiB.
    assert 300_000 - 2**16 < starts[1] <= 300_000
    assert starts[1] + 300_000 - 2**16 < starts[2] <= starts[1] + 300_000


def test_interrupted_process_goes_on_later(server: Loopback, tmp_path: Path) -> None:
    """What a killed run left as .part is continued by the next one."""

    class Stop(Exception):
        pass

    def stop(_: float) -> None:
        raise Stop

    url = server.on("/a", serve(BODY, cut=500_000), serve(BODY))
    with pytest.raises(Stop), patch.object(download, "sleep", stop):
        fetch(item(url), tmp_path, progress=False)
    assert get(item(url), tmp_path).read_bytes() == BODY
    assert int(str(server.requests[1][1]).removeprefix("bytes=")[:-1]) > 500_000 - 2**16


def test_killed_process_leaves_a_part_that_the_next_one_completes(server: Loopback, tmp_path: Path) -> None:
    part = tmp_path / "set.zip.0.part"
    started = server.on("/a", lambda handler: slow(handler), serve(BODY))

    def slow(handler) -> None:  # half of it, then silence until the client dies
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(BODY)))
        handler.send_header("ETag", '"v1"')
        handler.end_headers()
        handler.wfile.write(BODY[: len(BODY) // 2 + 400_000])
        handler.wfile.flush()
        handler.rfile.read(1)

    script = (
        "from manas_lite.data.download import fetch_url; from pathlib import Path;"
        f"fetch_url({started!r}, Path({str(part)!r}), None, progress=False)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parents[2])
    try:
        while process.poll() is None and not (part.exists() and part.stat().st_size > 200_000):
            time.sleep(0.01)
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "set.zip").exists()
    assert get(item(started), tmp_path).read_bytes() == BODY
    assert server.requests[-1][1] is not None


def test_changed_remote_file_is_never_spliced(server: Loopback, tmp_path: Path) -> None:
    url = server.on("/a", serve(BODY, cut=300_000), serve(OTHER, etag='"v2"'))
    assert get(item(url), tmp_path).read_bytes() == OTHER


def test_server_without_ranges_starts_again(server: Loopback, tmp_path: Path) -> None:
    url = server.on("/a", serve(BODY, cut=300_000), serve(BODY, ranges=False))
    assert get(item(url), tmp_path).read_bytes() == BODY


def test_busy_server_is_waited_for_as_it_asks(server: Loopback, tmp_path: Path) -> None:
    waits = Waits()
    url = server.on("/a", status(429, retry_after=7), status(503), status(429, retry_after=9999), serve(BODY))
    assert get(item(url), tmp_path, waits).read_bytes() == BODY
    assert waits == [7.0, 2.0, 60.0]


def test_always_busy_server_is_given_up(server: Loopback, tmp_path: Path) -> None:
    waits = Waits()
    with pytest.raises(DownloadError, match=r"429.*6 attempts"):
        get(item(server.on("/a", status(429))), tmp_path, waits)
    assert len(server.requests) == 6


def test_falls_through_mirrors_and_tells_every_reason(server: Loopback, tmp_path: Path) -> None:
    bad = [
        server.on("/gone", status(404)),
        server.on("/page", html("<html>Quota exceeded</html>")),
        server.on("/page-as-zip", serve(b"<!DOCTYPE html><p>Sign in</p>")),
        server.on("/noise", serve(b"no archive" * 1000)),
        server.on("/wrong", serve(OTHER)),
    ]
    right = item(*bad, server.on("/good", serve(BODY)), sha256=sha256_of(_file(tmp_path, BODY)))
    assert get(right, tmp_path / "a").read_bytes() == BODY
    with pytest.raises(DownloadError) as caught:
        get(item(*bad, sha256=right.sha256), tmp_path / "b")
    told = str(caught.value)
    for reason in ("404", "HTML page", "neither a zip nor a tar", "expected " + str(right.sha256)):
        assert reason in told, told
    assert told.count("HTML page") == 2
    assert not list((tmp_path / "b").glob("set.zip*"))  # nothing wrong is kept to be resumed


def test_stated_size_is_checked_before_and_after(server: Loopback, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=rf"offers {len(BODY):,} bytes, expected 5"):
        get(item(server.on("/a", serve(BODY)), size=5), tmp_path)
    path = _file(tmp_path, BODY)
    with pytest.raises(DownloadError, match="bytes, expected 7"):
        verify(path, item(size=7), tmp_path)
    assert path.exists()  # a file the user gave is not deleted


def test_a_given_file_that_is_called_a_part_is_not_deleted(tmp_path: Path) -> None:
    path = tmp_path / "train.zip.part"
    path.write_bytes(b"no archive")
    with pytest.raises(DownloadError, match="neither a zip nor a tar"):
        verify(path, item(), tmp_path)
    assert path.exists()


def test_trust_on_first_use_refuses_other_bytes_later(server: Loopback, tmp_path: Path) -> None:
    path = get(item(server.on("/a", serve(BODY))), tmp_path)
    path.unlink()
    with pytest.raises(DownloadError, match=r"from the first download.*take its entry out of .*record.json"):
        get(item(server.on("/a", serve(_same_size_other()))), tmp_path)


def test_verified_file_is_not_downloaded_again(server: Loopback, tmp_path: Path) -> None:
    archive = item(server.on("/a", serve(BODY)))
    get(archive, tmp_path)
    get(archive, tmp_path)
    assert len(server.requests) == 1


def test_damaged_kept_file_is_replaced(server: Loopback, tmp_path: Path) -> None:
    archive = item(server.on("/a", serve(BODY)))
    path = get(archive, tmp_path)
    path.write_bytes(BODY[:-10])
    assert get(archive, tmp_path).read_bytes() == BODY


def test_damaged_record_is_named(server: Loopback, tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text("{")
    with pytest.raises(DownloadError, match=r"record.json: the record of downloads is damaged"):
        get(item(server.on("/a", serve(BODY))), tmp_path)


def test_full_disk_says_so_and_keeps_what_came(server: Loopback, tmp_path: Path) -> None:
    url = server.on("/a", serve(BODY))
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, old[1]))
    try:
        with pytest.raises(OSError, match="disk is full; what has arrived is kept"):
            fetch_url(url, tmp_path / "set.zip.0.part", None, progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert 0 < (tmp_path / "set.zip.0.part").stat().st_size <= 600_000
    assert get(item(url), tmp_path).read_bytes() == BODY
    assert server.requests[-1][1] is not None  # it went on


def test_unreachable_host_is_told(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="ConnectionError"):
        get(item("http://127.0.0.1:9/x"), tmp_path)


# -- limits on the line and on the disk -------------------------------------------------------------------------------


def raw(*parts: bytes, headers: dict[str, str] | None = None, endless: bool = False, reset: bool = False):
    """An answer of these very headers and bytes; `endless` repeats the last part until the client hangs up."""

    def answer(handler) -> None:
        handler.close_connection = True
        lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        handler.wfile.write(f"HTTP/1.1 200 OK\r\nConnection: close\r\n{lines}\r\n".encode("latin-1"))
        for part in parts:
            handler.wfile.write(part)
        handler.wfile.flush()
        while endless:
            handler.wfile.write(parts[-1])
        if reset:
            time.sleep(0.2)  # what was sent arrives first
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.connection.close()

    return answer


def chunk(content: bytes) -> bytes:
    return f"{len(content):x}\r\n".encode() + content + b"\r\n"


@pytest.mark.parametrize("coded", [{}, {"Transfer-Encoding": "chunked"}, {"Content-Encoding": "gzip"}])
def test_an_endless_body_is_given_up_at_the_limit_and_the_next_mirror_asked(
    server: Loopback, tmp_path: Path, small_disk: None, coded: dict[str, str]
) -> None:
    piece = b"PK" * 32_768
    endless = raw(chunk(piece) if "Transfer-Encoding" in coded else piece, headers=coded, endless=True)
    archive = replace(item(server.on("/endless", endless), server.on("/good", serve(BODY))), unpacked_limit=1_500_000)
    assert get(archive, tmp_path).read_bytes() == BODY
    with pytest.raises(DownloadError, match="sends more than the 1,500,000 bytes"):
        get(replace(archive, mirrors=archive.mirrors[:1]), tmp_path / "b")
    with pytest.raises(DownloadError, match="sends more than the 70,000 bytes"):
        get(replace(archive, mirrors=archive.mirrors[:1], size=70_000), tmp_path / "c")


def test_a_body_that_unpacks_on_its_way_is_not_unpacked(server: Loopback, tmp_path: Path, small_disk: None) -> None:
    """Content-Encoding was not asked for: what is written is what came over the line."""
    bomb = gzip.compress(bytes(30_000_000))
    headers = {"Content-Encoding": "gzip", "Content-Length": str(len(bomb))}
    archive = item(server.on("/bomb", raw(bomb, headers=headers)), server.on("/good", serve(BODY)))
    assert get(archive, tmp_path).read_bytes() == BODY


def test_an_archive_that_a_server_calls_gzip_coded_is_taken_as_it_is(server: Loopback, tmp_path: Path) -> None:
    """As Apache does with a .tar.gz."""
    packed = gzip.compress(tar_of(b"x"))
    headers = {"Content-Encoding": "x-gzip", "Content-Length": str(len(packed))}
    assert get(item(server.on("/a", raw(packed, headers=headers))), tmp_path).read_bytes() == packed


ODD = ["\xb2", "-5", "1e3", "9" * 400, "", "٣".encode().decode("latin-1"), "0x10", "1, 2", "5 5", "nan"]


@pytest.mark.parametrize("value", ODD)
@pytest.mark.parametrize("name", ["Content-Length", "Content-Range", "ETag", "Last-Modified", "Content-Type"])
def test_an_odd_header_costs_at_most_this_mirror(server: Loopback, tmp_path: Path, name: str, value: str) -> None:
    odd = server.on("/odd", raw(BODY, headers={name: value}))
    assert get(item(odd, server.on("/good", serve(BODY))), tmp_path).read_bytes() == BODY


@pytest.mark.parametrize("value", ODD)
def test_an_odd_wait_is_the_kits_own(server: Loopback, tmp_path: Path, value: str) -> None:
    waits = Waits()
    assert get(item(server.on("/a", status(503, retry_after=value), serve(BODY))), tmp_path, waits).read_bytes() == BODY
    assert waits == [1.0]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\0" * 500,
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://[\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: \r\n\r\n",
        b"HTTP/1.1 206 Partial\r\nContent-Range: bytes 0-1/\xb2\r\n\r\nPK",
    ],
)
def test_whatever_one_server_says_the_next_is_asked(server: Loopback, tmp_path: Path, line: bytes) -> None:
    def answer(handler) -> None:
        handler.close_connection = True
        handler.wfile.write(line)

    archive = item(server.on("/odd", answer), "http://[nonsense", "nonsense", server.on("/good", serve(BODY)))
    assert get(archive, tmp_path).read_bytes() == BODY


@pytest.mark.parametrize("came", [1, 700, 5_000, 60_000])
@pytest.mark.parametrize("how", ["closed", "reset", "chunked"])
def test_a_cut_keeps_every_byte_that_came(server: Loopback, tmp_path: Path, came: int, how: str) -> None:
    headers = {"ETag": '"v1"', "Content-Length": str(len(BODY))}
    content = BODY[:came]
    if how == "chunked":
        headers, content = {"ETag": '"v1"', "Transfer-Encoding": "chunked"}, chunk(BODY[:came])
    url = server.on("/a", raw(content, headers=headers, reset=how == "reset"), serve(BODY))
    assert get(item(url), tmp_path).read_bytes() == BODY
    assert server.requests[1][1] == f"bytes={came}-"


def test_a_damaged_archive_is_set_aside_and_the_next_source_asked(server: Loopback, tmp_path: Path, capsys) -> None:
    """It lists well, so only unpacking finds the damage: of the kept one, then of the first mirror's."""
    damaged = bytearray(BODY)
    damaged[BODY.index(b"3.bin") + 1000] ^= 1
    (tmp_path / "set.zip").write_bytes(damaged)
    archive = item(server.on("/bad", serve(bytes(damaged))), server.on("/good", serve(BODY)))
    path = fetch(archive, tmp_path, progress=False, use=unpacking(tmp_path / "out"))
    assert path.read_bytes() == BODY
    assert (tmp_path / "set.zip.damaged").read_bytes() == damaged
    assert "set aside as" in capsys.readouterr().err
    assert [asked for asked, _ in server.requests] == ["/bad", "/good"]
    assert len(list((tmp_path / "out").iterdir())) == 25
    path.write_bytes(damaged)
    fetch(archive, tmp_path, progress=False, use=unpacking(tmp_path / "out"))
    assert sorted(p.name for p in tmp_path.glob("*.damaged*")) == ["set.zip.damaged", "set.zip.damaged1"]
    first_mirror_alone_fails(archive, tmp_path, r"broken or of an unknown kind.*download it again")


def test_an_archive_whose_members_are_in_one_anothers_way_counts_as_damaged(server: Loopback, tmp_path: Path) -> None:
    """The disk is well, so the next source is asked, and nothing of the first stays under the archive's name."""
    bad = zipped({"train.zip": zipped({"1.png": b"x"}), "train/1.png": b"y"})
    archive = item(server.on("/bad", serve(bad)), server.on("/good", serve(BODY)))
    assert fetch(archive, tmp_path, progress=False, use=unpacking(tmp_path / "out")).read_bytes() == BODY
    first_mirror_alone_fails(archive, tmp_path, r"train\.zip: '1\.png' cannot be made")


def test_an_archive_that_is_set_aside_can_be_a_pipe(server: Loopback, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "set.zip")
    assert get(item(server.on("/a", serve(BODY))), tmp_path).read_bytes() == BODY


@pytest.mark.parametrize("make", [os.mkfifo, lambda p: p.symlink_to("/dev/zero"), lambda p: p.mkdir(), lambda p: None])
def test_only_regular_files_are_archives(tmp_path: Path, make) -> None:
    make(tmp_path / "x.zip")
    with pytest.raises(DownloadError, match=r"x\.zip: is no regular file"):
        verify(tmp_path / "x.zip", item(), tmp_path)


def first_mirror_alone_fails(archive: Archive, folder: Path, says: str) -> None:
    """Nothing damaged is taken for right, or resumed, the next time."""
    alone = replace(archive, name="b.zip", mirrors=archive.mirrors[:1])
    with pytest.raises(DownloadError, match=says):
        fetch(alone, folder, progress=False, use=unpacking(folder / "c"))
    assert not list(folder.glob("b.zip*"))


def unpacking(into: Path):
    return lambda path: unpack_archive(path, into, 10**9)


def tar_of(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("a")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def small_disk() -> Iterator[None]:
    """The system itself lets no file grow beyond 1.5 MB: what would is an OSError, which no mirror answers for."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, old)


# -- Drive, by gdown itself ---------------------------------------------------------------------------------------


@pytest.fixture
def drive(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> Loopback:
    """Requests to Google's hosts reach the loopback server; all of gdown and requests is real."""
    send = requests.adapters.HTTPAdapter.send

    def redirected(self, request, *args, **kwargs):
        parts = urllib.parse.urlsplit(request.url)
        if parts.hostname and parts.hostname.endswith("google.com"):
            request.url = server.url + parts.path + ("?" + parts.query if parts.query else "")
        return send(self, request, *args, **kwargs)

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", redirected)
    return server


CONFIRM = (
    '<html><form id="download-form" action="https://drive.usercontent.google.com/download" method="get">'
    '<input type="hidden" name="id" value="ID"><input type="hidden" name="confirm" value="t"></form></html>'
)
QUOTA = '<html><p class="uc-error-subcaption">Too many users have viewed or downloaded this file recently.</p></html>'


def test_drive_file_by_id(drive: Loopback, tmp_path: Path) -> None:
    drive.on("/uc", serve(BODY, name="train.zip"))
    assert get(item(drive="ID"), tmp_path).read_bytes() == BODY
    assert drive.requests[0][0] == "/uc?id=ID"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["record.json", "set.zip"]


def test_drive_asks_for_confirmation(drive: Loopback, tmp_path: Path) -> None:
    drive.on("/uc", html(CONFIRM))
    drive.on("/download", serve(BODY, name="train.zip"))
    assert get(item(drive="ID"), tmp_path).read_bytes() == BODY
    assert drive.requests[-1][0] == "/download?id=ID&confirm=t"


def test_drive_line_is_cut_and_resumed(drive: Loopback, tmp_path: Path) -> None:
    drive.on("/uc", serve(BODY, cut=600_000, name="train.zip"), serve(BODY, name="train.zip"))
    assert get(item(drive="ID"), tmp_path).read_bytes() == BODY
    assert any(asked and asked != "bytes=0-" for _, asked in drive.requests)


def test_drive_quota_ends_in_the_reason(drive: Loopback, tmp_path: Path) -> None:
    drive.on("/uc", html(QUOTA))
    with pytest.raises(DownloadError, match=r"Drive refuses \(quota or permission\).*Too many users"):
        get(item(drive="ID"), tmp_path)


def test_drive_delivering_html_under_a_file_name_is_refused(drive: Loopback, tmp_path: Path) -> None:
    drive.on("/uc", serve(b"<!doctype html><html>sign in</html>", name="train.zip"))
    with pytest.raises(DownloadError, match="HTML page"):
        get(item(drive="ID"), tmp_path)


@pytest.mark.parametrize("limit", [100_000, len(BODY) - 1])
def test_drive_sends_no_more_than_an_archive_can_have(
    drive: Loopback, tmp_path: Path, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive.on("/uc", serve(BODY, name="train.zip"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    largest = [0]
    plain = gdown.download

    def watched(**arguments):
        try:
            return plain(**arguments)
        finally:
            largest[0] = sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file())

    monkeypatch.setattr(gdown, "download", watched)
    with pytest.raises(DownloadError, match="more than this archive can have"):
        get(replace(item(drive="ID"), unpacked_limit=limit), tmp_path)
    assert 0 < largest[0] <= limit
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE) == before
    get(replace(item(drive="ID"), unpacked_limit=len(BODY)), tmp_path)


def test_the_end_of_a_file_on_a_full_disk_is_not_lost(
    server: Loopback, tmp_path: Path, small_disk: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system takes part of the last piece: that is no error of its own, and the next write is one."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(BODY) - 10, hard))
    url = server.on("/a", serve(BODY))
    with pytest.raises(OSError, match="disk is full"):
        get(item(url), tmp_path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert get(item(url), tmp_path).read_bytes() == BODY
    assert server.requests[-1][1] == f"bytes={len(BODY) - 10}-"  # what had arrived was kept


@pytest.mark.parametrize(
    "text", ["[]", '{"set.zip": 3}', '{"set.zip": {"size": "x"}}', "[" * 100_000, '{"set.zip": {}}']
)
def test_a_record_that_is_none_is_told(server: Loopback, tmp_path: Path, text: str) -> None:
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(DownloadError, match=r"record.json: the record of downloads is damaged") as found:
        get(item(server.on("/a", serve(BODY))), tmp_path)
    assert "\n" not in str(found.value)


def test_mirror_comes_before_drive(drive: Loopback, tmp_path: Path) -> None:
    drive.on("/uc", serve(OTHER, name="train.zip"))
    get(item(drive.on("/mirror", serve(BODY)), drive="ID"), tmp_path)
    assert [path for path, _ in drive.requests] == ["/mirror"]


def test_only_arguments_that_gdown_5_and_6_share(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shared = {"url", "output", "quiet", "proxy", "speed", "use_cookies", "verify", "id", "resume", "format"}
    used = {}

    def download(**arguments):
        used.update(arguments)
        Path(arguments["output"]).write_bytes(BODY)
        return arguments["output"]

    monkeypatch.setattr(gdown, "download", download)
    fetch_drive("ID", tmp_path / "set.zip.0.part", progress=False)
    assert set(used) <= shared


def _file(folder: Path, body: bytes) -> Path:
    path = folder / "some.zip"
    path.write_bytes(body)
    return path


def _same_size_other() -> bytes:
    changed = bytearray(BODY)
    changed[100] ^= 1
    return bytes(changed)
