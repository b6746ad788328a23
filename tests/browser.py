"""A real headless browser, driven over its debugging pipe (no driver, no websocket library): open a page, measure it, look at it.

with Browser() as browser:
    page = browser.open(file, width=390, dark=True)
    page.run("document.title")
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

_QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def find() -> str | None:
    """The browser of this machine."""
    return next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)


def need() -> None:
    """Skip, and say so, where there is no browser; in CI its absence is a failure."""
    if find() is None:
        if os.environ.get("CI"):
            pytest.fail("no headless browser here: the set-up installs Debian's `chromium`")
        pytest.skip("no headless browser (`make system` installs one)")


#: A page is read to its end up to here, as it opens and on paper.
MOST_PX, MOST_PAGES = 16_000, 15
#: Functions of ``window.measures`` that tests ask.
MEASURES = Path(__file__).with_name("measures.js")


class Browser:
    """One headless browser process with a profile of its own."""

    def __init__(self) -> None:
        program = find()
        assert program, "call need() first"
        self._profile = tempfile.mkdtemp(prefix="elson-browser-")
        self._ids = itertools.count(1)
        self._pending = b""
        self.events: list[dict[str, Any]] = []
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        command = [program, "--headless", *_QUIET, f"--user-data-dir={self._profile}", "--hide-scrollbars", "--remote-debugging-pipe", "about:blank"]

        def wire_up() -> None:
            # The protocol is on descriptors 3 and 4; the pipes' own numbers may be among them.
            source, sink = os.dup(to_browser), os.dup(from_browser)
            high_source, high_sink = 100, 101
            os.dup2(source, high_source)
            os.dup2(sink, high_sink)
            os.dup2(high_source, 3)
            os.dup2(high_sink, 4)

        self._process = subprocess.Popen(command, preexec_fn=wire_up, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_browser)
        os.close(from_browser)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait(10)
        os.close(self._write)
        os.close(self._read)
        shutil.rmtree(self._profile, ignore_errors=True)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol; its result. Events that come meanwhile are kept."""
        number = next(self._ids)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if hasattr(self, "session"):
            message["sessionId"] = self.session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return dict(answer["result"])
            self.events.append(answer)

    def wait_for(self, method: str) -> None:
        """Until an event has come."""
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self._next())

    def open(self, file: Path, *, width: int = 1366, height: int = 900, dark: bool = False) -> Browser:
        """Show a file at a width, in light or dark."""
        self.events.clear()
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.call("Page.navigate", url=file.resolve().as_uri())
        self.wait_for("Page.loadEventFired")
        # A phone widens its window to what does not fit, so what was asked for is the measure.
        self.run(f"window.askedWidth = {width}")
        self.run(MEASURES.read_text())
        self.run("measures.remember()")
        return self

    def printed_pages(self) -> int:
        """Pages of A4 that the page prints on, folded as it was when it was opened."""
        self.run("measures.fold(true)")
        stream = self.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, transferMode="ReturnAsStream")["stream"]
        content, more = b"", True
        while more:
            part = self.call("IO.read", handle=stream)
            content += base64.b64decode(part["data"]) if part.get("base64Encoded") else part["data"].encode()
            more = not part["eof"]
        self.run("measures.fold(false)")
        return len(re.findall(rb"/Type\s*/Page\b", content))

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def problems(self) -> list[str]:
        """Errors on the console, refused or outside requests."""
        found = [event["params"]["entry"]["text"] for event in self.events if event.get("method") == "Log.entryAdded"]
        found += [str(event["params"]) for event in self.events if event.get("method") in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled")]
        asked = [event["params"]["request"]["url"] for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        return found + [url for url in asked if not url.startswith(("file:", "data:"))]

    def faults(self) -> dict[str, Any]:
        """Everything that is wrong with how the page looks at this width and colour scheme; empty when nothing is."""
        asked = {
            name: self.run(f"measures.{name}()")
            for name in ("lowContrast", "tooWide", "cutLabels", "nameless", "repeatedIds", "brokenWords", "unfilled", "overrun", "cutNames")
        }
        asked["scrolls sideways"] = self.run("Math.max(document.scrollingElement.scrollWidth, innerWidth) > askedWidth")
        asked["charts not drawn once"] = [count for count in self.run("measures.drawings()") if count != 1]
        asked["chart text under 9 px"] = self.run("measures.smallestText() < 9")
        asked["taller than 16,000 px"] = (height := self.run("measures.height")) > MOST_PX and height
        asked["prints on more than 15 pages"] = (pages := self.printed_pages()) > MOST_PAGES and pages
        asked["problems"] = self.problems()
        return {name: value for name, value in asked.items() if value}

    def picture(self, file: Path) -> None:
        """The page as PNG: all of it, or as much as a picture holds (16,000 px)."""
        width, height = self.run("innerWidth"), min(16_000, self.run("document.documentElement.scrollHeight"))
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip={"x": 0, "y": 0, "width": width, "height": height, "scale": 1})
        file.write_bytes(base64.b64decode(shot["data"]))

    def _next(self) -> dict[str, Any]:
        ends_at, waiting = time.monotonic() + 60, select.poll()
        waiting.register(self._read, select.POLLIN)
        while b"\0" not in self._pending:
            # Not select(): it takes no descriptor above 1,023, and a whole room of tests has more open.
            ready = waiting.poll(1000 * max(0.0, ends_at - time.monotonic()))
            data = os.read(self._read, 1 << 16) if ready else b""
            assert data, "the browser does not answer"
            self._pending += data
        message, self._pending = self._pending.split(b"\0", 1)
        return dict(json.loads(message))
