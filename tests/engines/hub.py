"""A model hub on 127.0.0.1: just what `huggingface_hub` asks for when it downloads a model."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Serves `folder / owner / name` as models.

    `gated` holds the ids that nobody may read, `asked` every path that was asked for; a file in `cut_after` breaks off
    after so many bytes, once; `begun_at` tells from which byte on weights were sent.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.commit = COMMIT
        self.gated: set[str] = set()
        self.asked: list[str] = []
        self.cut_after: dict[str, int] = {}
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
        if not files:
            return self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        if repo in self.hub.gated and (parts[2] == "resolve" or "tree" in parts):
            return self.send(403, b"{}", {"X-Error-Code": "GatedRepo"})
        if parts[2] == "revision" and parts[3] not in ("main", COMMIT, self.hub.commit):
            return self.send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        if parts[2] == "revision":
            siblings = [{"rfilename": name, "size": file.stat().st_size} for name, file in files.items()]
            return self.send_json(
                {"id": repo, "sha": self.hub.commit if parts[3] == "main" else parts[3], "siblings": siblings}
            )
        if parts[2] == "tree":
            entries = [
                {
                    "type": "file",
                    "path": name,
                    "size": file.stat().st_size,
                    "oid": hashlib.sha1(name.encode()).hexdigest(),
                }
                for name, file in files.items()
            ]
            return self.send_json(entries)
        data = files["/".join(parts[4:])].read_bytes()
        headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": parts[3]}
        begin = int((self.headers.get("Range") or "bytes=0-")[6:].partition("-")[0])
        if with_body and parts[-1].endswith(".safetensors"):
            self.hub.begun_at.append(begin)
        status = 206 if begin else 200
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        cut = self.hub.cut_after.pop(parts[-1], None) if with_body else None
        self.send(status, data[begin:], headers, with_body=with_body, cut=cut)

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
