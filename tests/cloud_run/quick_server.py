"""The watcher of runners/cloud_run/server.py around a small server with vLLM's paths: for tests of the watcher, the gateway and the platform, not of vLLM.

As a container's command:  quick_server.py serve --spec URI --work DIR --port N --ready-port N
As the child:              quick_server.py vllm PORT MODEL; as vLLM does, it refuses a request for another model
QUICK_START_S: seconds until it answers. Prompts with "break" make every later completion fail; those with "slow" take QUICK_STREAM_S, a piece every 0.1 s.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def child(port: int, model: str) -> None:
    time.sleep(float(os.environ.get("QUICK_START_S", "0.5")))
    seen = {"broken": False, "silent": False, "tokens": 0, "answered": 0, "running": 0}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body are two writes, and the second would wait 40 ms for the acknowledgement of the first

        def do_GET(self) -> None:
            if seen["silent"] and seen["running"]:
                self.close_connection = True  # as a full server, whose counters come too late
                return
            text = f"vllm:generation_tokens_total {seen['tokens']}\nvllm:request_success_total {seen['answered']}\n"
            text += f"vllm:num_requests_running {seen['running']}\nvllm:num_requests_waiting 0\n"
            self.answer(200, text.encode() if self.path == "/metrics" else json.dumps({"data": [{"id": model}]}).encode())

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers["Authorization"] != f"Bearer {os.environ['VLLM_API_KEY']}":
                self.answer(401, b"{}")
                return
            if json.loads(body).get("model") not in (None, model):
                self.answer(404, b'{"error": {"message": "The model does not exist."}}')
                return
            if seen["broken"]:
                self.answer(500, b"{}")
                return
            seen["broken"] = b"break" in body
            seen["silent"] = seen["silent"] or b"silent" in body
            slow = b"slow" in body
            if not slow and not json.loads(body).get("stream"):
                seen["tokens"] += 1
                seen["answered"] += 1
                self.answer(200, json.dumps({"model": model, "choices": [{"message": {"content": "ready"}, "finish_reason": "stop"}]}).encode())
                return
            seen["running"] += 1
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            for number in range(int(float(os.environ.get("QUICK_STREAM_S", "3")) * 10) if slow else 2):
                self.wfile.write(b"data: " + json.dumps({"choices": [{"delta": {"content": f"{number} "}}]}).encode() + b"\n\n")
                self.wfile.flush()
                seen["tokens"] += 1
                time.sleep(0.1 if slow else 0)
            self.wfile.write(b"data: [DONE]\n\n")
            seen["running"] -= 1
            seen["answered"] += 1
            self.close_connection = True

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


def container(arguments: list[str]) -> int:
    from runners.cloud_run.server import Engine, Health, look_after
    from runners.serving import serve

    named = {name: int(arguments[arguments.index(name) + 1]) for name in ("--port", "--second-port", "--ready-port") if name in arguments}
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    key = serve.read_key()
    values = {**os.environ, "VLLM_API_KEY": key}
    limit = float(os.environ.get("QUICK_READY_TIMEOUT_S", "30"))
    models = [(named["--port"], "elson"), *([(named["--second-port"], "second")] if "--second-port" in named else [])]
    engines = [Engine([sys.executable, __file__, "vllm", str(port), model], values, port, model) for port, model in models]
    return look_after(engines, health=Health(named["--ready-port"]), key=key, ready_timeout_s=limit, stopping=stopping)


if __name__ == "__main__":
    if sys.argv[1] == "vllm":
        child(int(sys.argv[2]), sys.argv[3])
    else:
        sys.exit(container(sys.argv[2:]))
