"""Which steps of a server are captured as CUDA graphs. Pure."""

from __future__ import annotations

from runners.spec import ServeSpec


def graph_sizes(spec: ServeSpec) -> list[int]:
    """Tokens of the steps that are captured as CUDA graphs: what ``max_sequences`` can decode together, and nothing beyond; vLLM's default goes to twice that.

    Speculation checks ``draft_tokens`` + 1 tokens of each sequence. 1, 2, 4, then every 8: vLLM pads a step to the next size.
    """
    tokens = 1 + (spec.speculation.draft_tokens if spec.speculation else 0)
    steps = [*(size for size in (1, 2, 4) if size < spec.max_sequences), *range(8, spec.max_sequences, 8), spec.max_sequences]
    return sorted({tokens * size for size in steps})
