"""A real HTTP server on loopback that misbehaves on demand: it cuts lines, ignores ranges, asks to wait, sends HTML."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[["Handler"], None]


@dataclass
class Loopback:
    """`answers[path]` are given in turn, the last one for ever; `requests` holds (path, Range header)."""

    url: str = ""
    answers: dict[str, deque[Answer]] = field(default_factory=dict)
    requests: list[tuple[str, str | None]] = field(default_factory=list)

    def on(self, path: str, *answers: Answer) -> str:
        self.answers[path] = deque(answers)
        return self.url + path


class Handler(BaseHTTPRequestHandler):
    loopback: Loopback
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.loopback.requests.append((self.path, self.headers.get("Range")))
        answers = self.loopback.answers.get(path)
        if not answers:
            return status(404)(self)
        answer = answers[0] if len(answers) == 1 else answers.popleft()
        return answer(self)

    def log_message(self, *_: object) -> None:
        pass


class Quiet(ThreadingHTTPServer):
    """Clients that hang up are the point here, so nothing is printed about them."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        pass


@contextmanager
def loopback() -> Iterator[Loopback]:
    state = Loopback()
    handler = type("BoundHandler", (Handler,), {"loopback": state})
    server = Quiet(("127.0.0.1", 0), handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def serve(
    body: bytes,
    *,
    cut: int | None = None,
    ranges: bool = True,
    etag: str | None = '"v1"',
    content_type: str = "application/zip",
    name: str | None = None,
) -> Answer:
    """The body, or what a Range asks for; `cut` closes the line after so many bytes of this answer."""

    def answer(handler: Handler) -> None:
        asked = handler.headers.get("Range")
        same = handler.headers.get("If-Range") in (None, etag)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and ranges and same else 0
        if start >= len(body) > 0 and start:
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(body)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        handler.send_header("Content-Type", content_type)
        handler.send_header("Content-Length", str(len(body) - start))
        if etag:
            handler.send_header("ETag", etag)
        if name:
            handler.send_header("Content-Disposition", f'attachment; filename="{name}"')
        handler.end_headers()
        rest = body[start:]
        handler.wfile.write(rest if cut is None else rest[:cut])
        if cut is not None:
            handler.wfile.flush()
            handler.close_connection = True
            handler.connection.close()

    return answer


def status(code: int, retry_after: int | str | None = None) -> Answer:
    def answer(handler: Handler) -> None:
        handler.send_response(code)
        if retry_after is not None:
            handler.send_header("Retry-After", str(retry_after))
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def html(text: str) -> Answer:
    return serve(text.encode(), content_type="text/html; charset=utf-8", etag=None)
