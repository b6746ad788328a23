"""The wire: whatever way the bytes are cut, the same response; whatever is wrong, one clear error."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from runners.evaluation.wire import Response, Wire, WireError, _chunks

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def talk(parts: list[bytes], *, close: bool = False, requests: int = 1, pause_s: float = 0.0) -> list[Response]:
    """Let a server answer each request with these parts, one write each."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                for part in parts:
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(pause_s)
                if close:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()

    async def main() -> list[Response]:
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        wire = Wire(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", {"X": "y"})
        try:
            async with asyncio.timeout(3):
                return [await wire.request("GET", "/x") for _ in range(requests)]
        finally:
            wire.close()
            server.close()

    return asyncio.run(main())


def chunked(*payloads: bytes, extension: bytes = b"", trailer: bytes = b"") -> bytes:
    return b"".join(b"%x%s\r\n%s\r\n" % (len(p), extension, p) for p in payloads) + b"0\r\n" + trailer + b"\r\n"


@given(st.lists(st.binary(min_size=1, max_size=60), max_size=12), st.lists(st.integers(1, 40), min_size=1, max_size=30))
def test_chunks_are_the_same_however_they_are_cut(payloads: list[bytes], cuts: list[int]) -> None:
    data, pieces, position = chunked(*payloads), [], 0
    for size in [*cuts * 100]:
        if position >= len(data):
            break
        pieces.append((float(position), data[position : position + size]))
        position += size
    read, ended = _chunks(pieces)
    if position >= len(data):
        assert ended and b"".join(payload for _, payload in read) == b"".join(payloads)
        assert not _chunks(pieces[:-1])[1]


@settings(max_examples=15, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(st.lists(st.binary(min_size=1, max_size=30), min_size=1, max_size=4), st.integers(1, 25))
def test_a_response_in_pieces(payloads: list[bytes], size: int) -> None:
    data = HEAD + chunked(*payloads)
    (response,) = talk([data[start : start + size] for start in range(0, len(data), size)])
    assert b"".join(part for _, part in response.body) == b"".join(payloads)


def test_an_event_that_ends_like_a_body_does_not_end_it() -> None:
    parts = [HEAD + b"4\r\n\r\n\r\n", b"\r\n", b"7\r\n0\r\n\r\nab\r\n", b"0\r\n\r\n"]
    (response,) = talk(parts, pause_s=0.01)
    assert response.text == "\r\n\r\n0\r\n\r\nab"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", ""),
        (HEAD + chunked(b"he", b"llo", extension=b";a=b", trailer=b"X: y\r\n"), "hello"),
    ],
)
def test_framings_are_kept_alive(data: bytes, text: str) -> None:
    assert [response.text for response in talk([data], requests=3)] == [text] * 3


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    assert [response.text for response in talk([b"HTTP/1.1 200 OK\r\n\r\nhello"], close=True, requests=2)] == ["hello"] * 2


def test_times_are_of_arrival() -> None:
    (response,) = talk([HEAD, b"1\r\na\r\n", b"1\r\nb\r\n0\r\n\r\n"], pause_s=0.05)
    stamps = [at for at, data in response.body if data]
    assert response.began < stamps[0] < stamps[-1] <= response.ended and stamps[-1] - stamps[0] >= 0.04


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([b"SSH-2.0-OpenSSH\r\n\r\n"], "no HTTP"),
        ([b"HTTP/1.1 two OK\r\n\r\n"], "no HTTP"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello"], "broke off in the answer"),
        ([HEAD + b"5\r\nhel"], "broke off in the answer"),
        ([HEAD + b"zz\r\nhello\r\n\r\n"], "no size"),
        ([], "broke off before an answer"),
    ],
)
def test_what_is_wrong_is_said(parts: list[bytes], said: str) -> None:
    with pytest.raises(WireError, match=said):
        talk(parts, close=True)


@pytest.mark.parametrize("make", [lambda: Wire("ftp://x", {}), lambda: Wire("localhost:8000", {}), lambda: Wire("http://x", {"A": "b\r\nC: d"})])
def test_addresses_and_headers_that_cannot_be_sent(make: Callable[[], Wire]) -> None:
    with pytest.raises(WireError):
        make()


def test_a_cancelled_request_leaves_no_half_read_connection() -> None:
    async def main() -> str:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while head := await reader.readuntil(b"\r\n\r\n"):
                    await asyncio.sleep(0.2 if b"/slow" in head else 0)
                    name = head.split(b" ")[1]
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(name), name))
            except (asyncio.IncompleteReadError, ConnectionError):
                writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        wire = Wire(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", {})
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await wire.request("GET", "/slow")
        text = (await wire.request("GET", "/quick")).text
        wire.close()
        server.close()
        return text

    assert asyncio.run(main()) == "/quick"
