"""Stands in for a runner where only a container's behaviour matters: the metadata key ``standin`` holds, by stage, the steps of each run in turn.

    {"train": [["exit 139"], ["sleep 60"], ["progress 1 3", "exit 0"]]}: crashes, then works until it is stopped, then finishes. The last entry repeats.
    {"serve": [["serve 0.2"]]}: answers as vLLM does, a token every 0.2 seconds.
A SIGTERM writes a checkpoint into the work folder and ends with 143, as the trainer does. A server breaks off what it is answering, as vLLM does without a
``--shutdown-timeout`` (vllm/v1/engine/core.py, _handle_shutdown).
"""

import json
import os
import signal
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

stage, work = sys.argv[1], Path(sys.argv[sys.argv.index("--work") + 1])
request = urllib.request.Request("http://metadata.google.internal/computeMetadata/v1/instance/attributes/standin", headers={"Metadata-Flavor": "Google"})
runs = json.loads(urllib.request.urlopen(request, timeout=10).read()).get(stage, [["exit 0"]])
counter = work / f"{stage}.runs"
number = int(counter.read_text()) if counter.exists() else 0
counter.write_text(str(number + 1))


def terminated(*_):
    print(json.dumps({"severity": "WARNING", "stage": stage, "message": "stopping: checkpoint written"}), flush=True)
    (work / "checkpoint").write_text("saved")
    sys.exit(143)


class Server(BaseHTTPRequestHandler):
    """vLLM's completions, streamed or not, and its figures."""

    protocol_version = "HTTP/1.1"
    figures, turn = dict.fromkeys(("generation_tokens_total", "request_success_total", "num_requests_running", "num_requests_waiting"), 0), threading.Lock()
    key, seconds_a_token = "", 0.0

    def do_GET(self) -> None:
        self.whole(200, "".join(f'vllm:{name}{{engine="0"}} {value}.0\n' for name, value in {**self.figures, "kv_cache_usage_perc": 0}.items()))

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers.get("Authorization") != f"Bearer {self.key}":
            return self.whole(401, '{"error": "Unauthorized"}')
        self.count(num_requests_running=1)
        try:
            if asked.get("stream"):
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
            for number in range(asked["max_tokens"]):
                time.sleep(self.seconds_a_token)
                self.count(generation_tokens_total=1)
                if asked.get("stream"):
                    self.chunk(b'data: {"choices": [{"text": "%d "}]}\n\n' % number)
            self.count(request_success_total=1)
            if not asked.get("stream"):
                return self.whole(200, '{"choices": [{"text": "42", "finish_reason": "length"}]}')
            self.chunk(b"data: [DONE]\n\n")
            self.chunk(b"")
        finally:
            self.count(num_requests_running=-1)

    def count(self, **more: int) -> None:
        with self.turn:
            self.figures.update({name: self.figures[name] + value for name, value in more.items()})

    def whole(self, code: int, text: str) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def log_message(self, *_: object) -> None:
        return


signal.signal(signal.SIGTERM, terminated)
print(json.dumps({"severity": "INFO", "stage": stage, "message": f"{stage} run {number}"}), flush=True)
for step in runs[min(number, len(runs) - 1)]:
    verb, *values = step.split()
    if verb == "progress":
        print(json.dumps({"severity": "INFO", "stage": stage, "message": "step", "done": int(values[0]), "total": int(values[1])}), flush=True)
    elif verb == "sleep":
        time.sleep(float(values[0]))
    elif verb == "serve":
        Server.key, Server.seconds_a_token = Path(os.environ["ELSON_API_KEY_FILE"]).read_text(), float(values[0])
        server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Server)
        server.daemon_threads = True  # an answer on its way does not hold up the end
        server.serve_forever()
    elif verb == "exit":
        sys.exit(int(values[0]))
