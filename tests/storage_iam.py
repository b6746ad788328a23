"""IAM in front of the storage emulator: every call is made by a member, and refused unless a grant of the foundation allows it.

The emulator knows no identities. Google refuses, in one way that code must expect: **an object that is not there answers 404 only to a caller who
may list the bucket; to any other caller it answers 403**. Listing is a right on the bucket, which no condition on object names can grant.
Overwriting needs the right to delete.

    policy = Policy.of(runs("foundation", False).resources)      # the grants, as the Pulumi program registers them (tests/infra/engine.py)
    with acting_as("elson-serve", policy) as front:              # with STORAGE_EMULATOR_HOST set, e.g. by `local_bucket.running`
        storage.read("gs://scratch/jobs/j/state.json")           # runners.artifacts.storage, or any other client, is that account now
    assert front.refused == [("storage.objects.get", "projects/_/buckets/scratch/objects/jobs/j/state.json")]

A member is a full one ("user:me@example.org") or the beginning of an account's mail address ("elson-serve"). ``Policy.with_grant`` adds one by hand.
``Front.granted_from`` (a ``time.monotonic()``) is when the grants take effect: on the platform that takes minutes. ``upstream`` is any URL, so fronts
and other proxies can be chained. A resumable session carries its permission in its URL, as on the platform.
Not here: access lists (the buckets are uniform), signed URLs, batches.
"""

from __future__ import annotations

import ast
import http.client
import json
import os
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_READ = ("storage.objects.get", "storage.objects.list")
_USE = ("storage.objects.create", "storage.objects.delete", *_READ, "storage.objects.update", "storage.objects.restore")
#: Predefined roles, as far as they are about objects and buckets: cloud.google.com/storage/docs/access-control/iam-roles
ROLES = {
    "roles/storage.objectViewer": _READ,
    "roles/storage.objectCreator": ("storage.objects.create",),
    "roles/storage.objectUser": _USE,
    "roles/storage.objectAdmin": (*_USE, "storage.objects.setIamPolicy", "storage.objects.getIamPolicy"),
    "roles/storage.bucketViewer": ("storage.buckets.get", "storage.buckets.list"),
    "roles/storage.admin": (*_USE, "storage.buckets.get", "storage.buckets.list", "storage.buckets.create", "storage.buckets.delete", "storage.buckets.update"),
    "roles/owner": (*_USE, "storage.buckets.get", "storage.buckets.list", "storage.buckets.create", "storage.buckets.delete", "storage.buckets.update"),
}


@dataclass(frozen=True)
class Grant:
    """A role of a member on a bucket, or on the project where ``bucket`` is None."""

    member: str
    permissions: frozenset[str]
    bucket: str | None = None
    condition: str = ""


@dataclass(frozen=True)
class Policy:
    """Every grant that reaches storage."""

    grants: tuple[Grant, ...] = ()

    @staticmethod
    def of(resources: Iterable[Any]) -> Policy:
        """From registered resources (``type`` and ``inputs``). Raises AssertionError for conditions on a bucket with access lists, as the platform."""
        resources = list(resources)
        custom = {r.inputs["roleId"]: tuple(r.inputs["permissions"]) for r in resources if r.type.endswith(":IAMCustomRole")}
        uniform = {r.inputs["name"]: r.inputs.get("uniformBucketLevelAccess", False) for r in resources if r.type.endswith("/bucket:Bucket")}
        grants = []
        for r in resources:
            kind = r.type.rsplit(":", 1)[-1]
            if kind not in ("BucketIAMMember", "IAMMember") or (kind == "IAMMember" and ":projects/" not in r.type):
                continue
            role = r.inputs["role"]
            permissions = custom.get(role.rsplit("/", 1)[-1], ()) if "/roles/" in role else ROLES.get(role)
            assert permissions is not None or not role.startswith("roles/storage."), f"what does {role} allow? Add it to ROLES"
            condition = (r.inputs.get("condition") or {}).get("expression", "")
            bucket = r.inputs.get("bucket")
            assert not (condition and bucket) or uniform.get(bucket, True), f"{bucket}: conditions need uniform bucket-level access"
            grants.append(Grant(r.inputs["member"], frozenset(permissions or ()), bucket, condition))
        return Policy(tuple(grants))

    def with_grant(self, member: str, role: str, bucket: str | None = None, condition: str = "") -> Policy:
        """This policy and one more grant of a predefined role."""
        return Policy((*self.grants, Grant(member, frozenset(ROLES[role]), bucket, condition)))

    def allows(self, member: str, permission: str, bucket: str, name: str | None = None) -> bool:
        """Whether a member may do something with a bucket, or with an object in it."""
        return any(
            permission in grant.permissions and grant.bucket in (None, bucket) and _is(grant.member, member) and condition(grant.condition, bucket, name)
            for grant in self.grants
        )


def _is(granted: str, member: str) -> bool:
    return granted == member or (":" not in member and granted.startswith(f"serviceAccount:{member}@"))


