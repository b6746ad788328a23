"""Google's APIs as a server on loopback answers them: JSON by path, 404 for what is not there."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


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


class _Handler(BaseHTTPRequestHandler):
    server: GoogleApis

    def do_GET(self) -> None:
        answer = self.server.answer(unquote(urlsplit(self.path).path))
        code = answer if isinstance(answer, int) else 404 if answer is None else 200
        body = json.dumps(answer if code == 200 else {"error": {"code": code, "message": "said the server"}}).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass
