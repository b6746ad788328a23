"""Real servers behind a real proxy: each a gateway with vLLM (CPU, the tiny model), as the images start them; Caddy is the load balancer.

As strict as Google's: the balancer asks ``/health``, tries no request twice, and tells what is in flight apart from what is new: a server that is taken
out of its list keeps the streams it has (connection draining). It differs in speed alone: a check a second, not one in ten.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runners import stages
from runners.artifacts import local_bucket
from runners.spec import MachineSpec
from runners.vm.metrics import counters
from tests.cloud_run.conftest import KEY, planned, server_entry
from tests.cloud_run.run_platform import Instance, Platform, free_ports
from tests.vm.simulation import seed

#: Requests that one server runs together; more wait in vLLM's queue.
SEQUENCES = 2


@dataclass
class Server:
    """One gateway with its vLLM."""

    platform: Platform
    instance: Instance

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.platform.container_port}"

    def counters(self) -> dict[str, float]:
        """What vLLM counts, as a VM's watcher reads it."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.platform.upstream_port}/metrics", timeout=10) as answer:
            return counters(answer.read().decode())

    @contextmanager
    def slowed(self) -> Iterator[None]:
        """It runs a fifth of the time: the tiny model's whole answer takes a moment otherwise, and nothing could happen in the middle of it."""
        over = threading.Event()

        def beat() -> None:
            group = self.instance.containers["serve"].pid
            with suppress(ProcessLookupError):
                while not over.wait(0.02):
                    os.killpg(group, signal.SIGSTOP)
                    over.wait(0.08)
                    os.killpg(group, signal.SIGCONT)

        thread = threading.Thread(target=beat)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def kill(self) -> None:
        """The machine is gone: every process of it, at once."""
        for process in self.instance.containers.values():
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@dataclass
class Balancer:
    """Caddy before a list of servers, which may change while requests are on their way."""

    caddy: Path
    folder: Path
    ports: tuple[int, int]
    servers: list[Server] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None

    def list(self, *servers: Server) -> None:
        """Send new requests to these servers alone."""
        self.servers = [*servers]
        file = self.folder / "Balancer"
        site, admin = self.ports
        upstreams = " ".join(server.address for server in servers)
        file.write_text(
            f"{{\n\tadmin 127.0.0.1:{admin}\n\tauto_https off\n\tgrace_period 60s\n}}\n"
            f"http://:{site} {{\n\treverse_proxy {upstreams} {{\n\t\tlb_policy least_conn\n\t\thealth_uri /health\n\t\thealth_interval 1s\n"
            "\t\thealth_timeout 2s\n\t\tflush_interval -1\n\t}\n}\n"
        )
        command = [str(self.caddy), "run" if self.process is None else "reload", "--config", str(file), "--adapter", "caddyfile"]
        environment = {**os.environ, "XDG_DATA_HOME": str(self.folder), "XDG_CONFIG_HOME": "/proc/none"}
        if self.process is None:
            with (self.folder / "balancer.log").open("wb") as log:
                self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        else:
            subprocess.run([*command, "--address", f"127.0.0.1:{admin}"], env=environment, check=True, capture_output=True)

    def stream(self, tokens: int) -> Iterator[dict[str, Any]]:
        """The pieces of one answer, as they come. Raises OSError or HTTPException for one that breaks off, ValueError for a refusal."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[0], timeout=120)
        body = {"model": "elson", "messages": [{"role": "user", "content": "What is a bond?"}], "max_tokens": tokens, "stream": True, "ignore_eos": True}
        try:
            connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"})
            answer = connection.getresponse()
            if answer.status != 200:
                raise ValueError(f"{answer.status} {answer.read()[:300]!r}")
            done = False
            while line := answer.readline():
                done = done or line.startswith(b"data: [DONE]")
                if line.startswith(b"data: {"):
                    yield json.loads(line[6:])
            if not done:
                raise http.client.IncompleteRead(b"", None)
        finally:
            connection.close()

    def until_it_answers(self, within_s: float = 30) -> list[str]:
        """Ask until an answer is whole; returns what was said before."""
        said: list[str] = []
        end_s = time.monotonic() + within_s
        while time.monotonic() < end_s:
            try:
                if len(list(self.stream(4))) >= 4:
                    return said
            except (OSError, http.client.HTTPException, ValueError) as error:
                said.append(repr(error)[:300])
                time.sleep(0.2)
        raise AssertionError(f"no answer: {said}")


@contextmanager
def balanced(
    caddy: Path, gateway_entry: list[str], environment: dict[str, str], folder: Path, sequences: int = SEQUENCES
) -> Iterator[tuple[Balancer, Callable[[int], list[Server]]]]:
    """A balancer before nothing yet, and what starts so many servers at once."""
    shutil.copytree(seed.files(), folder / "home" / "bucket")
    tiny = seed.resolved(MachineSpec(role="serve", machine_type="run-l4-8", provisioning_model="RUN", region="us-east4"))
    changes = {"model": tiny.base_model.name, "port": 8000, "max_sequences": sequences, "ready_timeout_s": 600}
    spec = tiny.model_copy(update={"serve": tiny.serve.model_copy(update=changes)})
    site, admin = free_ports(2)
    balancer, platforms = Balancer(caddy, folder, (site, admin)), list[Platform]()
    with local_bucket.running(folder / "home", spec.buckets) as url:
        plan = planned(spec)
        stages.save_spec(plan.spec)
        quiet = {**environment, "STORAGE_EMULATOR_HOST": url, "OMP_NUM_THREADS": "1"}

        def start(count: int) -> list[Server]:
            entry = {"gateway": gateway_entry, "serve": server_entry()}
            made = [Platform(plan, folder / f"server-{number}", entry, f"{KEY}\n", quiet) for number in range(count)]
            platforms.extend(made)
            with ThreadPoolExecutor(count) as pool:
                return [Server(platform, instance) for platform, instance in zip(made, pool.map(Platform.instance, made), strict=True)]

        try:
            yield balancer, start
        finally:
            for platform in platforms:
                platform.close()
            if balancer.process:
                balancer.process.terminate()
                balancer.process.wait(90)
