"""The phases of vLLM's start, read from what it logs; its lines of level INFO are read and not passed on.

program: Python, imports, configuration, the engine's process. weights: from the first shard to the last, waiting for the bucket included.
compile: torch.compile, or reading its cache. graphs: CUDA graphs captured. warm up: profiling, KV cache, the rest of the engine's start.
second model: all of that for the second of two, which starts when the first is up. first completion: from there to the first token.
"""

from __future__ import annotations

import re
import time

#: vLLM 0.32; tests/serve/test_start.py holds them beside its sources.
_SAID = {
    "weights": re.compile(r"Loading weights took ([\d.]+) seconds"),
    "compile": re.compile(r"torch\.compile took ([\d.]+) s in total"),
    "graphs": re.compile(r"Graph capturing finished in ([\d.]+) secs"),
    "engine": re.compile(r"init engine \(.*?\) took ([\d.]+) s"),
}
_INFO = re.compile(r"^(\(\w+[^)]*\) )?(INFO|DEBUG)\b")
#: The message of the log line that a VM's agent reads.
PHASES = "phases of the start"
#: In the order of the start; what is printed and kept.
NAMES = ("program", "weights", "compile", "graphs", "warm up", "second model", "first completion")


class Phases:
    """Follows one start, line by line; ``before`` are the phases of the model that started before."""

    def __init__(self, began: float | None = None, before: Phases | None = None) -> None:
        self._began, self._before = time.monotonic() if began is None else began, before
        self._said = dict[str, float]()
        self._at = dict[str, float]()

    @property
    def is_up(self) -> bool:
        """Whether the engine said that it is."""
        return "engine" in self._said

    def line(self, line: str, at: float | None = None) -> bool:
        """Take note of a line; whether it is worth passing on."""
        for name, pattern in _SAID.items():
            if name not in self._said and (found := pattern.search(line)):
                self._said[name], self._at[name] = float(found[1]), time.monotonic() if at is None else at
        return not _INFO.match(line)

    def seconds(self, ready_at: float | None = None) -> dict[str, float]:
        """Seconds of each phase that was seen; the first completion's where ``ready_at`` is given."""
        said, at = self._said, self._at
        found = dict[str, float]({name: said[name] for name in ("weights", "compile", "graphs") if name in said})
        if "weights" in said:
            found["program"] = at["weights"] - said["weights"] - self._began
        if "engine" in said:
            found["warm up"] = said["engine"] - said.get("compile", 0.0) - said.get("graphs", 0.0)
            if self._before:
                found = {**self._before.seconds(), "second model": at["engine"] - self._before._at.get("engine", at["engine"])}
            if ready_at is not None:
                found["first completion"] = ready_at - at["engine"]
        return {name: round(max(0.0, found[name]), 2) for name in NAMES if name in found}
