"""A web server for tests that breaks in the ways servers on the way to a dataset break."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Web:
    """What the server has, and how it misbehaves.

    ``drops`` and ``statuses`` are used up, one entry per request: bytes after which the connection is cut,
    and status codes instead of the file. ``more`` is added to the Content-Length.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    etags: bool = True
    honours_if_range: bool = True
    always_drop: int | None = None
    drops: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    more: int = 0
    seen: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""


class _Handler(BaseHTTPRequestHandler):
    web: Web
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        web, path = self.web, self.path.lstrip("/")
        wanted = self.headers.get("Range")
        web.seen.append((path, wanted))
        status = web.statuses.pop(0) if web.statuses else 200
        if status != 200 or path not in web.files:
            self.send_error(status if status != 200 else 404)
            return
        content = web.files[path]
        etag = f'"{hashlib.md5(content).hexdigest()}"'
        start = 0
        if wanted and web.ranges:
            condition = self.headers.get("If-Range")
            if condition in (None, etag) or not web.honours_if_range:
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start > len(content) or (start and start == len(content)):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if web.etags:
            self.send_header("ETag", etag)
        self.send_header("Content-Length", str(len(content) - start + web.more))
        self.end_headers()
        limit = web.drops.pop(0) if web.drops else web.always_drop
        body = content[start:]
        self.wfile.write(body if limit is None else body[:limit])
        if limit is not None or web.more:
            self.close_connection = True

    def log_message(self, *_):
        pass


def serve(web: Web) -> ThreadingHTTPServer:
    """Start the server; the caller shuts it down."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"web": web}))
    server.daemon_threads = True
    web.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server
