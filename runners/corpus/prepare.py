"""The part of a build that looks at one pair at a time, for a batch of rows: parse, check, hash, serialise. Runs on every core.

What a batch returns is small integers and bytes, so that a million pairs cost little more memory than their own text on disk.
"""

from __future__ import annotations

import hashlib
import json
import operator
import os
import pickle
import string
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from runners.corpus.categorize import OFF_TOPIC, Categorizer
from runners.corpus.checks import FINDINGS, Checker
from runners.corpus.formats import Raw
from runners.corpus.leaks import BenchmarkQuestions, Hit
from runners.corpus.pairs import DOMAINS, UNKNOWN, Pair, pair_of
from runners.corpus.sources import Source
from runners.corpus.turns import Rejected
from runners.corpus.words import FIGURE, Sets, hashes, shingle_sets, word_sets
from runners.errors import UserError
from runners.processes import end_with

BATCH_ROWS = 2_000
#: Rows handled in this process before others are started: starting them takes about a second.
_ALONE_ROWS = 10_000
_SHOWN_CHARACTERS = 500
_DIGITS = string.digits.encode()
_MARKS = string.punctuation.encode()
#: Bytes that are no letters; those outside ASCII are letters.
_NO_LETTERS = bytes(byte for byte in range(128) if not chr(byte).isalpha())
_LETTERS_ONLY = bytes.maketrans(_NO_LETTERS, b" " * len(_NO_LETTERS))


@dataclass(frozen=True)
class PrepareSettings:
    """What every batch needs to know."""

    checker: Checker
    benchmark: BenchmarkQuestions | None
    only_domains: bool
    refuse: frozenset[str]
    categorizer: Categorizer | None = None


@dataclass(frozen=True)
class Batch:
    """Rows of one source in a row; ``source_rank`` is its place in the sources file."""

    source: Source
    source_rank: int
    rows: tuple[Raw, ...]


@dataclass(frozen=True)
class Prepared:
    """A batch's pairs as columns (all (n,)), their serialised rows one a line, and what was rejected."""

    lines: bytes
    lengths: Any
    columns: dict[str, Any]
    sources: list[str]
    categories: list[str]
    question_sets: Sets
    pair_sets: Sets
    hits: list[Hit]
    rejects: list[dict[str, Any]]


def prepare(batch: Batch, settings: PrepareSettings) -> Prepared:
    """Parse, check and hash the rows of a batch."""
    pairs, findings, tokens, rejects = list[Pair](), list[int](), list[tuple[int, int]](), list[dict[str, Any]]()
    for raw in batch.rows:
        try:
            pair = _pair(raw, batch.source, settings)
            size = pair_tokens(pair)
            found = settings.checker(pair, size[0])
            if refused := [f"{name} ({FINDINGS[name]})" for name in found if name in settings.refuse]:
                raise Rejected(", ".join(refused))
        except Rejected as reason:
            rejects.append(_reject(raw, batch.source, str(reason)))
            continue
        pairs.append(pair)
        tokens.append(size)
        findings.append(_bits(found))
    return _columns(batch, pairs, findings, tokens, rejects, settings.benchmark)


def _pair(raw: Raw, source: Source, settings: PrepareSettings) -> Pair:
    if raw.error is not None:
        raise Rejected(raw.error)
    value = raw.value
    if isinstance(value, bytes):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise Rejected(f"the line is not JSON: {str(error)[:150]}") from None
    try:
        pair = pair_of(value, source=source.name, category=source.category, categories=source.categories, fields=source.fields)
    except RecursionError:
        raise Rejected("the row is nested too deep") from None
    if pair.category == UNKNOWN and settings.categorizer:
        pair = _categorized(pair, settings.categorizer)
    if settings.only_domains and pair.category not in DOMAINS:
        what = (
            "there is no category, and the text is not clearly of one domain"
            if pair.category == UNKNOWN
            else f"the category {pair.category!r} is none of the 18 domains"
        )
        raise Rejected(f"{what}; name one in the row, or map it under `categories` of source {source.name}")
    origin = {"file": raw.file, "line": raw.line} | dict(pair.extra.get("origin") or {})
    return Pair(pair.question, pair.answer, pair.category, pair.source, pair.history, {**pair.extra, "origin": origin, "licence": source.licence})


