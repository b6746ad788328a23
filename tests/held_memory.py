"""What a call holds of memory at most, for tests that run it in a process of its own."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")


def held() -> int:
    """Bytes of this process that are no file's."""
    return int(re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())[1]) << 10  # type: ignore[index]  # Linux always says it


def most(call: Callable[[], Result]) -> tuple[Result, int]:
    """A call's result, and the bytes that were held beyond those before it, looked at every 2 ms."""
    before, seen, over = held(), list[int](), threading.Event()

    def look() -> None:
        while not over.wait(0.002):
            seen.append(held())

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        return call(), max(seen) - before
    finally:
        over.set()
        watcher.join()
