"""A model hub on loopback, with commits, branches and tags: the requests of `huggingface_hub` itself are answered."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest

LARGE = (".safetensors", ".zip", ".png", ".tar")
"""Endings of the files that are kept as large ones, by their sha256; all others have git's own hash."""


def git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def etag(name: str, data: bytes) -> str:
    return hashlib.sha256(data).hexdigest() if name.endswith(LARGE) else git_hash(data)


@dataclass
class Repository:
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    """Branches and tags."""

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Add or replace files on a branch; return the new revision."""
        whole = {**self.commits.get(self.branches.get(branch, ""), {}), **files}
        text = repr((len(self.commits), sorted((name, etag(name, data)) for name, data in whole.items())))
        sha = hashlib.sha1(text.encode()).hexdigest()
        self.commits[sha], self.branches[branch] = whole, sha
        return sha

    def find(self, revision: str) -> str | None:
        sha = self.branches.get(revision, revision)
        return sha if sha in self.commits else next((each for each in self.commits if each.startswith(sha)), None)


@dataclass
class FakeHub:
    """`repositories` by kind and name; `damage` is what is sent instead of a file's bytes, by its path."""

    url: str = ""
    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    damage: dict[str, bytes] = field(default_factory=dict)
    listed_as: dict[str, str] = field(default_factory=dict)
    """Other names under which files are listed."""

    def repository(self, name: str, kind: str = "models") -> Repository:
        return self.repositories.setdefault((kind, name), Repository())

    def fetched(self) -> list[str]:
        """Return the paths of the files that were downloaded."""
        return [
            re.sub(r".*/resolve/[^/]+/", "", line[4:]) for line in self.requests if re.match("GET .*/resolve/", line)
        ]


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, body: object, status: int = 200, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def missing(self, what: str) -> None:
        self.answer({"error": f"{what} not found"}, 404, X_Error_Code=f"{what}NotFound")

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if found := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree)/(.+))?", path):
            kind, name, what, revision = found.groups()
        elif found := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            kind, name, revision, what = found[1] or "models", found[2], found[3], "file"
        else:
            return self.answer({"error": "no such page"}, 404)
        repository = self.hub.repositories.get((kind.rstrip("/"), name))
        if repository is None:
            return self.missing("Repo")
        if (sha := repository.find(revision or "main")) is None:
            return self.missing("Revision")
        files = repository.commits[sha]
        if what == "tree":
            return self.answer([self.entry(name, data) for name, data in files.items()])
        if what == "file":
            return self.file(found[4], files, sha)
        siblings = [{"rfilename": name} for name in files]
        return self.answer({"id": name, "sha": sha, "siblings": siblings, "tags": [], "private": False, "downloads": 0})

    do_HEAD = do_GET

    def entry(self, name: str, data: bytes) -> dict[str, object]:
        listed = {"type": "file", "path": self.hub.listed_as.get(name, name), "size": len(data), "oid": git_hash(data)}
        if name.endswith(LARGE):
            listed["lfs"] = {"oid": etag(name, data), "size": len(data), "pointerSize": 130}
        return listed

    def file(self, name: str, files: dict[str, bytes], sha: str) -> None:
        if name not in files:
            return self.missing("Entry")
        data = files[name]
        headers = {"ETag": f'"{etag(name, data)}"', "X_Repo_Commit": sha, "X_Linked_Size": str(len(data))}
        return self.answer(self.hub.damage.get(name, data), X_Linked_Etag=f'"{etag(name, data)}"', **headers)

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"POST {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            if not self.hub.repository(name).commits:  # the real one begins with a commit of its own
                self.hub.repository(name).commit({".gitattributes": b""})
            return self.answer({"url": f"{self.hub.url}/{name}", "id": name})
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/.+", path):
            names = [each["path"] for each in json.loads(body)["files"]]
            modes = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
            return self.answer({"files": modes})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/(.+)", path):
            lines = [json.loads(line) for line in body.splitlines()]
            files = {
                each["value"]["path"]: base64.b64decode(each["value"]["content"])
                for each in lines
                if each["key"] == "file"
            }
            sha = self.hub.repository(found[1]).commit(files, found[2])
            return self.answer(
                {"commitUrl": f"{self.hub.url}/{found[1]}/commit/{sha}", "commitOid": sha, "success": True}
            )
        return self.answer({"error": "no such page"}, 404)


@contextmanager
def fake_hub(monkeypatch: pytest.MonkeyPatch, cache: object) -> Iterator[FakeHub]:
    """Serve an empty hub, which `huggingface_hub` of this process takes for the real one, with a cache of its own."""
    from huggingface_hub import constants, file_download

    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    for module in (constants, file_download):  # older versions have it in both
        pages = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", pages, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
