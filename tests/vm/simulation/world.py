"""A small cloud: a network of its own, Google's services in it, buckets, a registry, and a managed instance group of one VM or of several.

Each VM of several has a network with a metadata server of its own; APIs, registry and storage are the same for all. Left out: the load balancer, which a
test is itself. (Real servers behind a real proxy: tests/serve/test_several_servers.py.)
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runners.processes import bound
from runners.vm import payload
from tests.vm.simulation import golden, namespace, services
from tests.vm.simulation.machine import Machine, unmount

REGISTRY_FILES = golden.STATE / "registry"
PREFIX = "elson-" + hashlib.sha256(str(golden.ROOT).encode()).hexdigest()[:6]


@dataclass(frozen=True)
class Network:
    """What one VM at a time is in: a namespace, and the metadata server that answers there."""

    path: Path
    metadata: services.Metadata


class World:
    """Everything outside a VM, under a test's control."""

    def __init__(self, name: str) -> None:
        self.name, self.folder = f"{PREFIX}-{name}"[:30], golden.STATE / "worlds" / name
        self.metadata = services.Metadata()  # the first network's, and of a group of one the only one
        self.apis = services.Apis(golden.APT, lambda: [machine.metadata for machine in self.machines if machine.is_on])
        self.networks: list[Network] = []
        self.machines: list[Machine] = []
        self.boots = 0
        self.broken: BaseException | None = None
        self.attributes: dict[str, str] = {}
        #: Given every new machine before it is switched on.
        self.on_new: Callable[[Machine], None] = lambda machine: None
        self._servers: list[Any] = []
        self._relays: list[socket.socket] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._leaving: set[str] = set()
        self._closed, self._stalled = threading.Event(), threading.Event()
        self._group = threading.Thread(target=self._run_group, daemon=True)

    # What is in the buckets.

    @property
    def buckets(self) -> Path:
        return self.folder / "buckets"

    def object(self, uri: str) -> Path:
        bucket, _, name = uri.removeprefix("gs://").partition("/")
        return self.buckets / bucket / name

    def job(self) -> dict[str, Any]:
        """The job's state, or an empty object."""
        file = self.object(f"gs://scratch/jobs/{self.attributes['elson-job-id']}/state.json")
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            found: dict[str, Any] = json.loads(file.read_text())
            return found
        return {}

    def logs(self) -> str:
        """All that was kept of the VMs' logs in the bucket."""
        folder = self.object(f"gs://scratch/jobs/{self.attributes['elson-job-id']}/logs")
        return "".join(file.read_text(errors="replace") for file in sorted(folder.glob("*.log")))

    def guest_attribute(self, key: str, machine: Machine | None = None) -> Any:
        value = (machine.metadata if machine else self.metadata).get(f"instance/guest-attributes/elson/{key}")
        return json.loads(value) if value else None

    # Its life.

    def open(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.buckets.mkdir(parents=True)
        self._add_network(self.name, self.metadata)
        self.start_registry()
        self.start_storage()
        self._create_buckets()

    def _add_network(self, name: str, metadata: services.Metadata) -> None:
        network = namespace.create(name)
        with namespace.entered(network):
            self._servers.append(services.listen(namespace.METADATA, 80, metadata.answer))
            self._servers.append(services.listen(namespace.APIS, 443, self.apis.answer, golden.PKI / "server.crt"))
        if self.networks:  # what keeps something is one for all
            self._relays += [namespace.relay(address, 443, network, self.networks[0].path) for address in (namespace.REGISTRY, namespace.STORAGE)]
        self.networks.append(Network(network, metadata))

    def start_storage(self) -> None:
        """The tests' storage, under its production name and with a certificate."""
        certificate = golden.PKI / "server.crt"
        options = ["-backend", "filesystem", "-filesystem-root", str(self.buckets), "-log-level", "warn"]
        options += ["-host", namespace.STORAGE, "-port", "443", "-public-host", "storage.googleapis.com", "-external-url", "https://storage.googleapis.com"]
        options += ["-cert-location", str(certificate), "-private-key-location", str(certificate.with_suffix(".key"))]
        self.storage = self._spawn("storage", [sys.executable, str(golden.ROOT / "tests" / "storage_proxy.py"), *options])

    def fill(self, files: Path) -> None:
        """Put what another emulator kept into the buckets."""
        self.storage.kill()
        self.storage.wait()
        shutil.rmtree(self.buckets)
        subprocess.run(["cp", "--archive", str(files), str(self.buckets)], check=True)
        self.start_storage()
        self._create_buckets()

    def _create_buckets(self) -> None:
        for bucket in ("models", "scratch"):
            for _ in range(100):
                with contextlib.suppress(OSError):
                    self.request("POST", "/storage/v1/b?project=proj", json.dumps({"name": bucket}).encode(), host="storage.googleapis.com")
                    break
                time.sleep(0.05)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        host: str = "",
        port: int = 8000,
        timeout_s: float = 60,
        machine: Machine | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        """(status, headers, body) of a request made inside the network: over TLS to a named service, else plainly to a port of the VM (the newest)."""
        with namespace.entered(machine.network if machine else self.networks[0].path):
            if host:
                trusted = ssl.create_default_context(cafile=str(golden.PKI / "ca.crt"))
                address = namespace.STORAGE if host.startswith("storage") else namespace.APIS
                connection: http.client.HTTPConnection = http.client.HTTPSConnection(host, context=trusted, timeout=timeout_s)
                connection.sock = trusted.wrap_socket(socket.create_connection((address, 443), timeout_s), server_hostname=host)
            else:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
                connection.connect()
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read()

    def put(self, uri: str, content: bytes) -> None:
        """Write an object."""
        bucket, _, name = uri.removeprefix("gs://").partition("/")
        target = f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={urllib.parse.quote(name, safe='')}"
        status, _, answer = self.request("POST", target, content, {"Content-Type": "application/json"}, host="storage.googleapis.com")
        assert status == 200, answer

    def start_registry(self) -> None:
        """The registry, under its production name and with a certificate; what the session pushed is in it."""
        certificate = golden.PKI / "server.crt"
        config = self.folder / "registry.json"  # YAML's subset
        tls = {"certificate": str(certificate), "key": str(certificate.with_suffix(".key"))}
        storage = {"filesystem": {"rootdirectory": str(REGISTRY_FILES)}, "maintenance": {"readonly": {"enabled": True}}}
        config.write_text(json.dumps({"version": 0.1, "log": {"level": "warn"}, "storage": storage, "http": {"addr": f"{namespace.REGISTRY}:443", "tls": tls}}))
        self.registry = self._spawn("registry", ["docker-registry", "serve", str(config)])

    def start_group(self, attributes: dict[str, str]) -> None:
        """What `pulumi up` does: a group with this metadata, of one, or of as many as ``elson-replicas`` says and with an autoscaler that wants them all."""
        self.attributes = {**payload.metadata(), "enable-guest-attributes": "TRUE", **attributes}
        if "elson-replicas" in attributes:
            self.apis.target_size, self.apis.scaler = int(attributes["elson-replicas"]), True
            for number in range(2, self.apis.target_size + 1):
                self._add_network(f"{self.name}.{number}", services.Metadata())
        self._group.start()

    def close(self) -> None:
        self._closed.set()
        if self._group.is_alive():
            self._group.join(60)
        for machine in self.machines:
            machine.delete()
        for server in self._servers:
            server.shutdown()
            server.server_close()
        for relay in self._relays:
            relay.close()
        for process in self._processes:
            process.kill()
            process.wait()
        for network in self.networks:
            namespace.remove(network.path.name)

    @property
    def machine(self) -> Machine:
        """The newest VM."""
        return self.machines[-1]

    # What a platform does to a VM.

    def preempt(self, notice_s: float, machine: Machine | None = None) -> None:
        """Notice by metadata, the power button, 30 s, off; the group makes another."""
        machine = machine or self.machine
        machine.metadata.set("instance/preempted", "TRUE")
        end = time.monotonic() + notice_s
        while machine.is_on and time.monotonic() < end:
            time.sleep(0.1)
        machine.off(within_s=30)

    def scale_in(self, machine: Machine) -> None:
        """The autoscaler wants one server fewer, and this one goes; that nothing new reaches it is the caller's part."""
        self._leaving.add(machine.name)
        self.apis.target_size -= 1

    def hold_capacity(self) -> None:
        """From now on a VM that ends is not made again, until ``give_capacity``."""
        self._stalled.set()

    def give_capacity(self) -> None:
        self._stalled.clear()

    def wait(self, condition: Callable[[], Any], within_s: float, what: str) -> Any:
        """Until a condition is true; the VM's console and journal are in the failure."""
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            if result := condition():
                return result
            if self.broken:
                raise self.broken
            if self.boots and self.apis.target_size == 0 and not any(machine.is_on for machine in self.machines):
                time.sleep(0.3)
                if result := condition():
                    return result
                break
            time.sleep(0.1)
        raise AssertionError(f"{what}: not within {within_s} s, or not before the group was empty\n{self.story()}")

    def wait_until_ended(self, within_s: float) -> None:
        """Until the group is empty and no VM runs."""
        self.wait(lambda: self.apis.target_size == 0 and not any(machine.is_on for machine in self.machines), within_s, "the group to be empty")

    def story(self) -> str:
        """What happened, for a failed test."""
        parts = [f"state: {json.dumps(self.job())}", f"calls: {self.apis.calls[-20:]}", f"points: {self.apis.points}"]
        for machine in self.machines:
            parts.append(f"--- guest attributes of {machine.name}: {machine.metadata.get('instance/guest-attributes')}")
            parts.append(f"--- console of {machine.name}\n{machine.console.read_text(errors='replace')[-3000:]}")
            parts.append(f"--- journal of {machine.name}\n{machine.journal()[-20000:]}")
        parts.append(f"--- kept logs\n{self.logs()[-6000:]}")
        return "\n".join(parts)

    def _run_group(self) -> None:
        try:
            self._keep_the_group()
        except BaseException as error:
            self.broken = error
            raise

    def _keep_the_group(self) -> None:
        """What a managed instance group does: make again what is missing, take out what was asked for."""
        while not self._closed.wait(0.1):
            for machine in self.machines:
                if machine.process and machine.process.poll() == machine.REBOOT:
                    unmount(machine.root)
                    machine.boot()
            on = [machine for machine in self.machines if machine.is_on]
            going = [one for one in on if self.apis.target_size == 0 or one.name in self._leaving or one.name in self.apis.deleted]
            for machine in going:
                machine.press_power_button()
            for machine in going:
                machine.off(within_s=90)
                unmount(machine.root)
            if len(on) < self.apis.target_size and not self._stalled.is_set():
                self._make(next(network for network in self.networks if network.path not in [machine.network for machine in on]))

    def _make(self, network: Network) -> None:
        self.boots += 1
        name = f"vm-{self.boots}"
        machine = Machine(name, self.folder / name, network.path, network.metadata)
        machine.folder.mkdir(parents=True)
        network.metadata.tree = services.instance_metadata(name, f"us-central1-{'abcf'[self.boots % 4]}", self.attributes)
        self.on_new(machine)
        machine.boot()
        self.machines.append(machine)

    def _spawn(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            # Bound to this thread's process: it ends with the tests, however they end.
            process = subprocess.Popen(bound(["ip", "netns", "exec", self.name, *command], signal.SIGKILL), stdout=log, stderr=log, start_new_session=True)
        self._processes.append(process)
        return process


@contextmanager
def opened(name: str) -> Iterator[World]:
    world = World(name)
    remove_what_a_killed_run_left(name)
    try:
        world.open()
        yield world
    finally:
        world.close()


def remove_what_a_killed_run_left(name: str = "") -> None:
    """End what still runs in our namespaces, unmount what is mounted below our state; all of it, or one world's."""
    if Path("/run/netns").is_dir():
        for network in (path.name for path in Path("/run/netns").iterdir()):
            if network.startswith(PREFIX) and (not name or network.partition(".")[0] == f"{PREFIX}-{name}"[:30]):
                namespace.remove(network)
    below = str(golden.STATE / "worlds" / name) if name else str(golden.STATE)
    mounts = [line.split()[1].replace(r"\040", " ") for line in Path("/proc/mounts").read_text().splitlines()]
    for path in sorted((path for path in mounts if path.startswith(below + "/")), reverse=True):
        unmount(Path(path))
