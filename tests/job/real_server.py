"""A real vLLM on the CPU, asked greedily, with its own counters."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from runners import environments
from runners.artifacts.local_bucket import free_port
from runners.serving import group, serve
from runners.spec import ServeSpec

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    key: str
    model: str

    def ask(self, question: str) -> str:
        """The greedy answer."""
        return self.say([{"role": "user", "content": question}])

    def say(self, messages: list[dict[str, str]]) -> str:
        """The greedy answer to a conversation."""
        body = {"model": self.model, "messages": messages, "max_tokens": 48, "temperature": 0}
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/v1/chat/completions", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=120) as found:
            return str(json.load(found)["choices"][0]["message"]["content"])

    def metrics(self) -> str:
        """Prometheus text; the gateway hides it from others."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=30) as found:
            return str(found.read().decode())

    def counter(self, name: str) -> float:
        """The sum of a counter over its labels, e.g. ``spec_decode_num_drafts``."""
        return sum(map(float, re.findall(rf"^vllm:{name}_total\{{.*?\}} (\S+)$", self.metrics(), re.MULTILINE)))


def made_model(folder: Path) -> Path:
    """A tiny random Qwen2, made in the environment that has torch."""
    make = "import pathlib, sys; from runners.local.base_model import make_tiny; make_tiny(pathlib.Path(sys.argv[1]))"
    subprocess.run([str(environments.python("train")), "-c", make, str(folder)], cwd=ROOT, check=True)
    return folder


@contextmanager
def serving(folder: Path, spec: ServeSpec, work: Path, draft: Path | None = None) -> Iterator[Server]:
    """Serve a folder until the block ends."""
    key, port = secrets.token_urlsafe(32), free_port()
    options = serve.vllm_arguments(spec, folder, device="cpu", quantized=False, port=port, draft=draft)
    program = environments.python("serve")
    with group.running(
        [str(program), str(program.parent / "vllm"), *options], serve.vllm_environment(key, device="cpu", work=work), work / "vllm.log"
    ) as running:
        url = f"http://127.0.0.1:{port}"
        serve.wait_until_ready(url, key, spec.served_model_name, timeout_s=500, alive=running)
        yield Server(url, key, spec.served_model_name)
