"""The APIs that the watchdog asks, each answer bounded: what one group's or job's objects hold never hides the others."""

import http.client
import json
import os
import sys
import urllib.parse
import urllib.request
from typing import Any

COMPUTE = os.environ.get("ELSON_COMPUTE_URL", "https://compute.googleapis.com/compute/v1")
MONITORING = os.environ.get("ELSON_MONITORING_URL", "https://monitoring.googleapis.com")
RUN = os.environ.get("ELSON_RUN_URL", "https://run.googleapis.com")
STORAGE = os.environ.get("ELSON_STORAGE_URL", "https://storage.googleapis.com")
METADATA = os.environ.get("ELSON_METADATA_URL", "http://metadata.google.internal/computeMetadata/v1")
#: A larger state of a job is not fetched: a VM's account may write it.
MOST_BYTES = 1 << 20


def call(method: str, url: str, token: str, body: bytes = b"") -> dict[str, Any]:
    """Raises OSError for an answer that is an error or cut off, ValueError for one that is no JSON: one group's objects never hide the others."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Content-Length": str(len(body))}
    request = urllib.request.Request(url, data=body or None, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
        parsed: dict[str, Any] = json.loads(text) if text else {}
    except http.client.HTTPException as error:
        raise OSError(repr(error)) from None
    except RecursionError:
        raise ValueError("JSON that is nested too deeply") from None
    return parsed


def token() -> str:
    """Of the function's own account. Raises OSError."""
    request = urllib.request.Request(f"{METADATA}/instance/service-accounts/default/token", headers={"Metadata-Flavor": "Google"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(json.load(answer)["access_token"])


def state(job: str, token: str) -> dict[str, Any] | None:
    """When the job's state was written, and its status; what cannot be parsed has been written all the same."""
    try:
        found = call("GET", object_url(f"jobs/{job}/state.json"), token)
    except OSError as error:
        return {} if getattr(error, "code", 0) == 404 else None
    if int(found.get("size", 0)) > MOST_BYTES:
        return {"updated": found["updated"], "status": ""}
    try:
        content = call("GET", f"{object_url(f'jobs/{job}/state.json')}?alt=media", token)
        status = content.get("status") if isinstance(content, dict) else ""
    except (OSError, ValueError):
        status = ""
    return {"updated": found["updated"], "status": status}


def object_url(name: str) -> str:
    """Of an object in the scratch bucket."""
    return f"{STORAGE}/storage/v1/b/{os.environ['ELSON_SCRATCH']}/o/{quoted(name)}"


def upload_url() -> str:
    """Where that bucket's objects are written."""
    return f"{STORAGE}/upload/storage/v1/b/{os.environ['ELSON_SCRATCH']}/o?uploadType=media"


def quoted(name: str) -> str:
    """A name as one part of an address."""
    return urllib.parse.quote(name, safe="")


def say(severity: str, message: str, **fields: Any) -> None:
    """One line of the function's log; alerts ask for its message."""
    sys.stdout.write(json.dumps({"severity": severity, "message": message, **fields}) + "\n")
    sys.stdout.flush()
