"""Google Cloud's REST APIs, as far as a VM needs them: objects, its group, a secret, logs. Standard library only.

The token is the VM's own, from the metadata server; which calls it may make is decided by the role of its service account.
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from base64 import b64decode
from collections.abc import Callable
from typing import Any

from runners import log
from runners.vm.facts import Facts

METADATA = "http://metadata.google.internal/computeMetadata/v1"
_STORAGE = "https://storage.googleapis.com"
_COMPUTE = "https://compute.googleapis.com/compute/v1"
_MONITORING = "https://monitoring.googleapis.com/v3"
#: Answers that another try may fix.
_RETRIED = (408, 429, 500, 502, 503, 504)


class CloudError(Exception):
    """A call that failed for good, with the service's own words."""

    def __init__(self, code: int, text: str) -> None:
        self.code = code
        super().__init__(f"{code}: {text}")


def call(
    method: str, url: str, body: bytes | None = None, headers: dict[str, str] | None = None, tries: int = 5, timeout_s: float = 20, pause_s: float = 1.0
) -> tuple[bytes, dict[str, str]]:
    """(body, headers) of one HTTP exchange. Raises CloudError; server errors, refusals to connect and time-outs are tried again, each after twice the pause."""
    for attempt in range(1, tries + 1):
        request = urllib.request.Request(url, data=body, headers=headers or {}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as answer:
                return answer.read(), {key.lower(): value for key, value in answer.headers.items()}
        except urllib.error.HTTPError as error:
            problem = CloudError(error.code, f"{method} {url}: {error.read()[:600].decode(errors='replace')}")
            if error.code not in _RETRIED:
                raise problem from None
        except (OSError, http.client.HTTPException) as error:
            problem = CloudError(0, f"{method} {url}: {error!r}")
        if attempt == tries:
            raise problem
        log.warning("trying again", call=f"{method} {url.split('?')[0]}", attempt=attempt, of=tries, problem=str(problem)[:300])
        time.sleep(pause_s * 2 ** (attempt - 1))
    raise AssertionError("unreachable")


def metadata(path: str = "", **query: Any) -> bytes:
    """A value of the metadata server. The address is link-local and needs no name service once /etc/hosts has it."""
    timeout_s = float(query.pop("timeout_s", 10))
    text = urllib.parse.urlencode(query)
    return call("GET", f"{METADATA}/{path}{'?' + text if text else ''}", headers={"Metadata-Flavor": "Google"}, tries=8, timeout_s=timeout_s)[0]


def guest_attribute(key: str, value: str) -> None:
    """Publish a small value that the Compute API shows without a login. Never raises: it is a courtesy."""
    try:
        call("PUT", f"{METADATA}/instance/guest-attributes/elson/{key}", value.encode(), {"Metadata-Flavor": "Google"}, tries=1, timeout_s=5)
    except CloudError as error:
        log.warning("guest attribute not written", name=key, problem=str(error)[:200])


class Cloud:
    """The APIs under this VM's identity."""

    def __init__(self) -> None:
        self._token, self._expires = "", 0.0

    def _authorized(self, method: str, url: str, body: bytes | None = None, kind: str = "application/json", **options: Any) -> tuple[bytes, dict[str, str]]:
        return call(method, url, body, {"Authorization": f"Bearer {self.token()}", "Content-Type": kind}, **options)

    def token(self) -> str:
        """The VM's access token, asked for again a minute before it expires."""
        if time.monotonic() > self._expires - 60:
            answer = json.loads(metadata("instance/service-accounts/default/token"))
            self._token, self._expires = answer["access_token"], time.monotonic() + answer["expires_in"]
        return self._token

    def read(self, uri: str) -> tuple[bytes | None, int]:
        """(content, generation) of an object; (None, 0) when there is none, which is also the generation that "only if new" means."""
        bucket, name = _split(uri)
        try:
            body, headers = self._authorized("GET", f"{_STORAGE}/storage/v1/b/{bucket}/o/{name}?alt=media")
        except CloudError as error:
            if error.code == 404:
                return None, 0
            raise
        return body, int(headers["x-goog-generation"])

    def write(self, uri: str, content: bytes, generation: int | None = None, kind: str = "application/json") -> None:
        """Write an object; with a generation only over exactly that one. Raises CloudError 412 when somebody was faster."""
        bucket, name = _split(uri)
        condition = "" if generation is None else f"&ifGenerationMatch={generation}"
        self._authorized("POST", f"{_STORAGE}/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}{condition}", content, kind)

    def update(self, uri: str, change: Callable[[bytes | None], dict[str, Any] | None]) -> None:
        """Compare-and-swap a JSON object; ``change`` gets the content (None if there is none) and returns what to write (None: leave it)."""
        for _ in range(10):
            body, generation = self.read(uri)
            changed = change(body)
            if changed is None:
                return
            try:
                self.write(uri, json.dumps(changed, indent=1).encode(), generation)
            except CloudError as error:
                if error.code != 412:
                    raise
            else:
                return
        raise CloudError(412, f"{uri} kept changing under ten updates")

    def delete_instance(self, facts: Facts) -> None:
        """Take this VM out of its group, which lowers the group's target: a VM that only deletes itself is made again."""
        body = {"instances": [f"zones/{facts.zone}/instances/{facts.instance}"]}
        self._authorized("POST", f"{_group(facts)}/deleteInstances", json.dumps(body).encode(), tries=3)

    def empty_group(self, facts: Facts) -> None:
        """Set the group's target to 0. Its autoscaler goes first, if it may have one: until that is gone the size cannot be set (412)."""
        if facts.replicas > 1:
            try:
                self._authorized("DELETE", f"{_region(facts)}/autoscalers/{facts.group}", tries=3)
            except CloudError as error:
                if error.code != 404:
                    raise
        self._authorized("POST", f"{_group(facts)}/resize?size=0", b"", tries=3)

    def write_gauges(self, facts: Facts, values: dict[str, float], at: str) -> None:
        """Publish this VM's figures to Cloud Monitoring. ``values`` maps a custom metric to its value, ``at`` is the time in ISO 8601."""
        self._authorized("POST", f"{_MONITORING}/projects/{facts.project}/timeSeries", json.dumps(gauges(facts, values, at)).encode(), tries=2)

    def secret(self, name: str) -> str:
        """A secret's value. ``name`` may leave out the version."""
        version = name if "/versions/" in name else f"{name}/versions/latest"
        body, _ = self._authorized("GET", f"https://secretmanager.googleapis.com/v1/{version}:access")
        return b64decode(json.loads(body)["payload"]["data"]).decode().strip()

    def write_logs(self, facts: Facts, entries: list[dict[str, Any]]) -> None:
        """Send entries to Cloud Logging under the log ``elson``, labelled with the job."""
        batch = {
            "logName": f"projects/{facts.project}/logs/elson",
            "resource": {"type": "gce_instance", "labels": {"project_id": facts.project, "zone": facts.zone, "instance_id": facts.instance_id}},
            "labels": {"job": facts.job_id, "role": facts.role, "instance": facts.instance},
            "entries": entries,
            "partialSuccess": True,
        }
        self._authorized("POST", "https://logging.googleapis.com/v2/entries:write", json.dumps(batch).encode(), tries=2)


def _split(uri: str) -> tuple[str, str]:
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    return bucket, urllib.parse.quote(name, safe="")


def gauges(facts: Facts, values: dict[str, float], at: str) -> dict[str, Any]:
    """One point of each metric, on the resource by which an autoscaler knows its VMs."""
    vm = {"type": "gce_instance", "labels": {"project_id": facts.project, "instance_id": facts.instance_id, "zone": facts.zone}}
    return {
        "timeSeries": [
            {
                "metric": {"type": name},
                "resource": vm,
                "metricKind": "GAUGE",
                "valueType": "DOUBLE",
                "points": [{"interval": {"endTime": at}, "value": {"doubleValue": value}}],
            }
            for name, value in values.items()
        ]
    }


def _region(facts: Facts) -> str:
    return f"{_COMPUTE}/projects/{facts.project}/regions/{facts.region}"


def _group(facts: Facts) -> str:
    return f"{_region(facts)}/instanceGroupManagers/{facts.group}"
