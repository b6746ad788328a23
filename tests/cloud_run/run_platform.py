"""Cloud Run as far as an instance sees it, and as strict: the containers of a plan as processes, and the platform around them.

* A request needs an identity token of a caller (``X-Serverless-Authorization`` first, then ``Authorization``), unless the check is disabled. The token's
  signature is taken away before the request is passed on; with ``X-Serverless-Authorization``, ``Authorization`` reaches the container as it was sent.
* The first request starts the instance and waits for it. The startup probe decides when it is ready, and ends an instance that is not in time (500).
* PORT is the container port of the plan, in the ingress container alone. Requests beyond the instance's concurrency wait; none is started twice.
* SIGTERM goes to every container at once; SIGKILL follows ten seconds later. An instance whose container ends is gone: the next request starts another.

Left out: TLS, HTTP/2, several instances, the image itself (the containers are processes of this machine, with the image's entry points).
"""

from __future__ import annotations

import http.client
import http.server
import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.run_plan import KEYS_FOLDER, WORK, ContainerPlan, ServicePlan
from runners.planning.cloud_run import GRACE_S

TOKEN = "header.claims.signature"


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


@dataclass
class Instance:
    """One instance: its containers, and how it ended."""

    containers: dict[str, subprocess.Popen[bytes]]
    logs: dict[str, Path]
    began: float
    ready_after_s: float | None = None
    killed: list[str] = field(default_factory=list)

    @property
    def alive(self) -> bool:
        return all(process.poll() is None for process in self.containers.values())

    def stop(self) -> float:
        """SIGTERM to all, SIGKILL after the platform's grace; returns the seconds it took."""
        begin = time.monotonic()
        for process in self.containers.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        while any(process.poll() is None for process in self.containers.values()) and time.monotonic() - begin < GRACE_S:
            time.sleep(0.05)
        for name, process in self.containers.items():
            if process.poll() is None:
                self.killed.append(name)
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return time.monotonic() - begin

    def said(self, name: str) -> str:
        return self.logs[name].read_text(errors="replace")


