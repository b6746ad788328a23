"""What a server runs with, as each of its answers says, so that an evaluation records the server's settings and not those of its own spec.

vLLM puts ``--fingerprint-value`` into every answer (``system_fingerprint``), and so it passes the gateway, where ``/metrics`` does not.
``runners/serving/serve.py`` makes it from the spec that it makes vLLM's arguments from; tests/job/test_cache_settings.py holds it against vLLM's metrics.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from runners.fields import Strict
from runners.spec import ServeSpec

_TEXT = re.compile(r"elson kv_cache_dtype=(auto|fp8) prefix_caching=(on|off) speculation=(none|[a-z0-9]+:[0-9]+)")


class ServedWith(Strict):
    """Settings of a server that its answers or their speed depend on. ``speculation`` is ``none``, or method and drafted tokens: ``eagle3:4``."""

    kv_cache_dtype: Literal["auto", "fp8"]
    prefix_caching: bool
    speculation: str

    @property
    def text(self) -> str:
        """What each answer carries."""
        return f"elson kv_cache_dtype={self.kv_cache_dtype} prefix_caching={'on' if self.prefix_caching else 'off'} speculation={self.speculation}"


def of(spec: ServeSpec) -> ServedWith:
    """The settings of a spec."""
    drafts = f"{spec.speculation.method}:{spec.speculation.draft_tokens}" if spec.speculation else "none"
    return ServedWith(kv_cache_dtype=spec.kv_cache_dtype, prefix_caching=spec.prefix_caching, speculation=drafts)


def read(text: str | None) -> ServedWith | None:
    """The settings in an answer's fingerprint; None in one that says nothing of them, as of a server that elson did not start."""
    found = _TEXT.fullmatch(text or "")
    return ServedWith.model_validate({"kv_cache_dtype": found[1], "prefix_caching": found[2] == "on", "speculation": found[3]}) if found else None


def told(texts: Iterable[str | None]) -> ServedWith | None:
    """The settings that all answers tell; None where one tells nothing, or two tell different ones: then several servers answered."""
    distinct = set(texts)
    return read(distinct.pop()) if len(distinct) == 1 else None
