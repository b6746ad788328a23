"""How vLLM's worker grows on a CPU, by what it is asked: requests of one length, then of every length of a range, again and again.

    .elson/envs/train/bin/python -m runners base make tiny --out /tmp/tiny
    .elson/envs/serve/bin/python tests/benchmarks/serving_memory.py /tmp/tiny
    ONEDNN_PRIMITIVE_CACHE_CAPACITY=0 .elson/envs/serve/bin/python tests/benchmarks/serving_memory.py /tmp/tiny

Anonymous and shared memory of the worker's process, as in ``serving_soak.py``; one request at a time, two tokens each, without the server before it.
"""

from __future__ import annotations

import argparse
import os
import random
from pathlib import Path

WARM_UP, REQUESTS, SHORTEST = 60, 500, 101


def worker() -> Path:
    """Folder in /proc of the worker that this process started. Raises RuntimeError where there is none."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if "Worker" in (folder / "comm").read_text() and os.getpid() in _ancestors(folder):
                return folder
        except OSError:
            continue
    raise RuntimeError("vLLM started no process that is called a worker")


def _ancestors(folder: Path) -> list[int]:
    found = []
    while (parent := int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])) > 1:
        found.append(parent)
        folder = Path(f"/proc/{parent}")
    return found


def own_kib(folder: Path) -> int:
    """Anonymous memory of a process and its share of shared memory, KiB."""
    lines = (line.split() for line in (folder / "smaps_rollup").read_text().splitlines()[1:])
    sizes = {words[0].rstrip(":"): int(words[1]) for words in lines}
    return sizes["Anonymous"] + sizes.get("Pss_Shmem", 0)


def main() -> None:
    """Print a line a phase."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    model = parser.parse_args().model
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    from vllm import LLM, SamplingParams

    engine = LLM(str(model), max_model_len=1024, max_num_seqs=4, enable_prefix_caching=False, enforce_eager=True, dtype="float32")
    folder, sampling, draw = worker(), SamplingParams(max_tokens=2, ignore_eos=True, temperature=0), random.Random(0)

    def ask(length: int) -> None:
        engine.generate([{"prompt_token_ids": [draw.randrange(5, 60) for _ in range(length)]}], sampling, use_tqdm=False)

    for _ in range(WARM_UP):
        ask(SHORTEST - 1)
    before, every = own_kib(folder), list(range(SHORTEST, SHORTEST + REQUESTS))
    phases = [("one length", [SHORTEST - 1] * REQUESTS), *((f"{REQUESTS} lengths, each once", draw.sample(every, REQUESTS)) for _ in range(4))]
    for name, lengths in [*phases, phases[0]]:
        for length in lengths:
            ask(length)
        print(f"{name}: {own_kib(folder) - before:+,} KiB", flush=True)
        before = own_kib(folder)


if __name__ == "__main__":
    main()
