"""How fast a dataset is built, and how its near-duplicate search compares with rensa's, datatrove's and datasketch's on the same pairs in the same run.

    .venv/bin/python tests/benchmarks/corpus_speed.py 10000 100000 1000000 --text own --near 100000
    .venv/bin/python tests/benchmarks/corpus_speed.py --table

Writes JSON to stdout; ``--out FILE`` adds the run to the list in FILE, and ``--table`` prints the page's tables from corpus_speed.json. Of the texts, ``words``
is drawn by Zipf's law and has no figure, ``figures`` has a dollar amount and a year in every sentence, and ``own`` is this project's corpus enlarged: each
pair again and again, with a third of its words and all its digits replaced. In all of them 4 % are near-duplicates, 1 % exact repeats, 1 % wordings of
templates that differ in a number, and 20 leak a benchmark of 100 questions.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import shutil
import struct
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from runners.corpus.build import build
from runners.corpus.pairs import DOMAINS
from runners.spec import DataSpec, Spec

ROOT = Path(__file__).resolve().parents[2]
RECORD = Path(__file__).with_suffix(".json")
PHASES = ("read", "deduplicate", "split", "write", "hash")
VOCABULARY, QUESTION_WORDS, ANSWER_WORDS = 60_000, 12, 138


def words() -> np.ndarray[Any, Any]:
    """A vocabulary of pronounceable words, the frequent ones short."""
    draw = np.random.default_rng(1)
    consonants, vowels = list("bcdfghklmnprstvw"), list("aeiou")
    syllables = np.array([c + v for c in consonants for v in vowels] + [c + v + "n" for c in consonants for v in vowels])
    return np.array(["".join(draw.choice(syllables, 1 + min(3, rank // 3_000 + 1))) for rank in range(VOCABULARY)])


def write(folder: Path, count: int, text: str = "words") -> None:
    """Sources and benchmark of so many pairs, in blocks, so that this needs no memory either."""
    draw, cases, kept = random.Random(count), list[str](), list[tuple[str, str]]()
    with (folder / "pairs.jsonl").open("w") as file:
        for place, (question, answer, extra) in enumerate({"words": _words, "figures": _figures, "own": _own}[text](count)):
            luck = draw.random()
            if kept and luck < 0.05:
                question, answer = draw.choice(kept)
                if luck < 0.04:
                    said = answer.split(" ")
                    said[draw.randrange(len(said))] = "changed"
                    question, answer = f"{question} Please.", " ".join(said)
            elif luck < 0.06:
                question = f"I am {20 + place % 60} years old and earn {30 + place % 997} thousand a year, how much should I save for retirement?"
            if len(kept) < 5_000:
                kept.append((question, answer))
            if len(cases) < 20 and place % 997 == 3:
                cases.append(question)
            file.write(json.dumps({"question": question, "answer": answer, "category": DOMAINS[place % 18], **extra}) + "\n")
    cases += [f"What is nobody's question number {number} about?" for number in range(100 - len(cases))]
    (folder / "cases.yaml").write_text(yaml.safe_dump({"version": 1, "cases": [{"id": f"c{n}", "question": one} for n, one in enumerate(cases)]}))
    source = {"name": "synthetic", "kind": "qa", "path": "pairs.jsonl", "licence": "none"}
    (folder / "sources.yaml").write_text(yaml.safe_dump({"version": 1, "sources": [source]}))
    shutil.copytree(ROOT / "data", folder / "data", ignore=shutil.ignore_patterns("*.md", "qa", "benchmark"))


def _drawn(count: int, length: int) -> Iterator[list[str]]:
    """Lists of words by Zipf's law."""
    draw, vocabulary = np.random.default_rng(count), words()
    weights = 1 / (np.arange(VOCABULARY) + 20.0)
    cumulated = np.cumsum(weights / weights.sum())
    for begin in range(0, count, 20_000):
        block = draw.random((min(20_000, count - begin), length))
        yield from vocabulary[np.minimum(np.searchsorted(cumulated, block), VOCABULARY - 1)].tolist()


