"""The servers' keys: made here, written to Secret Manager, shown nowhere. Not Pulumi's business, whose state would remember them.

A version of the secret holds one key a line, the newest first; a server accepts each of them, so that clients change over without a gap.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from runners.errors import UserError

#: Name of the secret in Secret Manager.
NAME = "elson-api-key"

_BYTES = 32


def rotate(project: str, secret: str, keep: int, client: Any = None) -> tuple[str, list[str]]:
    """Add a version with a new random key and the ``keep`` newest of the earlier ones, and disable the older versions.

    Returns (new version, disabled versions). Raises UserError.
    """
    return _replace(project, secret, lambda keys: [secrets.token_urlsafe(_BYTES), *keys[:keep]], client)


def revoke(project: str, secret: str, mark: str, client: Any = None) -> tuple[str, list[str]]:
    """Add a version without the key that ``mark`` names (see :func:`marks`), with a new one if none is left, and disable the older versions.

    Returns (new version, disabled versions). Raises UserError when no key, or more than one, has the mark.
    """

    def without(keys: list[str]) -> list[str]:
        found = [key for key in keys if len(mark) >= 8 and mark_of(key).startswith(mark)]
        if len(found) != 1:
            known = ", ".join(map(mark_of, keys)) or "there is none"
            raise UserError(f"{len(found)} keys have the mark {mark}", f"one of {known}", "elson key ls")
        return [key for key in keys if key not in found] or [secrets.token_urlsafe(_BYTES)]

    return _replace(project, secret, without, client)


def marks(project: str, secret: str, client: Any = None) -> list[str]:
    """What the accepted keys are known by, newest first: the beginning of their SHA-256, which tells nothing of them."""
    name = f"projects/{project}/secrets/{secret}"
    with _explained(name):
        client = client or _client()
        newest = next((v.name for v in client.list_secret_versions(request={"parent": name, "filter": "state:ENABLED"})), None)
        return [mark_of(key) for key in _keys(client, newest)] if newest else []


def mark_of(key: str) -> str:
    """12 hex digits of a key's SHA-256: ``printf %s KEY | sha256sum``."""
    return hashlib.sha256(key.encode()).hexdigest()[:12]


def _replace(project: str, secret: str, change: Callable[[list[str]], list[str]], client: Any) -> tuple[str, list[str]]:
    name = f"projects/{project}/secrets/{secret}"
    with _explained(name):
        client = client or _client()
        # Newest first, as the service lists them.
        earlier = [version.name for version in client.list_secret_versions(request={"parent": name, "filter": "state:ENABLED"})]
        payload = "\n".join(change(_keys(client, earlier[0]) if earlier else []))
        made = client.add_secret_version(request={"parent": name, "payload": {"data": payload.encode()}})
        for version in earlier:
            client.disable_secret_version(request={"name": version})
        return str(made.name), earlier


@contextmanager
def _explained(name: str) -> Iterator[None]:
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except exceptions.NotFound:
        raise UserError(f"there is no secret {name}", "the foundation stack", "pulumi up -s foundation") from None
    except exceptions.PermissionDenied as error:
        raise UserError(f"no access to {name}: {error.message}", "roles/secretmanager.admin on it", "ask the project's owner") from None
    except GoogleAuthError as error:
        raise UserError(f"no Google credentials: {error}", "application default credentials", "gcloud auth application-default login") from None


def _keys(client: Any, version: str) -> list[str]:
    answer = client.access_secret_version(request={"name": version})
    return [str(line) for line in answer.payload.data.decode().split()]


def _client() -> Any:
    from google.cloud import secretmanager

    return secretmanager.SecretManagerServiceClient()