def _categorized(pair: Pair, categorizer: Categorizer) -> Pair:
    """A pair that came without a category, with the one its words speak of, if they do so clearly."""
    heading = " ".join((pair.extra.get("origin") or {}).get("heading", ())) if isinstance(pair.extra.get("origin"), dict) else ""
    verdict = categorizer.classify(f"{pair.question} {heading}", pair.answer)
    if verdict.unsure or verdict.domain == OFF_TOPIC:
        return pair
    return replace(pair, category=verdict.domain, extra={**pair.extra, "category_by": f"taxonomy, {verdict.confidence:g}"})


def _reject(raw: Raw, source: Source, reason: str) -> dict[str, Any]:
    value = raw.value
    shown = value.decode("utf-8", "replace") if isinstance(value, bytes) else "" if value is None else json.dumps(value, default=str)
    return {"source": source.name, "file": raw.file, "line": raw.line, "reason": reason, "row": shown.strip()[:_SHOWN_CHARACTERS]}


def _bits(found: tuple[str, ...]) -> int:
    return sum(1 << place for place, name in enumerate(FINDINGS) if name in found)


def pair_tokens(pair: Pair) -> tuple[int, int]:
    """About how many tokens the whole conversation takes, without the system prompt, and the answer alone. The answer is counted once."""
    before, answer = _counted("\n".join([*(content for _, content in pair.history), pair.question, ""])), _counted(pair.answer)
    return _tokens_of(*map(operator.add, before, answer)), _tokens_of(*answer)


def estimated_tokens(text: str) -> int:
    """Tokens of a byte-pair vocabulary that splits numbers into digits (SmolLM2's, Qwen2.5's), estimated without one.

    1.15 a word, 1 a digit, 0.9 a mark, 0.3 a line: off by 4 to 5 % on the mean pair, by a third at worst (tests/benchmarks/CORPUS.md). A token has at most
    eight letters, so that a word of a million letters is as long as it is.
    """
    return _tokens_of(*_counted(text))


def _counted(text: str) -> tuple[int, int, int, int, int]:
    """Words, letters, digits, marks, and lines with bytes of foreign letters: of two texts a space apart, the sum of both."""
    data = text.encode("utf-8", "replace")
    return (
        len(data.translate(_LETTERS_ONLY).split()),
        len(data.translate(None, _NO_LETTERS)),
        len(data) - len(data.translate(None, _DIGITS)),
        len(data) - len(data.translate(None, _MARKS)),
        data.count(b"\n") + len(data) - len(text),
    )


def _tokens_of(words: int, letters: int, digits: int, marks: int, rest: int) -> int:
    return int(1.15 * max(words, letters / (8 * 1.15)) + digits + 0.9 * marks + 0.3 * rest) + 1