def _words(count: int) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for said in _drawn(count, QUESTION_WORDS + ANSWER_WORDS):
        text = " ".join(said[QUESTION_WORDS:])
        yield f"{' '.join(said[:QUESTION_WORDS]).capitalize()}?", f"{text[:400].capitalize()}. {text[400:].capitalize()}.", {}


def _figures(count: int) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Ten sentences of eleven words, each with an amount and a year; one amount in ten is a limit of the dated table, and the question names a limit."""
    draw = random.Random(count)
    limits = [f"${value:,.0f}" for limit in yaml.safe_load((ROOT / "data" / "dated_limits.yaml").read_text())["limits"] for value in limit["values"].values()]
    for said in _drawn(count, QUESTION_WORDS + 110):
        sentences = []
        for at in range(QUESTION_WORDS, len(said), 11):
            amount = draw.choice(limits) if draw.random() < 0.1 else f"${draw.randrange(1_000, 999_999):,}"
            sentences.append(f"{' '.join(said[at : at + 11]).capitalize()} {amount} in {draw.randrange(2019, 2030)}.")
        yield f"{' '.join(said[:QUESTION_WORDS]).capitalize()} 401(k) limit?", " ".join(sentences), {}


def _own(count: int) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The project's own pairs, each copy with a third of its longer words and all its digits replaced."""
    with tempfile.TemporaryDirectory() as folder:
        build(Spec(), ROOT, Path(folder) / "out", processes=1)
        rows = [json.loads(line) for line in (Path(folder) / "out" / "consolidated_training_data.jsonl").open()]
    draw, vocabulary = random.Random(count), words().tolist()

    def other(match: re.Match[str]) -> str:
        word = match.group()
        if word.isdigit():
            return str(draw.randrange(10 ** (len(word) - 1), 10 ** len(word)))
        return vocabulary[int(draw.random() ** 2 * VOCABULARY)] if draw.random() < 0.33 else word

    for number in range(count):
        row = rows[number % len(rows)]
        # A year stays: it is what the dated limits are compared by.
        question, answer = (re.sub(r"\b(?!20\d\d\b)(?:\d+|[a-z]{4,})", other, row[key]) for key in ("question", "answer"))
        yield question, answer, {key: row[key] for key in ("as_of", "reference") if key in row}


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


def ours(count: int, folder: Path, text: str) -> dict[str, Any]:
    """Build a dataset of so many pairs; seconds by phase."""
    write(folder, count, text)
    spec = Spec(data=DataSpec(sources="sources.yaml", benchmark="cases.yaml", drop_leaks=True, refuse_beyond={}))
    begin, cpu = time.monotonic(), _cpu_s()
    with Memory() as memory:
        result = build(spec, folder, folder / "out")
    seconds = time.monotonic() - begin
    facts = result.statistics
    return {
        "pairs": count,
        "text": text,
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
        "findings": {name: found for name, found in facts["read"]["findings"].items() if found},
    }


def as_tasks(folder: Path, tasks: int) -> dict[str, Any]:
    """The pairs that :func:`ours` built, once more as datatrove's tasks, two at a time; whether the dataset is the same, byte for byte."""
    from runners.corpus import cluster
    from runners.corpus.build import CONTENT

    spec = Spec(data=DataSpec(sources="sources.yaml", benchmark="cases.yaml", drop_leaks=True, refuse_beyond={}))
    begin, cpu = time.monotonic(), _cpu_s()
    with Memory() as memory:
        result = cluster.run(cluster.job_of(spec, folder, None, str(folder / "tasks"), tasks), folder / "together", workers=2)
    seconds = round(time.monotonic() - begin, 1)
    same = all((result.folder / name).read_bytes() == (folder / "out" / name).read_bytes() for name in CONTENT)
    return {"tasks": tasks, "seconds": seconds, "cpu_seconds": round(_cpu_s() - cpu, 1), "peak_mib": round(memory.peak_mib), "same": same}


