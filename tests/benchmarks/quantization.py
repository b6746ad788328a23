"""Both backends of the quantize stage on the same model, the same calibration and the same held-out answers, and who can load what they wrote.

    python3 -m runners.installation quantize-llmcompressor
    .venv/bin/python -m runners run --until merge
    PYTHONPATH=. .elson/envs/quantize/bin/python tests/benchmarks/quantization.py .elson/work/local/merged .elson/work/local/dataset WORK [--tokens 4096]

Each runs in a process of its own: its wall time and the largest of its processes. Quality is read back from the files, as the stage's gate does.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

BACKENDS = ("autoawq", "llmcompressor")
ASK = "What is an index fund?"
LOADS = {
    "vLLM": (
        "serve",
        "from vllm import LLM, SamplingParams\n"
        "import sys\n"
        "if __name__ == '__main__':\n"
        "    model = LLM(sys.argv[1], max_model_len=256, max_num_seqs=1, enforce_eager=True)\n"
        "    print('SAID', repr(model.generate([sys.argv[2]], SamplingParams(max_tokens=12, temperature=0))[0].outputs[0].text))\n",
    ),
    "transformers": (
        None,
        "import sys, torch\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "model, words = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16), AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "asked = words(sys.argv[2], return_tensors='pt')\n"
        "print('SAID', repr(words.decode(model.generate(**asked, max_new_tokens=12, do_sample=False)[0, asked['input_ids'].shape[1]:])))\n",
    ),
}


def settings(backend: str, tokens: int) -> Any:
    from runners import spec

    sequence = min(256, tokens)
    given: dict[str, Any] = {"backend": backend, "group_size": 64, "calibration_tokens": tokens, "calibration_sequence_tokens": sequence}
    # The table shows how far each is; nothing is to stop at a bound.
    given |= {"max_mean_kl": 100.0, "max_perplexity_ratio": 100.0, "must_beat_round_to_nearest": False}
    return spec.parse({"quantize": given, "train": {"max_tokens": 1024}})


def one(backend: str, merged: Path, dataset: Path, work: Path, tokens: int) -> dict[str, Any]:
    """In a fresh process: quantize and measure."""
    from runners.compression import quantize

    found = quantize.quantize(settings(backend, tokens), merged, dataset, work)
    seconds = next(phase.seconds for phase in found.phases if phase.name.startswith("quantize"))
    own, children = (resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {"seconds": seconds, "own_mib": own, "child_mib": children, **found.metrics}


def loads(who: str, backend: str, folder: Path) -> str:
    """What the model says, or the error."""
    from runners import environments

    stage, program = LOADS[who]
    stage = stage or ("quantize" if backend == "autoawq" else "quantize-llmcompressor")
    begin = time.monotonic()
    done = subprocess.run(
        [str(environments.python(stage)), "-c", program, str(folder), ASK], capture_output=True, text=True, env={**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1"}
    )
    said = [line for line in done.stdout.splitlines() if line.startswith("SAID")]
    return f"yes, {time.monotonic() - begin:.0f} s: {said[-1][5:]}" if said else f"no: {(done.stderr.strip().splitlines() or ['?'])[-1][:200]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("merged", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--backends", nargs="+", default=list(BACKENDS))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given.one, given.merged.resolve(), given.dataset, given.work.resolve(), given.tokens)))
        return
    print("| | s | peak MiB | MB on disk | perplexity, times merged | KL | top-1 | KL of round-to-nearest | vLLM | transformers |\n" + "|---" * 10 + "|")
    for backend in given.backends:
        work = given.work / backend
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        command = [sys.executable, __file__, str(given.merged), str(given.dataset), str(work), "--tokens", str(given.tokens), "--one", backend]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        row = [backend, f"{found['seconds']:.0f}", f"{max(found['own_mib'], found['child_mib']):.0f}", f"{found['bytes'] / 1e6:.0f}"]
        row += [f"{found['quantized_perplexity'] / found['merged_perplexity']:.3f}", f"{found['quantized_mean_kl']:.3f}"]
        row += [f"{found['quantized_top1_agreement']:.3f}", f"{found['round_to_nearest_mean_kl']:.3f}", *(loads(who, backend, work / "awq") for who in LOADS)]
        print("| " + " | ".join(row) + " |", flush=True)
        print(json.dumps(found), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
