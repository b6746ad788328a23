"""Two real servers behind a real proxy: one is added, one drained, one killed in the middle of an answer."""

from __future__ import annotations

import http.client
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cloud_run.conftest import clean_environment, gateway_entry  # noqa: F401 - fixtures
from tests.serve.several import SEQUENCES, Balancer, Server, balanced
from tests.vm.test_gateway import caddy  # noqa: F401 - a fixture


class Stream(threading.Thread):
    """One long answer in the background: its pieces, and what broke it."""

    def __init__(self, balancer: Balancer, tokens: int) -> None:
        super().__init__()
        self.balancer, self.tokens = balancer, tokens
        self.pieces: list[dict[str, Any]] = []
        self.problem: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            for piece in self.balancer.stream(self.tokens):
                self.pieces.append(piece)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.problem = error

    def flowing(self) -> Stream:
        """Once its first tokens are here."""
        _until(lambda: len(self.pieces) > 3 or not self.is_alive())
        assert self.is_alive(), (self.problem, len(self.pieces))
        return self

    @property
    def is_whole(self) -> bool:
        return self.problem is None and self.pieces[-1]["choices"][0]["finish_reason"] == "length"


def _until(true: Any, within_s: float = 60) -> None:
    end_s = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end_s, "it did not come to that"
        time.sleep(0.02)


def _asked(server: Server) -> float:
    return server.counters()["answered"] + server.counters()["in_flight"]


@pytest.mark.timeout(900)
def test_one_is_added_one_drained_and_one_killed(
    caddy: Path,  # noqa: F811 - the fixture
    gateway_entry: list[str],  # noqa: F811 - the fixture
    clean_environment: dict[str, str],  # noqa: F811 - the fixture
    tmp_path: Path,
) -> None:
    with balanced(caddy, gateway_entry, clean_environment, tmp_path) as (balancer, start):
        first, second = start(2)
        balancer.list(first)
        balancer.until_it_answers()

        with first.slowed(), second.slowed():
            # Alone and overloaded: what the autoscaler is told is in vLLM's own figures. Then one is added.
            crowd = [Stream(balancer, 100) for _ in range(2 * SEQUENCES)]
            _until(lambda: first.counters()["waiting"] > 0)
            assert 0 < first.counters()["kv_use"] <= 1
            balancer.list(first, second)
            for one in crowd:
                one.join()
            assert all(one.is_whole for one in crowd), "adding a server breaks no stream"
            before = _asked(second)
            for one in [Stream(balancer, 20) for _ in range(2 * SEQUENCES)]:
                one.join()
                assert one.is_whole
            assert _asked(second) > before, "the added server is asked"

            # Drained: the stream it has goes on, and nothing new comes.
            balancer.list(first)
            stream = Stream(balancer, 250).flowing()
            before = _asked(first)
            balancer.list(second)
            for _ in range(3):
                assert not balancer.until_it_answers()
            assert _asked(first) == before
            stream.join()
            assert stream.is_whole

            # Killed: its stream breaks and says so; the others' goes on, and the next request is answered.
            balancer.list(second)
            broken = Stream(balancer, 350).flowing()
            balancer.list(first, second)
            kept = Stream(balancer, 250).flowing()
            second.kill()
            broken.join()
            assert isinstance(broken.problem, (OSError, http.client.HTTPException)), broken.problem
            said = balancer.until_it_answers()
            assert all("502" in problem or "503" in problem for problem in said), said
            # Once its check has failed it is asked no more; before, each second request would meet it.
            _until(lambda: not any(balancer.until_it_answers() for _ in range(12)))
            kept.join()
            assert kept.is_whole

        # A VM's end comes after the draining, and waits for what is left.
        last = Stream(balancer, 200)
        _until(lambda: len(last.pieces) > 3)
        first.instance.stop()
        last.join()
        assert last.is_whole and not first.instance.killed
