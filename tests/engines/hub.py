"""A model hub on 127.0.0.1: just what `huggingface_hub` asks for when it downloads a model."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Serves `folder / owner / name` as models.

    `gated` holds the ids that nobody may read, `asked` every path that was asked for; a file in `cut_after` breaks off
    after so many bytes, once, and one in `hang_after` says nothing more after them: `hangs` is set then. `begun_at`
    tells from which byte on weights were sent. With `has_ranges` False every file is sent from its beginning.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.commit = COMMIT
        self.gated: set[str] = set()
        self.asked: list[str] = []
        self.cut_after: dict[str, int] = {}
        self.hang_after: dict[str, int] = {}
        self.hangs = threading.Event()
        self.has_ranges = True
        self.begun_at: list[int] = []
        self.url = ""

    def files(self, repo: str) -> dict[str, Path]:
        root = self.folder / repo
        return {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if path.is_file()}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def log_message(self, *_: object) -> None: ...

    def answer(self, *, with_body: bool) -> None:
        path = unquote(self.path.partition("?")[0])
        self.hub.asked.append(f"{self.command} {path}")
        parts = path.removeprefix("/api/models").strip("/").split("/")
        repo = "/".join(parts[:2])
        files = self.hub.files(repo)
        action, commit = parts[2:4]
        sizes = {name: file.stat().st_size for name, file in files.items()}
        if not files:
            self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif repo in self.hub.gated and action != "revision":
            self.send(403, b"{}", {"X-Error-Code": "GatedRepo"})
        elif action == "revision" and commit not in ("main", COMMIT, self.hub.commit):
            self.send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif action == "revision":
            siblings = [_described(name, file) for name, file in files.items()]
            sha = self.hub.commit if commit == "main" else commit
            self.send_json({"id": repo, "sha": sha, "siblings": siblings})
        elif action == "tree":
            oids = {name: hashlib.sha1(name.encode()).hexdigest() for name in files}
            self.send_json([{"type": "file", "path": name, "size": sizes[name], "oid": oids[name]} for name in files])
        else:
            self.send_file(files["/".join(parts[4:])], commit, with_body=with_body)

    def send_file(self, file: Path, commit: str, *, with_body: bool) -> None:
        data = file.read_bytes()
        headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": commit}
        begin = int((self.headers.get("Range") or "bytes=0-")[6:].partition("-")[0]) if self.hub.has_ranges else 0
        if with_body and file.suffix == ".safetensors":
            self.hub.begun_at.append(begin)
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        cut = self.hub.cut_after.pop(file.name, None) if with_body else None
        hang = self.hub.hang_after.pop(file.name, None) if with_body else None
        self.send(206 if begin else 200, data[begin:], headers, with_body=with_body, cut=cut if hang is None else hang)
        if hang is not None:
            self.hub.hangs.set()
            with suppress(ConnectionError):
                self.rfile.read()  # until the client goes away

    def send_json(self, content: object) -> None:
        self.send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def send(
        self, status: int, data: bytes, headers: dict[str, str], *, with_body: bool = True, cut: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body and self.command != "HEAD":
            self.wfile.write(data if cut is None else data[:cut])
        if cut is not None:
            self.close_connection = True


def _described(name: str, file: Path) -> dict[str, object]:
    size, sha256 = file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest()
    lfs = {"lfs": {"size": size, "sha256": sha256, "pointerSize": 100}} if file.suffix == ".safetensors" else {}
    return {"rfilename": name, "size": size, **lfs}


@contextmanager
def serve(folder: Path) -> Iterator[Hub]:
    """A running hub."""
    hub = Hub(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
