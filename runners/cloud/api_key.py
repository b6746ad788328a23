"""The servers' keys: made here, written to Secret Manager, shown nowhere. Not Pulumi's business, whose state would remember them.

A version of the secret holds one key a line, the newest first; a server accepts each of them, so that clients change over without a gap.
"""

from __future__ import annotations

import secrets
from typing import Any

from runners.errors import UserError

_BYTES = 32


def rotate(project: str, secret: str, keep: int, client: Any = None) -> tuple[str, list[str]]:
    """Add a version with a new random key and the ``keep`` newest of the earlier ones, and disable the older versions.

    Returns (new version, disabled versions). Raises UserError.
    """
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError

    name = f"projects/{project}/secrets/{secret}"
    try:
        client = client or _client()
        # Newest first, as the service lists them.
        earlier = [version.name for version in client.list_secret_versions(request={"parent": name, "filter": "state:ENABLED"})]
        kept = _keys(client, earlier[0])[:keep] if earlier else []
        payload = "\n".join([secrets.token_urlsafe(_BYTES), *kept])
        made = client.add_secret_version(request={"parent": name, "payload": {"data": payload.encode()}})
        for version in earlier:
            client.disable_secret_version(request={"name": version})
    except exceptions.NotFound:
        raise UserError(f"there is no secret {name}", "the foundation stack", "pulumi up -s foundation") from None
    except exceptions.PermissionDenied as error:
        raise UserError(f"no access to {name}: {error.message}", "roles/secretmanager.admin on it", "ask the project's owner") from None
    except GoogleAuthError as error:
        raise UserError(f"no Google credentials: {error}", "application default credentials", "gcloud auth application-default login") from None
    return str(made.name), earlier


def _keys(client: Any, version: str) -> list[str]:
    answer = client.access_secret_version(request={"name": version})
    return [str(line) for line in answer.payload.data.decode().split()]


def _client() -> Any:
    from google.cloud import secretmanager

    return secretmanager.SecretManagerServiceClient()