def _cpu_s() -> float:
    """Processor seconds of this process and of its children that ended."""
    return sum(use.ru_utime + use.ru_stime for use in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)))


def _texts(folder: Path) -> list[str]:
    return [f"{row['question']} {row['answer']}" for row in map(json.loads, (folder / "pairs.jsonl").open())]


def _shingles(text: str) -> list[str]:
    from runners.corpus.words import words as split

    said = split(text)
    return [" ".join(said[at : at + 3]) for at in range(max(1, len(said) - 2))]


def near_elson(texts: list[str], _: Path) -> set[int]:
    """The exact join: everything with a twin."""
    from runners.corpus import near
    from runners.corpus.words import hashes, shingle_sets

    labels = near.clusters(shingle_sets(*hashes(texts)), 0.8)
    return set(np.flatnonzero(np.bincount(labels)[labels] > 1).tolist())


def near_rensa(texts: list[str], _: Path) -> set[int]:
    """rensa's R-MinHash sketches of 128 and its index; candidates whose sketches agree at 0.8."""
    from rensa import RMinHash, RMinHashLSH

    sketches, index, twins = list[Any](), RMinHashLSH(threshold=0.8, num_perm=128, num_bands=16), set[int]()
    for place, text in enumerate(texts):
        sketch = RMinHash(num_perm=128, seed=1)
        sketch.update(_shingles(text))
        found = [other for other in index.query(sketch) if sketch.jaccard(sketches[other]) >= 0.8]
        twins |= {place, *found} if found else set()
        index.insert(place, sketch)
        sketches.append(sketch)
    return twins


def near_datasketch(texts: list[str], _: Path) -> set[int]:
    """datasketch's MinHash and MinHashLSH (128 permutations), candidates counted as twins without comparing them."""
    from datasketch import MinHash, MinHashLSH

    index, twins = MinHashLSH(threshold=0.8, num_perm=128), set[int]()
    for place, text in enumerate(texts):
        sketch = MinHash(num_perm=128)
        sketch.update_batch([one.encode() for one in _shingles(text)])
        if found := index.query(sketch):
            twins |= {place, *found}
        index.insert(place, sketch)
    return twins


