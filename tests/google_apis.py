"""Google's APIs as a server on loopback answers them: JSON by path, 404 for what is not there."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


class GoogleApis(ThreadingHTTPServer):
    """Serves from its first moment until ``close``."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def answer(self, path: str) -> Any:
        """The body for a path; ``None`` is a 404, a number that status."""
        raise NotImplementedError

    def close(self) -> None:
        self.shutdown()
        self.server_close()

    def change(self, path: str, query: dict[str, list[str]]) -> Any:
        """The body for a POST, by the same rules."""
        return None


class _Handler(BaseHTTPRequestHandler):
    server: GoogleApis

    def do_GET(self) -> None:
        self._send(self.server.answer(unquote(urlsplit(self.path).path)))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        self._send(self.server.change(unquote(url.path), parse_qs(url.query)))

    def _send(self, answer: Any) -> None:
        code = answer if isinstance(answer, int) else 404 if answer is None else 200
        body = json.dumps(answer if code == 200 else {"error": {"code": code, "message": "said the server"}}).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass
