"""The metadata server and the APIs a VM calls, as far as it calls them."""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.infra.regions import page
from tests.vm.simulation import namespace

TOKEN = "ya29.simulated"
Answer = tuple[int, bytes, dict[str, str]]


class Metadata:
    """The tree of values, with waiting for a change. Directories are dicts, values are texts."""

    def __init__(self) -> None:
        self.tree: dict[str, Any] = {}
        self.changed = threading.Condition()
        #: Until then our calls get a 503 and the guest agent's answers take seconds: a metadata server that is slow to come up.
        #: (Debian's guest agent takes a 503 for a broken answer and runs no script at all; the platform's max_run_duration is for that.)
        self.slow_until, self.refused = 0.0, 0
        self.requests: list[str] = []

    def set(self, path: str, value: Any) -> None:
        with self.changed:
            node, parts = self.tree, [part for part in path.split("/") if part]
            for part in parts[:-1]:
                node = node.setdefault(part, {})
            node[parts[-1]] = value
            self.changed.notify_all()

    def get(self, path: str) -> Any:
        node: Any = self.tree
        for part in (part for part in path.split("/") if part):
            if not isinstance(node, dict) or part not in node:
                return None
            node = node[part]
        return node

    def answer(self, method: str, target: str, headers: Any, body: bytes) -> Answer:
        url = urllib.parse.urlsplit(target)
        query = dict(urllib.parse.parse_qsl(url.query))
        self.requests.append(f"{method} {target[:200]}")
        common = {"Metadata-Flavor": "Google", "Server": "Metadata Server for VM", "Content-Type": "application/text"}
        if time.monotonic() < self.slow_until:
            if headers.get("User-Agent", "").startswith(("curl", "Python-urllib")):
                self.refused += 1
                return 503, b"not yet", common
            time.sleep(1)
        if url.path == "/":
            return 200, b"computeMetadata/\n", common
        if headers.get("Metadata-Flavor") != "Google":
            return 403, b"Missing Metadata-Flavor:Google header.", common
        path = url.path.removeprefix("/computeMetadata/v1")
        if method == "PUT":
            self.set(path, body.decode())
            return 200, b"", common
        if query.get("wait_for_change", "").lower() == "true":
            self._wait(path, query)
        node = self.get(path)
        if node is None:
            return 404, b"not found", common
        common["ETag"] = _tag(node)
        if isinstance(node, dict):
            if query.get("recursive", "").lower() == "true":
                return 200, json.dumps(_camel(node, path.rstrip("/").endswith("attributes"))).encode(), {**common, "Content-Type": "application/json"}
            return 200, "".join(f"{key}{'/' if isinstance(value, dict) else ''}\n" for key, value in node.items()).encode(), common
        return 200, str(node).encode(), {**common, "Content-Type": "application/json"} if str(node).startswith("{") else common

    def _wait(self, path: str, query: dict[str, str]) -> None:
        end = time.monotonic() + float(query.get("timeout_sec", "600"))
        with self.changed:
            last = query.get("last_etag", "")
            if last in ("", "0"):
                last = _tag(self.get(path))
            while _tag(self.get(path)) == last and (left := end - time.monotonic()) > 0:
                self.changed.wait(left)


def _tag(node: Any) -> str:
    return hashlib.sha256(json.dumps(node, sort_keys=True).encode()).hexdigest()[:16]


def _camel(node: Any, keep: bool = False) -> Any:
    """Keys as the recursive answer has them: camelCase, but attributes keep theirs."""
    if not isinstance(node, dict):
        return node
    first = lambda key: key.split("-")[0] + "".join(part.capitalize() for part in key.split("-")[1:])  # noqa: E731 - one line, used once below
    return {(key if keep else first(key)): _camel(value, keep or key == "attributes") for key, value in node.items()}


class Apis:
    """Compute's group calls, Cloud Logging and Monitoring, Secret Manager, and NVIDIA's apt repository, told apart by host name."""

    def __init__(self, apt: Path, instances: Callable[[], list[Metadata]]) -> None:
        #: ``instances()``: what the metadata server of each VM of the group says, in the order in which they were made.
        self.apt, self.instances = apt, instances
        self.target_size, self.deleted, self.calls = 1, list[str](), list[str]()
        #: With an autoscaler the size is its own: nobody else sets it, and for a moment after it was told to go neither (412).
        self.scaler, self.going = False, 0
        #: (instance id, metric) -> its values.
        self.points: dict[tuple[str, str], list[float]] = {}
        self.log_entries: list[dict[str, Any]] = []
        self.secret = "sk-" + "k" * 40
        #: Calls that are answered with 403, by a part of their URL: what a missing grant looks like.
        self.forbidden: set[str] = set()
        self.unauthorized = 0

    def answer(self, method: str, target: str, headers: Any, body: bytes) -> Answer:
        host = headers.get("Host", "").split(":")[0]
        path = urllib.parse.urlsplit(target).path
        if host == "nvidia.github.io":
            file = self.apt / path.lstrip("/")
            return (200, file.read_bytes(), {}) if file.is_file() else (404, b"", {})
        self.calls.append(f"{method} {host}{target}")
        if headers.get("Authorization") != f"Bearer {TOKEN}":
            self.unauthorized += 1
            return _json(401, {"error": {"code": 401}})
        if any(part in target for part in self.forbidden):
            return _json(403, {"error": {"code": 403, "message": "Required permission is missing"}})
        if host == "logging.googleapis.com":
            batch = json.loads(body)
            self.log_entries += [{**entry, "labels": {**batch["labels"], **entry.get("labels", {})}} for entry in batch["entries"]]
            return _json(200, {})
        if host == "monitoring.googleapis.com" and method == "POST" and path.endswith("/timeSeries"):
            return self._keep_points(json.loads(body))
        if host == "secretmanager.googleapis.com" and path.endswith(":access"):
            return _json(200, {"name": path, "payload": {"data": base64.b64encode(self.secret.encode()).decode()}})
        if host == "compute.googleapis.com":
            return self._compute(method, target, path, body)
        return _json(404, {})

    def _compute(self, method: str, target: str, path: str, body: bytes) -> Answer:
        if path.endswith("/deleteInstances"):
            names = [instance.rsplit("/", 1)[-1] for instance in json.loads(body)["instances"]]
            self.deleted += names
            self.target_size = self.target_size if self.scaler else max(0, self.target_size - len(names))
            return _json(200, {"kind": "compute#operation", "status": "RUNNING"})
        if method == "DELETE" and "/autoscalers/" in path:
            if not self.scaler:
                return _json(404, {"error": {"code": 404}})
            self.scaler, self.going = False, 1
            return _json(200, {"kind": "compute#operation", "status": "RUNNING"})
        if path.endswith("/resize"):
            if self.scaler or self.going:
                self.going -= not self.scaler
                return _json(412, {"error": {"code": 412, "message": "Resizing of autoscaled regional managed instance groups is not allowed."}})
            self.target_size = int(dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(target).query))["size"])
            return _json(200, {"kind": "compute#operation", "status": "RUNNING"})
        if path.endswith("/getGuestAttributes"):
            asked = next((one for one in self.instances() if one.get("instance/name") == path.split("/")[-2]), None)
            values = (asked.get("instance/guest-attributes/elson") if asked else None) or {}
            return _json(200, {"queryValue": {"items": [{"namespace": "elson", "key": key, "value": value} for key, value in values.items()]}})
        if path.endswith("/listManagedInstances"):
            return _json(200, {"managedInstances": [_managed(one) for one in self.instances()] if self.target_size else []})
        if path.endswith("/listErrors"):
            return _json(200, {"items": []})
        if method == "GET" and path.endswith("/aggregated/instanceGroupManagers"):
            of = self.instances()[0].get("instance/attributes") or {}
            link = {
                "status": {"autoscaler": f"https://www.googleapis.com/compute/v1/projects/proj/regions/{of['elson-region']}/autoscalers/{of['elson-group']}"}
            }
            template = f"https://www.googleapis.com/compute/v1/projects/proj/regions/{of['elson-region']}/instanceTemplates/t"
            group = {"name": of["elson-group"], "id": "7", "targetSize": self.target_size, "versions": [{"instanceTemplate": template}]}
            group |= link if self.scaler else {}
            return _json(200, page([(f"regions/{of['elson-region']}", group)], urllib.parse.parse_qs(urllib.parse.urlsplit(target).query)))
        if method == "GET" and "/instanceTemplates/" in path:
            items = self.instances()[0].get("instance/attributes").items()
            return _json(200, {"properties": {"metadata": {"items": [{"key": key, "value": value} for key, value in items]}}})
        if method == "GET" and path.endswith("/aggregated/instances"):
            return _json(200, {"items": {}})  # the project has no VM of a bake
        if method == "GET" and "/instanceGroupManagers/" in path:
            return _json(200, {"name": path.rsplit("/", 1)[-1], "targetSize": self.target_size})
        return _json(404, {})

    def _keep_points(self, body: dict[str, Any]) -> Answer:
        """As Monitoring: a point is of a VM that is there, at a time."""
        known = {one.get("instance/id") for one in self.instances()}
        for series in body["timeSeries"]:
            vm = series["resource"]["labels"]["instance_id"]
            if vm not in known or series["resource"]["type"] != "gce_instance" or not series["points"][0]["interval"]["endTime"]:
                return _json(400, {"error": {"code": 400, "message": f"no such instance: {vm}"}})
            self.points.setdefault((vm, series["metric"]["type"]), []).append(series["points"][0]["value"]["doubleValue"])
        return _json(200, {})