def near_datatrove(texts: list[str], folder: Path) -> set[int]:
    """datatrove's MinHash stages up to its clusters (14 bands of 8 hashes, words by its own splitter), one worker, as its documentation sets them up.

    Its last stage removes all but one of each cluster. Twins are what the other engines count, so the clusters are read before it.
    """
    from datatrove.data import Document
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig

    settings, base = MinhashConfig(n_grams=3, num_buckets=14, hashes_per_bucket=8), folder / "datatrove"

    def read(data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        yield from (Document(text=" ".join(_words_of(text)), id=str(place)) for place, text in enumerate(texts))

    stages: list[tuple[list[Any], int]] = [
        ([read, MinhashDedupSignature(output_folder=f"{base}/signatures", config=settings, language="eng", skip_existing_sigs=False)], 1),
        ([MinhashDedupBuckets(input_folder=f"{base}/signatures", output_folder=f"{base}/buckets", config=settings)], settings.num_buckets),
        ([MinhashDedupCluster(input_folder=f"{base}/buckets", output_folder=f"{base}/clusters", config=settings, save_cluster_id=True)], 1),
    ]
    for number, (pipeline, tasks) in enumerate(stages):
        LocalPipelineExecutor(pipeline=pipeline, tasks=tasks, workers=1, logging_dir=f"{base}/logs{number}").run()
    return members([file.read_bytes() for file in base.glob("clusters/*.clusters")])


def members(files: Iterable[bytes]) -> set[int]:
    """What is in a cluster of two or more, of datatrove's ``.clusters`` files of one task: (document, cluster) as two little-endian integers each."""
    rows = [row for content in files for row in struct.iter_unpack("<2I", content)]
    sizes = Counter(cluster for _, cluster in rows)
    return {document for document, cluster in rows if sizes[cluster] > 1}


def _words_of(text: str) -> list[str]:
    from runners.corpus.words import words as split

    return split(text)


def near_engines(count: int, folder: Path, text: str) -> list[dict[str, Any]]:
    """The near-duplicate work alone, from texts to what has a twin, on one core, by every engine; ``exact`` of the exact join is right by definition."""
    write(folder, count, text)
    texts, results, exact = _texts(folder), list[dict[str, Any]](), set[int]()
    for name, engine in (("elson", near_elson), ("rensa", near_rensa), ("datatrove", near_datatrove), ("datasketch", near_datasketch)):
        begin, cpu = time.monotonic(), _cpu_s()
        try:
            found = engine(texts, folder)
        except ImportError as error:
            results.append({"engine": name, "skipped": str(error)})
            continue
        exact = exact or found
        spent = {"seconds": round(time.monotonic() - begin, 1), "cpu_seconds": round(_cpu_s() - cpu, 1)}
        results.append({"engine": name, "pairs": count, "text": text, **spent, "found": len(found), "missed": len(exact - found), "wrong": len(found - exact)})
        print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    return results


def table(runs: list[dict[str, Any]]) -> str:
    """The page's tables: every build of the runs, then every comparison of engines."""
    lines = [
        f"| text | pairs | seconds by the clock | processor s | µs of processor a pair | peak memory | of the time: {', '.join(PHASES)} | load before |",
        "|---|---:|---:|---:|---:|---:|---|---:|",
    ]
    for run in runs:
        for row in run["builds"]:
            cells = [row["text"], f"{row['pairs']:,}", f"{row['seconds']:.1f}", f"{row['cpu_seconds']:.1f}", f"{row['cpu_seconds'] / row['pairs'] * 1e6:.0f}"]
            cells += [f"{row['peak_mib']:,} MiB", ", ".join(f"{row['phases'][name]:.1f}" for name in PHASES), f"{run['load_before'][0]:.1f}"]
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| engine | text | pairs | processor s | with a twin | of the exact ones missed | not exact |", "|---|---|---:|---:|---:|---:|---:|"]
    for row in (row for run in runs for row in run["near"] if "skipped" not in row):
        counts = [f"{row[key]:,}" for key in ("found", "missed", "wrong")]
        lines.append(f"| {row['engine']} | {row['text']} | {row['pairs']:,} | {row['cpu_seconds']:.1f} | {' | '.join(counts)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure the sizes asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="*", type=int)
    parser.add_argument("--text", choices=("words", "figures", "own"), default="own")
    parser.add_argument("--tasks", type=int, default=0, help="build the same again as so many of datatrove's tasks, and compare the datasets")
    parser.add_argument("--near", type=int, default=0, help="compare engines at this size")
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    parser.add_argument("--out", type=Path, help="add this run to the list of runs in this file")
    parser.add_argument("--table", action="store_true", help=f"print the tables of {RECORD.name} and measure nothing")
    options = parser.parse_args()
    if options.table:
        print(table(json.loads(RECORD.read_text())))
        return
    base = options.folder or Path(tempfile.mkdtemp())
    results: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), "cpus": os.cpu_count(), "load_before": os.getloadavg(), "builds": [], "near": []}
    try:
        for size in options.sizes:
            folder = base / str(size)
            folder.mkdir(parents=True, exist_ok=True)
            results["builds"].append(ours(size, folder, options.text))
            if options.tasks:
                results["builds"][-1]["as_tasks"] = as_tasks(folder, options.tasks)
            print(json.dumps(results["builds"][-1]), file=sys.stderr, flush=True)
            shutil.rmtree(folder)
        if options.near:
            folder = base / "near"
            folder.mkdir(parents=True, exist_ok=True)
            results["near"] = near_engines(options.near, folder, options.text)
    finally:
        if options.folder is None:
            shutil.rmtree(base, ignore_errors=True)
    results["load_after"] = os.getloadavg()
    if options.out:
        runs = json.loads(options.out.read_text()) if options.out.exists() else []
        options.out.write_text(json.dumps([*runs, results], indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
