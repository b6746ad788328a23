"""The little HTTP/1.1 that a timed request needs: bytes out, bytes in, each read stamped on the monotonic clock and parsed afterwards.

At 64 streams at once a general client's parsing is itself what is measured: on two cores httpx takes 5 to 9 ms of processor time for one
answer of 50 events, which queues up in everybody's latency (``tests/benchmarks/EVALUATION.md``). Here a read costs a list append while the clock runs.

Left out: redirects, proxies, compression, HTTP/2, cookies. TLS is the standard library's, with the system's certificates.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

#: A longer response is cut off: no answer to a benchmark case is this long.
MOST_BYTES = 32 << 20


class WireError(Exception):
    """The connection could not be made or broke off, or what came was no HTTP."""


@dataclass
class Response:
    """Status, headers (names in lower case) and the body as (seconds on the monotonic clock, bytes) in the order of arrival."""

    began: float
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: list[tuple[float, bytes]] = field(default_factory=list)
    ended: float = 0.0

    @property
    def text(self) -> str:
        """The whole body."""
        return b"".join(data for _, data in self.body).decode(errors="replace")


class Wire:
    """Kept-alive connections to one server."""

    def __init__(self, base_url: str, headers: Mapping[str, str]) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise WireError(f"{base_url!r} is no http(s) address")
        self._secure = ssl.create_default_context() if parts.scheme == "https" else None
        self._host, self._port = parts.hostname, parts.port or (443 if self._secure else 80)
        self._prefix = parts.path.rstrip("/")
        shown = f"[{self._host}]" if ":" in self._host else self._host
        fixed = {"Host": f"{shown}:{self._port}" if parts.port else shown, "Accept-Encoding": "identity", **headers}
        for name, value in fixed.items():
            if not f"{name}{value}".isprintable() or not value.isascii():
                raise WireError(f"the header {name} holds characters that cannot be sent")
        self._fixed = "".join(f"{name}: {value}\r\n" for name, value in fixed.items())
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()

    async def request(self, method: str, path: str, content: bytes = b"") -> Response:
        """Send a request and wait for the whole response. Raises WireError; on cancellation the connection is closed."""
        length = f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n" if content else ""
        data = f"{method} {self._prefix}{path} HTTP/1.1\r\n{self._fixed}{length}\r\n".encode() + content
        began = time.monotonic()
        connection = await self._connection()
        try:
            response = await connection.exchange(data, began)
        except BaseException:
            connection.close()
            self._open.discard(connection)
            raise
        if connection.usable:
            self._idle.append(connection)
        else:
            connection.close()
            self._open.discard(connection)
        _read_body(response)
        return response

    def close(self) -> None:
        """Close every connection."""
        for connection in self._open:
            connection.close()
        self._open.clear()
        self._idle.clear()

    async def _connection(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
            self._open.discard(connection)
        try:
            _, connection = await asyncio.get_running_loop().create_connection(_Connection, self._host, self._port, ssl=self._secure)
        except OSError as error:
            raise WireError(f"no connection to {self._host}:{self._port}: {error}") from None
        self._open.add(connection)
        return connection


class _Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self.usable = False
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._response: Response | None = None
        self._head = self._tail = b""
        self._size = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError(f"{transport!r} is no stream; create_connection makes one")
        self._transport, self.usable = transport, True

    async def exchange(self, data: bytes, began: float) -> Response:
        """Send ``data``; the response when its last byte has come."""
        if self._transport is None or not self.usable:
            raise WireError("the connection is closed")
        self._response, self._head, self._tail, self._size = Response(began), b"", b"", 0
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(data)
        await self._waiting
        return self._response

    def data_received(self, data: bytes) -> None:
        """Stamp and keep; the only reading done here is whether this was the end."""
        now = time.monotonic()
        response, waiting = self._response, self._waiting
        if response is None or waiting is None or waiting.done():
            self.close()  # nobody asked
            return
        self._size += len(data)
        if not response.status:
            self._head += data
            head, found, rest = self._head.partition(b"\r\n\r\n")
            if not found:
                return
            try:
                _read_head(response, head)
            except ValueError:
                waiting.set_exception(WireError(f"no HTTP response: {head[:80]!r}"))
                return
            data = rest
        if data:
            response.body.append((now, data))
            self._tail = (self._tail + data)[-4:]
        try:
            complete = self._is_complete(response)
        except WireError as error:
            waiting.set_exception(error)
            return
        if complete:
            response.ended = now
            waiting.set_result(None)
        elif self._size > MOST_BYTES:
            waiting.set_exception(WireError(f"a response of more than {MOST_BYTES} bytes"))

    def eof_received(self) -> None:
        self.usable = False

    def connection_lost(self, error: Exception | None) -> None:
        self.usable = False
        if self._waiting is None or self._waiting.done() or self._response is None:
            return
        response = self._response
        if response.status and not _is_framed(response) and error is None:
            response.ended = response.body[-1][0] if response.body else time.monotonic()
            self._waiting.set_result(None)
        else:
            self._waiting.set_exception(
                WireError(f"the connection broke off {'in the answer' if response.status else 'before an answer'}{f': {error}' if error else ''}")
            )

    def close(self) -> None:
        """Close at once."""
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    def _is_complete(self, response: Response) -> bool:
        if response.headers.get("connection", "").lower() == "close":
            self.usable = False
        if response.headers.get("transfer-encoding", "").lower() == "chunked":
            # A body ends in an empty line ("\r\n\r\n"), an event's chunk in "\n\n\r\n": the tail tells nearly always, and parsing decides.
            return self._tail == b"\r\n\r\n" and _chunks(response.body)[1]
        if "content-length" in response.headers:
            return sum(len(data) for _, data in response.body) >= int(response.headers["content-length"])
        return response.status in (204, 304)


def _read_head(response: Response, head: bytes) -> None:
    first, *lines = head.decode("latin-1").split("\r\n")
    version, status, *_ = first.split(" ", 2)
    if not version.startswith("HTTP/1."):
        raise ValueError(first)
    response.headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    int(response.headers.get("content-length", "0"))
    response.status = int(status)


def _is_framed(response: Response) -> bool:
    return "content-length" in response.headers or "transfer-encoding" in response.headers


def _read_body(response: Response) -> None:
    if response.headers.get("transfer-encoding", "").lower() == "chunked":
        response.body = _chunks(response.body)[0]


def _chunks(raw: list[tuple[float, bytes]]) -> tuple[list[tuple[float, bytes]], bool]:
    """(the payload of each read, whether the last chunk has come) of a chunked body (RFC 9112, section 7.1)."""
    payload: list[tuple[float, bytes]] = []
    pending, left = b"", 0
    for at, data in raw:
        pending += data
        parts = []
        while pending:
            if left > 2:
                taken = pending[: left - 2]
                parts.append(taken)
                pending, left = pending[len(taken) :], left - len(taken)
            elif left:
                taken = pending[:left]
                pending, left = pending[len(taken) :], left - len(taken)
            else:
                size, found, rest = pending.partition(b"\r\n")
                if not found:
                    break
                try:
                    left = int(size.split(b";")[0], 16)
                except ValueError:
                    raise WireError(f"a chunk of no size: {size[:40]!r}") from None
                if left == 0:
                    if rest.startswith(b"\r\n") or b"\r\n\r\n" in rest:  # trailers, if any, are of no use here
                        payload.append((at, b"".join(parts)))
                        return payload, True
                    break
                pending, left = rest, left + 2
        payload.append((at, b"".join(parts)))
    return payload, False