def _managed(one: Metadata) -> dict[str, Any]:
    path = f"https://www.googleapis.com/compute/v1/{one.get('instance/zone')}/instances/{one.get('instance/name')}"
    return {"id": one.get("instance/id"), "instance": path, "instanceStatus": "RUNNING", "currentAction": "NONE"}


def _json(code: int, value: Any) -> Answer:
    return code, json.dumps(value).encode(), {"Content-Type": "application/json"}


def listen(address: str, port: int, answer: Callable[[str, str, Any, bytes], Answer], certificate: Path | None = None) -> ThreadingHTTPServer:
    """Serve from a thread; call it inside the network namespace."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body are two writes, and the second would wait 40 ms for the acknowledgement of the first

        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            code, content, headers = answer(self.command, self.path, self.headers, body)
            try:
                self.send_response_only(code)
                for key, value in headers.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle

        def log_message(self, *_: Any) -> None:
            return

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, *_: Any) -> None:
            return  # a VM that is switched off leaves connections open

    server = Server((address, port), Handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def instance_metadata(name: str, zone: str, attributes: dict[str, str]) -> dict[str, Any]:
    """The tree of one instance."""
    token = json.dumps({"access_token": TOKEN, "expires_in": 3599, "token_type": "Bearer"})
    account = {"aliases": "default\n", "email": "vm@proj.iam.gserviceaccount.com", "scopes": "https://www.googleapis.com/auth/cloud-platform\n", "token": token}
    return {
        "instance": {
            "id": str(abs(hash(name)) % 10**18),
            "name": name,
            "hostname": f"{name}.c.proj.internal",
            "zone": f"projects/1/zones/{zone}",
            "machine-type": "projects/1/machineTypes/a3-highgpu-1g",
            "preempted": "FALSE",
            "maintenance-event": "NONE",
            "scheduling": {"preemptible": "TRUE"},
            "attributes": attributes,
            "network-interfaces": {"0": {"mac": "42:01:0a:80:00:02", "ip": "10.128.0.2", "dns-servers": namespace.METADATA}},
            "service-accounts": {"default": account, account["email"]: account},
            "guest-attributes": {},
            "virtual-clock": {"drift-token": "0"},
        },
        "project": {"project-id": "proj", "numeric-project-id": "1", "attributes": {"ssh-keys": ""}},
        "universe": {"universe-domain": "googleapis.com"},
    }
