"""How fast a dataset is built, and how its near-duplicate search compares with datasketch's on the same pairs in the same run.

    .venv/bin/python tests/benchmarks/corpus_speed.py 10000 100000 1000000 --datasketch 100000

Writes JSON to stdout. The pairs are synthetic: words drawn by Zipf's law, about 200 tokens a pair, 4 % near-duplicates, 1 % exact repeats, 1 % wordings of
templates that differ in a number, and 20 leaks of a benchmark of 100 questions.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from runners.corpus.build import build
from runners.corpus.pairs import DOMAINS
from runners.spec import DataSpec, Spec

VOCABULARY, QUESTION_WORDS, ANSWER_WORDS = 60_000, 12, 138


def words() -> np.ndarray[Any, Any]:
    """A vocabulary of pronounceable words, the frequent ones short."""
    draw = np.random.default_rng(1)
    consonants, vowels = list("bcdfghklmnprstvw"), list("aeiou")
    syllables = np.array([c + v for c in consonants for v in vowels] + [c + v + "n" for c in consonants for v in vowels])
    return np.array(["".join(draw.choice(syllables, 1 + min(3, rank // 3_000 + 1))) for rank in range(VOCABULARY)])


def write(folder: Path, count: int) -> None:
    """Sources and benchmark of so many pairs, in blocks, so that this needs no memory either."""
    draw, vocabulary = np.random.default_rng(count), words()
    weights = 1 / (np.arange(VOCABULARY) + 20.0)
    cumulated = np.cumsum(weights / weights.sum())
    cases = []
    with (folder / "pairs.jsonl").open("w") as file:
        done, kept = 0, list[tuple[str, list[str]]]()
        while done < count:
            block = min(20_000, count - done)
            drawn = vocabulary[np.minimum(np.searchsorted(cumulated, draw.random((block, QUESTION_WORDS + ANSWER_WORDS))), VOCABULARY - 1)]
            luck = draw.random(block)
            for place in range(block):
                question, answer = " ".join(drawn[place, :QUESTION_WORDS]), drawn[place, QUESTION_WORDS:].tolist()
                if kept and luck[place] < 0.04:
                    question, answer = kept[int(luck[place] * 1e6) % len(kept)]
                    answer = answer[:]
                    answer[int(luck[place] * 1e8) % ANSWER_WORDS] = "changed"
                    question += " please"
                elif kept and luck[place] < 0.05:
                    question, answer = kept[int(luck[place] * 1e6) % len(kept)]
                elif luck[place] < 0.06:
                    question = f"I am {20 + place % 60} years old and earn {30 + place % 997} thousand a year, how much should I save for retirement"
                if len(kept) < 5_000:
                    kept.append((question, answer))
                if len(cases) < 20 and place % 997 == 3:
                    cases.append(question)
                text = " ".join(answer)
                row = {
                    "question": f"{question.capitalize()}?",
                    "answer": f"{text[:400].capitalize()}. {text[400:].capitalize()}.",
                    "category": DOMAINS[place % 18],
                }
                file.write(json.dumps(row) + "\n")
            done += block
    cases += [f"What is nobody's question number {number} about?" for number in range(100 - len(cases))]
    (folder / "cases.yaml").write_text(yaml.safe_dump({"version": 1, "cases": [{"id": f"c{n}", "question": text} for n, text in enumerate(cases)]}))
    source = {"name": "synthetic", "kind": "qa", "path": "pairs.jsonl", "licence": "none"}
    (folder / "sources.yaml").write_text(yaml.safe_dump({"version": 1, "sources": [source]}))


class Memory:
    """Peak memory of this process and its children: proportional set size, so shared pages count once."""

    def __init__(self) -> None:
        self.peak_mib, self.peak_at_s, self._stop = 0.0, 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        begin = time.monotonic()
        while not self._stop.wait(0.2):
            now_mib = sum(_pss_kib(pid) for pid in _family(os.getpid())) / 1024
            if now_mib > self.peak_mib:
                self.peak_mib, self.peak_at_s = now_mib, time.monotonic() - begin


def _family(pid: int) -> list[int]:
    try:
        children = [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]
    except OSError:
        return []
    return [pid, *(one for child in children for one in _family(child))]


def _pss_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))
    except OSError:
        return 0


def ours(count: int, folder: Path) -> dict[str, Any]:
    """Build a dataset of so many pairs; seconds by phase."""
    write(folder, count)
    spec = Spec(data=DataSpec(sources="sources.yaml", benchmark="cases.yaml", drop_leaks=True))
    begin, cpu = time.monotonic(), _cpu_s()
    with Memory() as memory:
        result = build(spec, folder, folder / "out")
    seconds = time.monotonic() - begin
    facts = result.statistics
    return {
        "pairs": count,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(_cpu_s() - cpu, 1),
        "pairs_per_second": round(count / seconds),
        "peak_mib": round(memory.peak_mib),
        "peak_at_s": round(memory.peak_at_s),
        "phases": {phase.name: phase.seconds for phase in result.record.phases},
        "dropped": facts["dropped"],
        "clusters": facts["duplicates"]["by_question_and_answer"],
        "leaked_cases": facts["leaks"]["cases_leaked"],
        "mean_tokens": facts["read"]["tokens"]["mean"],
    }


def _cpu_s() -> float:
    """Processor seconds of this process and of its children that ended."""
    return sum(use.ru_utime + use.ru_stime for use in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)))


def near_alone(count: int, folder: Path) -> dict[str, Any]:
    """Only the near-duplicate work, on one core, from texts to clusters."""
    from runners.corpus import near
    from runners.corpus.words import hashes, shingle_sets

    texts = [f"{row['question']} {row['answer']}" for row in map(json.loads, (folder / "pairs.jsonl").open())]
    begin, cpu = time.monotonic(), time.process_time()
    labels = near.clusters(shingle_sets(*hashes(texts)), 0.8)
    spent = {"seconds": round(time.monotonic() - begin, 2), "cpu_seconds": round(time.process_time() - cpu, 2)}
    return {"engine": "elson", "pairs": count, **spent, "pairs_with_a_twin": int((np.bincount(labels)[labels] > 1).sum())}


def datasketch(count: int, folder: Path) -> dict[str, Any]:
    """The same with datasketch's MinHash and MinHashLSH (128 permutations), candidates counted as twins without comparing them."""
    from datasketch import MinHash, MinHashLSH

    from runners.corpus.words import words as split

    texts = [f"{row['question']} {row['answer']}" for row in map(json.loads, (folder / "pairs.jsonl").open())]
    begin, cpu = time.monotonic(), time.process_time()
    index, twins = MinHashLSH(threshold=0.8, num_perm=128), set[int]()
    for place, text in enumerate(texts):
        said = split(text)
        sketch = MinHash(num_perm=128)
        sketch.update_batch([" ".join(said[i : i + 3]).encode() for i in range(len(said) - 2)])
        if found := index.query(sketch):
            twins |= {place, *found}
        index.insert(place, sketch)
    spent = {"seconds": round(time.monotonic() - begin, 2), "cpu_seconds": round(time.process_time() - cpu, 2)}
    return {"engine": "datasketch", "pairs": count, **spent, "pairs_with_a_twin": len(twins)}