def resource_name(bucket: str, name: str | None = None) -> str:
    """What IAM calls a bucket or an object."""
    return f"projects/_/buckets/{bucket}" + (f"/objects/{name}" if name is not None else "")


def condition(expression: str, bucket: str, name: str | None) -> bool:
    """An IAM condition (the part of CEL that is used on storage). Raises ValueError for one that the platform would refuse."""
    if not expression:
        return True
    kind = "storage.googleapis.com/Object" if name is not None else "storage.googleapis.com/Bucket"
    values = {"name": resource_name(bucket, name), "type": kind, "service": "storage.googleapis.com"}
    as_python = expression.replace("||", " or ").replace("&&", " and ").replace("!=", " NE ").replace("!", " not ").replace(" NE ", "!=").strip()
    return _truth(ast.parse(as_python, mode="eval").body, values)


def _truth(node: ast.expr, values: dict[str, str]) -> bool:
    match node:
        case ast.BoolOp(op=operator, values=parts):
            found = [_truth(part, values) for part in parts]
            return all(found) if isinstance(operator, ast.And) else any(found)
        case ast.UnaryOp(op=ast.Not(), operand=inner):
            return not _truth(inner, values)
        case ast.Call(func=ast.Attribute(value=subject, attr="startsWith" | "endsWith" as method), args=[ast.Constant(value=str(text))]):
            where = _text(subject, values)
            return where.startswith(text) if method == "startsWith" else where.endswith(text)
        case ast.Compare(left=left, ops=[ast.Eq() | ast.NotEq() as operator], comparators=[ast.Constant(value=str(text))]):
            return (_text(left, values) == text) == isinstance(operator, ast.Eq)
    raise ValueError(f"no IAM condition on storage: {ast.unparse(node)}")


def _text(node: ast.expr, values: dict[str, str]) -> str:
    match node:
        case ast.Attribute(value=ast.Name(id="resource"), attr=field) if field in values:
            return values[field]
    raise ValueError(f"conditions on storage know resource.name, .type and .service, not {ast.unparse(node)}")


@dataclass(frozen=True)
class Need:
    """One permission that a call needs; ``or_delete`` where an object that is there already needs the right to delete as well."""

    permission: str
    bucket: str
    name: str | None = None
    or_delete: bool = False


def needs(method: str, target: str, body: bytes) -> list[Need] | None:
    """What a call of the JSON API needs; an empty list for a session's URL, None for a call nobody knows."""
    url = urllib.parse.urlsplit(target)
    query = dict(urllib.parse.parse_qsl(url.query))
    parts = [urllib.parse.unquote(part) for part in url.path.split("/") if part]
    upload = parts[:1] == ["upload"]
    if parts[:1] in (["upload"], ["download"]):
        parts = parts[1:]
    if upload and "upload_id" in query and method in ("PUT", "DELETE"):
        return []
    if parts[:3] != ["storage", "v1", "b"]:
        return None
    match parts[3:]:
        case []:
            return [Need({"GET": "storage.buckets.list", "POST": "storage.buckets.create"}[method], "")]
        case [bucket]:
            return [Need({"GET": "storage.buckets.get", "DELETE": "storage.buckets.delete"}.get(method, "storage.buckets.update"), bucket)]
        case [bucket, "o"] if upload:
            return [Need("storage.objects.create", bucket, query.get("name") or _named(body), or_delete=True)]
        case [bucket, "o"]:
            return [Need("storage.objects.list", bucket)]
        case [bucket, "o", *rest] if "compose" in rest[-1:]:
            sources = [Need("storage.objects.get", bucket, source["name"]) for source in json.loads(body)["sourceObjects"]]
            return [*sources, Need("storage.objects.create", bucket, "/".join(rest[:-1]), or_delete=True)]
        case [bucket, "o", *rest]:
            for verb in ("rewriteTo", "copyTo"):
                if verb in rest:
                    at = rest.index(verb)
                    to = rest[at + 1 :]
                    created = Need("storage.objects.create", to[1], "/".join(to[3:]), or_delete=True)
                    return [Need("storage.objects.get", bucket, "/".join(rest[:at])), created]
            verb = {"GET": "get", "HEAD": "get", "DELETE": "delete"}.get(method, "update")
            return [Need(f"storage.objects.{verb}", bucket, "/".join(rest))]
    return None


def _named(body: bytes) -> str:
    """The object's name in the JSON part of an upload's body."""
    begin = body.find(b"{")
    found, _ = json.JSONDecoder().raw_decode(body[begin:].decode(errors="replace")) if begin >= 0 else ({}, 0)
    return str(found.get("name", ""))


