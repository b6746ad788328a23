"""Read every source into columns: one pass, one batch after the other, the rows themselves on disk.

A million pairs are some forty megabytes of columns and the sets of their questions' words; text and shingles stand in files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from runners import log
from runners.corpus import categorize, checks, dated_limits, formats, sources
from runners.corpus.categorize import Categorizer
from runners.corpus.formats import Raw
from runners.corpus.leaks import BenchmarkQuestions, Hit
from runners.corpus.prepare import BATCH_ROWS, Batch, Prepared, PrepareSettings, estimated_tokens, prepared
from runners.corpus.sources import Source, Sources
from runners.corpus.words import Sets, joined, offsets_of
from runners.errors import UserError
from runners.spec import Spec


@dataclass(frozen=True)
class Corpus:
    """Everything read, as columns over the pairs; the rows themselves stand in ``rows`` on disk, one a line, ``lengths`` bytes each."""

    rows: Path
    lengths: Any
    columns: dict[str, Any]
    sources: list[str]
    categories: list[str]
    question_sets: Sets
    pair_sets: Sets
    hits: list[Hit]
    rejects: list[dict[str, Any]]

    def __len__(self) -> int:
        return len(self.lengths)

    def lines(self) -> Iterator[bytes]:
        """The serialised rows, in order, each with its line end."""
        with self.rows.open("rb") as file:
            yield from file

    def some(self, wanted: Iterable[int]) -> dict[int, dict[str, Any]]:
        """A few rows, parsed, by index."""
        ends = np.cumsum(self.lengths, dtype=np.int64)
        found = {}
        with self.rows.open("rb") as file:
            for index in sorted(set(wanted)):
                file.seek(int(ends[index]) - int(self.lengths[index]))
                found[index] = json.loads(file.read(int(self.lengths[index])))
        return found


def read(spec: Spec, wanted: Sources, root: Path, work: Path, benchmark: BenchmarkQuestions | None, processes: int) -> Corpus:
    """Read every source into columns; rows and shingles go to files in ``work``."""
    settings = prepare_settings(spec, wanted, root, benchmark)
    gathered = Gathered(work)
    with gathered, log.progress("read", sum(1 for _ in wanted.sources), "sources") as meter:
        for part in prepared(batches(wanted, root, settings.categorizer, meter), settings, processes):
            gathered.add(part)
            meter.advance(0, note=f"{gathered.count:,} pairs", pairs=gathered.count)
    return gathered.corpus()


def prepare_settings(spec: Spec, wanted: Sources, root: Path, benchmark: BenchmarkQuestions | None) -> PrepareSettings:
    """What every batch needs to know. Raises UserError when the spec names findings that do not exist."""
    limits = dated_limits.load(root / spec.data.dated_limits)
    for key, names in (("refuse", spec.data.refuse), ("refuse_beyond", spec.data.refuse_beyond)):
        if unknown := sorted(set(names) - set(checks.FINDINGS)):
            raise UserError(f"data.{key} names {', '.join(unknown)}", f"some of {', '.join(checks.FINDINGS)}", f"edit data.{key} in the spec")
    taxonomy = root / spec.data.taxonomy
    categorizer = categorize.load(taxonomy) if taxonomy.exists() else None
    checker = checks.Checker(spec.train.max_tokens - _system_tokens(spec), spec.data.short_answer_characters, spec.data.long_answer_characters, limits)
    return PrepareSettings(checker, benchmark, wanted.categories == "domains", frozenset(spec.data.refuse), categorizer)


def _system_tokens(spec: Spec) -> int:
    """Room for the system prompt and the template's own tokens."""
    return estimated_tokens(spec.chat.system_prompt) + 16


def batches(wanted: Sources, root: Path, categorizer: Categorizer | None, meter: log.Progress | None = None) -> Iterator[Batch]:
    """The rows of every source, in order, so many at a time."""
    for rank, source in enumerate(wanted.sources):
        waiting: list[Raw] = []
        for raw in _rows(source, root, categorizer):
            waiting.append(raw)
            if len(waiting) == BATCH_ROWS:
                yield Batch(source, rank, tuple(waiting))
                waiting = []
        if waiting:
            yield Batch(source, rank, tuple(waiting))
        if meter:
            meter.advance(note=source.name)


def _rows(source: Source, root: Path, categorizer: Categorizer | None) -> Iterator[Raw]:
    """Every row of a source, of whatever kind."""
    for path in sources.files(source, root):
        name = sources.shown(path, root)
        if source.kind == "qa":
            yield from formats.rows(path, name, source.encoding)
        elif source.kind == "problems":
            from runners.corpus import problems

            yield from (Raw(name, number, row) for number, row in enumerate(problems.rows(path), 1))
        elif source.kind == "catalogue":
            from runners.corpus import catalogue

            yield from catalogue.rows(path, name, categorizer)
        else:
            from runners.corpus import extract

            yield from extract.rows(path, name, source)


class Gathered:
    """Batches, put together: columns in memory, rows and shingles in files."""

    def __init__(self, work: Path) -> None:
        self.rows, self.items = work / "rows.jsonl", work / "shingles"
        self.lengths, self.columns, self.sets, self.sizes = list[Any](), dict[str, list[Any]](), list[Sets](), list[Any]()
        self.sources, self.categories = dict[str, int](), dict[str, int]()
        self.hits, self.rejects, self.count = list[Hit](), list[dict[str, Any]](), 0

    def __enter__(self) -> None:
        self.stack = ExitStack()
        self.row_file, self.item_file = (self.stack.enter_context(path.open("wb")) for path in (self.rows, self.items))

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def add(self, part: Prepared) -> None:
        """Append one batch."""
        self.row_file.write(part.lines)
        self.item_file.write(part.pair_sets.items.tobytes())
        self.lengths.append(part.lengths)
        self.sizes.append(part.pair_sets.sizes)
        self.sets.append(part.question_sets)
        named = {"source": _codes(part.sources, self.sources), "category": _codes(part.categories, self.categories)}
        for name, column in {**part.columns, **named}.items():
            self.columns.setdefault(name, []).append(column)
        self.hits += [hit._replace(text=hit.text + self.count) for hit in part.hits]
        self.rejects += part.rejects
        self.count += len(part.lengths)

    def corpus(self) -> Corpus:
        """All of it, once every batch is added."""
        offsets = offsets_of(np.concatenate([np.zeros(0, np.int64), *self.sizes]))
        items = np.memmap(self.items, np.uint32, "r") if self.items.stat().st_size else np.empty(0, np.uint32)
        return Corpus(
            self.rows,
            np.concatenate([np.zeros(0, np.int32), *self.lengths]),
            {name: np.concatenate(parts) for name, parts in self.columns.items()},
            list(self.sources),
            list(self.categories),
            joined(self.sets),
            Sets(offsets, items),
            self.hits,
            self.rejects,
        )


def _codes(names: list[str], known: dict[str, int]) -> Any:
    return np.array([known.setdefault(name, len(known)) for name in names], np.int32)