def main() -> None:
    """Measure the sizes asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="+", type=int)
    parser.add_argument("--datasketch", type=int, default=0, help="compare at this size")
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    options = parser.parse_args()
    base = options.folder or Path(tempfile.mkdtemp())
    results: dict[str, Any] = {"load_before": os.getloadavg(), "cpus": os.cpu_count(), "builds": [], "near": []}
    try:
        for size in options.sizes:
            folder = base / str(size)
            folder.mkdir(parents=True, exist_ok=True)
            results["builds"].append(ours(size, folder))
            print(json.dumps(results["builds"][-1]), file=sys.stderr, flush=True)
            shutil.rmtree(folder)
        if options.datasketch:
            folder = base / "near"
            folder.mkdir(parents=True, exist_ok=True)
            write(folder, options.datasketch)
            results["near"] = [near_alone(options.datasketch, folder), datasketch(options.datasketch, folder)]
            print(json.dumps(results["near"]), file=sys.stderr, flush=True)
            # Of processor time: both run on one core, and other work on the machine does not count.
            results["ratio"] = round(results["near"][1]["cpu_seconds"] / results["near"][0]["cpu_seconds"], 1)
    finally:
        if options.folder is None:
            shutil.rmtree(base, ignore_errors=True)
    results["load_after"] = os.getloadavg()
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
