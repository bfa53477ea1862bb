"""What the weekly job says of the data sets' addresses, asked of servers on loopback."""

import importlib.util
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from project import ROOT


@pytest.fixture(scope="module")
def data_board():
    spec = importlib.util.spec_from_file_location("data_board", ROOT / "scripts" / "data_board.py")
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["data_board"] = module  # its dataclass looks itself up
    spec.loader.exec_module(module)
    return module


class Sets(BaseHTTPRequestHandler):
    sent = 0

    def do_GET(self) -> None:
        status = 200 if self.path == "/there.zip" else 404
        self.send_response(status)
        self.send_header("Content-Length", "5000000")
        self.end_headers()
        try:
            for _ in range(50 if status == 200 else 0):
                self.wfile.write(b"x" * 100_000)
                Sets.sent += 100_000
        except OSError:
            pass

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    served = ThreadingHTTPServer(("127.0.0.1", 0), Sets)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()


def test_a_head_is_asked_for_and_no_body(data_board, server: str) -> None:
    found = data_board.ask(f"{server}/there.zip")
    assert (found.ok, found.size) == (True, 5_000_000)
    assert Sets.sent < 5_000_000
    assert not data_board.ask(f"{server}/gone.zip").ok
    assert "404" in data_board.ask(f"{server}/gone.zip").text
    assert not data_board.ask("http://127.0.0.1:9/nobody.zip", timeout=2).ok


def test_a_board_lists_every_archive_and_names_the_dead(data_board) -> None:
    text, dead = data_board.board(lambda url: data_board.Answer("rain13k" not in url, "asked"))
    for name in {each for one in data_board.data_sets().values() for each in one.archives}:
        assert f"| {name} |" in text
    assert dead == []
    _, dead = data_board.board(lambda url: data_board.Answer(False, "no"))
    assert len(dead) == len({each for one in data_board.data_sets().values() for each in one.archives})


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda path: path.name)
def test_workflows_are_yaml_and_run_what_there_is(path: Path) -> None:
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for job in document.get("jobs", {}).values():
        assert job["timeout-minutes"] <= 90
        for step in job["steps"]:
            for word in step.get("run", "").split("make ")[1:]:
                assert f"\n{word.split()[0]}:" in makefile, word
            for script in [part for part in step.get("run", "").split() if part.startswith("scripts/")]:
                assert (ROOT / script).is_file()
