"""What the watchdog remembers of one job, in an object of the scratch bucket (``watchdog/<group>.json``)."""

import json
from typing import Any

import apis


class Changed(Exception):
    """Somebody wrote or deleted a memory after this look had read it: who starts a job again does."""


class JobMemory:
    """What is known of one job's groups, in one object. Each write says which generation it has read."""

    def __init__(self, uri: str, token: str) -> None:
        self.uri, self.token, self.generation = uri, token, "0"

    def read(self, ids: dict[str, str]) -> dict[str, Any]:
        """What is known of these very groups; a group that was made again under the same name is another."""
        try:
            self.generation = str(apis.call("GET", apis.object_url(self.uri), self.token)["generation"])
            found: dict[str, Any] = apis.call("GET", f"{apis.object_url(self.uri)}?alt=media&generation={self.generation}", self.token)
        except OSError as error:
            if getattr(error, "code", 0) != 404:
                raise
            return {}
        except ValueError:
            return {}
        known = found.get("groups") if isinstance(found, dict) else None
        if not isinstance(known, dict) or any(known.get(name, id) != id for name, id in ids.items()):
            return {}
        return found

    def keep(self, memory: dict[str, Any]) -> None:
        """Raises Changed, and OSError where storage does not answer."""
        address = f"{apis.upload_url()}&name={apis.quoted(self.uri)}&ifGenerationMatch={self.generation}"
        self.generation = str(self._write("POST", address, json.dumps(memory).encode())["generation"])

    def forget(self) -> None:
        """As ``keep`` of nothing at all."""
        if self.generation != "0":
            self._write("DELETE", f"{apis.object_url(self.uri)}?ifGenerationMatch={self.generation}")
            self.generation = "0"

    def _write(self, method: str, url: str, body: bytes = b"") -> dict[str, Any]:
        try:
            answer: dict[str, Any] = apis.call(method, url, self.token, body)
        except OSError as error:
            if getattr(error, "code", 0) in (404, 412):
                raise Changed(self.uri) from None
            raise
        return answer