class Front:
    """A listener that acts as one member before an emulator at ``upstream``. ``who`` tells the member from the headers instead, where several come."""

    def __init__(self, upstream: str, policy: Policy, member: str = "", who: Callable[[Any], str] | None = None) -> None:
        self.upstream, self.policy, self.granted_from = upstream.rstrip("/"), policy, 0.0
        self.refused: list[tuple[str, str]] = []
        self._who = who or (lambda _: member)
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        assert self._server, "use it as a context manager"
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Front:
        front = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # head and body are two writes, and the second would wait 40 ms for the acknowledgement of the first

            def _handle(self) -> None:
                body = _body(self)
                code, headers, content = front.answer(self.command, self.path, self.headers, body)
                self.send_response_only(code)
                for key, value in headers:
                    self.send_header(key, value.replace(front.upstream, front.url))
                if self.command != "HEAD":
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = do_HEAD = _handle

            def log_message(self, *_: Any) -> None:
                return

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                return  # a client that went away

        self._server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, target: str, headers: Any, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        """(status, headers, body) of a call. Pure but for the call upstream, so that another server can use it too."""
        needed = needs(method, target, body)
        if needed is None and not target.startswith("/_internal/"):
            return _error(501, f"the IAM stand-in does not know {method} {target}", "notImplemented")
        member = self._who(headers)
        for need in needed or []:
            if need.bucket and self._call("GET", f"/storage/v1/b/{need.bucket}")[0] == 404:
                return _error(404, "The specified bucket does not exist.", "notFound")
            for permission in [need.permission, *(["storage.objects.delete"] if need.or_delete and self._is_there(need) else [])]:
                if not self._allows(member, permission, need):
                    return self._refuse(member, permission, need)
        code, found, content = self._call(method, target, headers, body)
        for need in needed or []:
            # Who may not list is not told whether an object exists.
            hidden = code == 404 and need.name is not None and not need.or_delete
            if hidden and not self._allows(member, "storage.objects.list", Need("", need.bucket)):
                return self._refuse(member, need.permission, need)
        return code, found, content.replace(self.upstream.encode(), self.url.encode()) if self._server and b'"kind"' in content[:4096] else content

    def _allows(self, member: str, permission: str, need: Need) -> bool:
        return time.monotonic() >= self.granted_from and self.policy.allows(member, permission, need.bucket, need.name)

    def _is_there(self, need: Need) -> bool:
        return self._call("GET", f"/storage/v1/b/{need.bucket}/o/{urllib.parse.quote(need.name or '', safe='')}")[0] == 200

    def _refuse(self, member: str, permission: str, need: Need) -> tuple[int, list[tuple[str, str]], bytes]:
        if permission != "storage.buckets.get":  # the client library looks for it by itself, for its traces, and goes on without
            self.refused.append((permission, resource_name(need.bucket, need.name)))
        who = member.partition(":")[2] or member or "Anonymous caller"
        return _error(
            403 if member else 401,
            f"{who} does not have {permission} access to the Google Cloud Storage {'bucket' if need.name is None else 'object'}. "
            f"Permission '{permission}' denied on resource (or it may not exist).",
            "forbidden",
        )

    def _call(self, method: str, target: str, headers: Any = None, body: bytes = b"") -> tuple[int, list[tuple[str, str]], bytes]:
        where = urllib.parse.urlsplit(self.upstream)
        made = http.client.HTTPSConnection if where.scheme == "https" else http.client.HTTPConnection
        connection = made(where.hostname or "", where.port, timeout=120)
        passed = {key: value for key, value in (headers.items() if headers else ()) if key.lower() not in _HOP}
        try:
            connection.request(method, target, body or None, {**passed, "Content-Length": str(len(body))})
            answer = connection.getresponse()
            return answer.status, [(key, value) for key, value in answer.getheaders() if key.lower() not in _HOP], answer.read()
        finally:
            connection.close()


_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "authorization"}


def _body(handler: BaseHTTPRequestHandler) -> bytes:
    if handler.headers.get("Transfer-Encoding", "").lower() != "chunked":
        return handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
    parts = []
    while size := int(handler.rfile.readline().split(b";")[0], 16):
        parts.append(handler.rfile.read(size))
        handler.rfile.readline()
    handler.rfile.readline()
    return b"".join(parts)


def _error(code: int, message: str, reason: str) -> tuple[int, list[tuple[str, str]], bytes]:
    error = {"code": code, "message": message, "errors": [{"message": message, "domain": "global", "reason": reason}]}
    return code, [("Content-Type", "application/json; charset=UTF-8")], json.dumps({"error": error}).encode()


@contextmanager
def acting_as(member: str, policy: Policy) -> Iterator[Front]:
    """The storage clients of this process act as ``member`` while the block runs."""
    from runners.artifacts import storage

    before = os.environ["STORAGE_EMULATOR_HOST"]
    with Front(before, policy, member) as front:
        os.environ["STORAGE_EMULATOR_HOST"] = front.url
        storage.forget_clients()
        try:
            yield front
        finally:
            os.environ["STORAGE_EMULATOR_HOST"] = before
            storage.forget_clients()