def _columns(
    batch: Batch,
    pairs: list[Pair],
    findings: list[int],
    tokens: list[tuple[int, int]],
    rejects: list[dict[str, Any]],
    benchmark: BenchmarkQuestions | None,
) -> Prepared:
    lines = [json.dumps(pair.row(), ensure_ascii=False).encode() + b"\n" for pair in pairs]
    asked = [pair.asked for pair in pairs]
    columns = {
        "rank": np.full(len(pairs), batch.source_rank, np.int32),
        "id": np.array([int(pair.id, 16) for pair in pairs], np.uint64),
        "asked": _digests([same_question(text) for text in asked]),
        "answer": _digests([" ".join(pair.answer.lower().split()) for pair in pairs]),
        "figures": _digests([figures(pair.answer) for pair in pairs]),
        "question_characters": np.array([len(pair.question) for pair in pairs], np.int32),
        "answer_characters": np.array([len(pair.answer) for pair in pairs], np.int32),
        "tokens": np.array([whole for whole, _ in tokens], np.int32),
        "answer_tokens": np.array([answer for _, answer in tokens], np.int32),
        "turns": np.array([len(pair.history) for pair in pairs], np.int32),
        "findings": np.array(findings, np.int32),
    }
    return Prepared(
        lines=b"".join(lines),
        lengths=np.array([len(line) for line in lines], np.int32),
        columns=columns,
        sources=[pair.source for pair in pairs],
        categories=[pair.category for pair in pairs],
        question_sets=word_sets(*hashes(asked)),
        pair_sets=shingle_sets(*hashes([f"{text} {pair.answer}" for text, pair in zip(asked, pairs, strict=True)])),
        hits=_hits(pairs, benchmark),
        rejects=rejects,
    )


def same_question(text: str) -> str:
    """What makes two questions the same one: their text without regard to case, spacing and the marks at the end."""
    return " ".join(text.lower().split()).rstrip("?!. ")


def _digests(texts: list[str]) -> Any:
    return np.array([int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") for text in texts], np.uint64)


def figures(answer: str) -> str:
    """The numbers of an answer, sorted: two answers to one question with other figures are a conflict of facts."""
    return " ".join(sorted({figure.replace(",", "") for figure in FIGURE.findall(answer)}))


def _hits(pairs: list[Pair], benchmark: BenchmarkQuestions | None) -> list[Hit]:
    """Leaks of a batch; an earlier user turn counts like the question."""
    if benchmark is None:
        return []
    texts, owner = [pair.question for pair in pairs], list(range(len(pairs)))
    for place, pair in enumerate(pairs):
        turns = [content for role, content in pair.history if role == "user"]
        texts += turns
        owner += [place] * len(turns)
    best: dict[tuple[int, int], Hit] = {}
    for hit in benchmark.hits(texts):
        mine = hit._replace(text=owner[hit.text])
        if (known := best.get(mine[:2])) is None or known.jaccard < mine.jaccard:
            best[mine[:2]] = mine
    return [best[key] for key in sorted(best)]


_settings: PrepareSettings


def _start(settings: Path, parent: int) -> None:
    global _settings
    end_with(parent)
    _settings = pickle.loads(settings.read_bytes())  # noqa: S301  # the process that started this one wrote it, in a folder that only this user reads


def _prepare(batch: Batch) -> Prepared:
    return prepare(batch, _settings)


def prepared(batches: Iterable[Batch], settings: PrepareSettings, processes: int) -> Iterator[Prepared]:
    """Prepare batches in order; once there are many rows, on ``processes`` cores with few batches in memory.

    Raises UserError when one of these processes ends before its work.
    """
    rows, source = 0, iter(batches)
    for batch in source:
        yield prepare(batch, settings)
        rows += len(batch.rows)
        if rows >= _ALONE_ROWS and processes > 1:
            break
    else:
        return
    # Started afresh rather than forked: the calling process may hold threads of the storage client.
    with tempfile.TemporaryDirectory(prefix="elson-build-") as folder:
        # A file, since Python hands arguments over in a pipe: into that of a process that has died, more than 64 KiB are written for ever.
        file = Path(folder) / "settings"
        file.write_bytes(pickle.dumps(settings))
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_start, initargs=(file, os.getpid())) as pool:
            try:
                waiting: list[Future[Prepared]] = []
                for batch in source:
                    waiting.append(pool.submit(_prepare, batch))
                    if len(waiting) > 2 * processes:
                        yield waiting.pop(0).result()
                for future in waiting:
                    yield future.result()
            except BrokenProcessPool:
                problem = "a process that reads pairs for this build has died: something killed it, or the memory is full"
                raise UserError(problem, f"{processes} processes that live until the build ends", "run the same command again with more memory free") from None