class Platform:
    """One service. ``entry`` maps a container to the command of its image; ``secrets`` is the content of the mounted secret."""

    def __init__(self, plan: ServicePlan, folder: Path, entry: dict[str, list[str]], keys: str, environment: dict[str, str], *, probe_s: float = 0.2) -> None:
        if plan.requests_at_once > 1000:
            raise ValueError(f"max_instance_request_concurrency {plan.requests_at_once} is above 1000")
        self.plan, self.folder, self.entry, self.environment, self.probe_s = plan, folder, entry, environment, probe_s
        self.container_port, self.upstream_port, self.ready_port, self.port, self.second_port = free_ports(5)
        self.instances: list[Instance] = []
        #: So many requests are told that no instance is there yet, as the platform does when its queue is full.
        self.no_instance_yet = 0
        self.passed_on: list[dict[str, str]] = []
        self._starting, self._room = threading.Lock(), threading.Semaphore(plan.requests_at_once)
        (folder / "secret").mkdir(parents=True)
        (folder / "secret" / "keys").write_text(keys)
        platform = self

        class Front(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # head and body are two writes, and the second would wait 40 ms for the acknowledgement of the first

            def handle_any(self) -> None:
                platform._request(self)

            do_GET = do_POST = do_DELETE = handle_any

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._front = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Front)
        self._front.daemon_threads = True
        threading.Thread(target=self._front.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._front.shutdown()
        self._front.server_close()
        for instance in self.instances:
            if instance.alive:
                instance.stop()

    def instance(self) -> Instance:
        """The running instance; started, and waited for, where there is none. Raises TimeoutError when it was not ready in time."""
        with self._starting:
            if self.instances and self.instances[-1].alive and self.instances[-1].ready_after_s is not None:
                return self.instances[-1]
            made = self._start()
            self.instances.append(made)
            limit = self.plan.probe["period_seconds"] * self.plan.probe["failure_threshold"]
            while time.monotonic() - made.began < limit and made.alive:
                if self._probe():
                    made.ready_after_s = time.monotonic() - made.began
                    return made
                time.sleep(self.probe_s)
            made.stop()
            raise TimeoutError("the instance did not become ready")

    def _start(self) -> Instance:
        number = len(self.instances)
        work = self.folder / f"instance-{number}"
        work.mkdir()
        containers, logs = {}, {}
        for container in (self.plan.gateway, self.plan.server):
            logs[container.name] = self.folder / f"{container.name}-{number}.log"
            port = {"PORT": str(self.container_port)} if container is self.plan.gateway else {}
            values = {**self.environment, **{name: self._here(value, work) for name, value in container.environment}, **port}
            command = [*self.entry[container.name], *(self._here(argument, work) for argument in self._arguments(container))]
            with logs[container.name].open("wb") as output:
                containers[container.name] = subprocess.Popen(command, env=values, stdout=output, stderr=output, start_new_session=True)
        return Instance(containers, logs, time.monotonic())

    def _arguments(self, container: ContainerPlan) -> tuple[str, ...]:
        # The gateway's replace its entry point, the server's follow it.
        return container.arguments if container is not self.plan.gateway else ()

    def _here(self, value: str, work: Path) -> str:
        """Folders and ports of the plan, which an instance has to itself, as this machine's."""
        value = value.replace(WORK, str(work)).replace(KEYS_FOLDER, str(self.folder / "secret"))
        ports = {"8001": self.upstream_port, "8002": self.ready_port, "8003": self.second_port}
        for there, here in ports.items():
            value = value.replace(f"127.0.0.1:{there}", f"127.0.0.1:{here}")
        return str(ports.get(value, value))

    def _probe(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.container_port}/health", timeout=self.plan.probe["timeout_seconds"]) as answer:
                return 200 <= answer.status < 400
        except OSError:
            return False

    def _request(self, front: http.server.BaseHTTPRequestHandler) -> None:
        headers = {name.title(): value for name, value in front.headers.items()}
        body = front.rfile.read(int(headers.get("Content-Length", 0)))
        checked = "X-Serverless-Authorization" if "X-Serverless-Authorization" in headers else "Authorization"
        if not self.plan.is_open:
            if headers.get(checked) != f"Bearer {TOKEN}":
                _answer(front, 403 if checked in headers else 401, b"<html>Your client does not have permission</html>")
                return
            headers[checked] = f"Bearer {TOKEN.rsplit('.', 1)[0]}.SIGNATURE_REMOVED_BY_GOOGLE"
        if self.no_instance_yet:
            self.no_instance_yet -= 1
            _answer(front, 429, b"The request was aborted because there was no available instance.")
            return
        with self._room:
            try:
                instance = self.instance()
            except TimeoutError as error:
                _answer(front, 500, str(error).encode())
                return
            self.passed_on.append(headers)
            self._pass_on(front, headers, body, instance)

    def _pass_on(self, front: http.server.BaseHTTPRequestHandler, headers: dict[str, str], body: bytes, instance: Instance) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.container_port, timeout=self.plan.probe["failure_threshold"] * 10)
        try:
            connection.request(front.command, front.path, body or None, {**headers, "Connection": "close"})
            answer = connection.getresponse()
            front.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                    front.send_header(name, value)
            front.send_header("Connection", "close")
            front.close_connection = True
            front.end_headers()
            while piece := answer.read1(65536):
                front.wfile.write(piece)
                front.wfile.flush()
        except (OSError, http.client.HTTPException) as error:
            front.close_connection = True
            if not isinstance(error, BrokenPipeError):
                _answer(front, 503, f"the instance went away: {error!r}, {instance.alive}".encode())
        finally:
            connection.close()


def _answer(front: http.server.BaseHTTPRequestHandler, status: int, body: bytes) -> None:
    front.send_response(status)
    front.send_header("Content-Length", str(len(body)))
    front.end_headers()
    front.wfile.write(body)


def ask(url: str, path: str = "/v1/chat/completions", body: Any = None, timeout_s: float = 300, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """(status, headers, body) of one request with the given headers (underscores for hyphens)."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url + path, json.dumps(body).encode() if body is not None else None, {"Content-Type": "application/json", **named})
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            return answer.status, {name.lower(): value for name, value in answer.headers.items()}, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, {name.lower(): value for name, value in error.headers.items()}, error.read()
