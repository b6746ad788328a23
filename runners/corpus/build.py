"""Build a dataset: read, check, deduplicate, hold against the benchmark, split, write. One pass over the sources; rows wait on disk.

The same sources give the same bytes: nothing in a content file depends on the time, the machine or the number of processes. The folder is written
beside its place and renamed when it is whole, so an old dataset stays until the new one is complete.

Left out: publication (``runners.artifacts.registry``), so this needs no bucket.

    elson data build --out .elson/dataset
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from runners.artifacts.record import MANIFEST, RECORD, Manifest, ManifestFile, Record, Stopwatch, account, describe
from runners.corpus import dedupe, leaks, refusals, sources, split, statistics
from runners.corpus.dedupe import LEAKED, STAYS, Duplicates
from runners.corpus.leaks import BenchmarkQuestions, Hit
from runners.corpus.reading import Corpus, read
from runners.corpus.sources import Sources
from runners.corpus.words import plain
from runners.errors import UserError
from runners.spec import Spec

TRAIN, VALIDATION, CONSOLIDATED = "train.jsonl", "validation.jsonl", "consolidated_training_data"
STATISTICS, REJECTS, LEAKS, REPORT = "training_statistics.json", "rejects.jsonl", "leaks.json", "report.html"
#: What the dataset's id is made of; the report and the record speak of the run.
CONTENT = (TRAIN, VALIDATION, f"{CONSOLIDATED}.json", f"{CONSOLIDATED}.jsonl", STATISTICS, REJECTS, LEAKS)


@dataclass(frozen=True)
class BuildResult:
    """A finished dataset."""

    dataset_id: str
    folder: Path
    statistics: dict[str, Any]
    record: Record


#: Reads every source into columns, in a folder of its own; with labels of near-duplicates by question and by pair, if they are known already.
Reader = Callable[[Sources, BenchmarkQuestions | None, Path], tuple[Corpus, tuple[Any, Any] | None]]


def build(spec: Spec, root: Path, out: Path, processes: int | None = None, wanted: Sources | None = None, reader: Reader | None = None) -> BuildResult:
    """Make the dataset that ``spec.data`` describes.

    Args:
        spec: its ``data`` part says how; ``train.max_tokens`` is the context.
        root: what relative paths in the spec and the sources file are relative to.
        out: the dataset's folder; replaced whole when it is a dataset already.
        processes: how many to use for large inputs; default: one a core.
        wanted: the sources; left out, those of the file that ``spec.data.sources`` names.
        reader: reads the sources in another way than on the cores of this machine (``runners/corpus/cluster.py``).

    Raises:
        UserError: a source is not there, no pair is left, a benchmark question leaks (and ``data.drop_leaks`` is off), more pairs have a finding than
            ``data.refuse_beyond`` allows, ``out`` holds something else, or another build is writing there.
    """
    _refuse_strangers(out)
    partial = out.with_name(out.name + ".partial")
    with _alone_in(partial):
        return _build(spec, root, out, partial, wanted, reader or _reader(spec, root, processes or os.cpu_count() or 1))


@contextmanager
def _alone_in(partial: Path) -> Iterator[None]:
    """An empty folder that no other build clears or writes; what a killed one left in it is removed."""
    partial.mkdir(parents=True, exist_ok=True)
    handle = os.open(partial, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another build is writing {partial}", "one build at a time for a folder", "wait for it, or give another --out") from None
        for child in partial.iterdir():
            shutil.rmtree(child) if child.is_dir() else child.unlink()
        try:
            yield
        finally:
            with suppress(OSError):  # empty, when the build was refused before it began
                partial.rmdir()
    finally:
        os.close(handle)


def _reader(spec: Spec, root: Path, processes: int) -> Reader:
    return lambda wanted, benchmark, work: (read(spec, wanted, root, work, benchmark, processes), None)


def _build(spec: Spec, root: Path, out: Path, partial: Path, given: Sources | None, reader: Reader) -> BuildResult:
    wanted, watch = given or sources.load(root / spec.data.sources), Stopwatch()
    benchmark = leaks.load(root / spec.data.benchmark, spec.data.leak_jaccard) if spec.data.benchmark else None
    work = partial / ".work"
    work.mkdir()
    with watch.phase("read"):
        corpus, clusters = reader(wanted, benchmark, work)
    if not len(corpus):
        raise refusals.nothing_left(_reasons(corpus.rejects), {}, _save_rejects(corpus, partial))
    with watch.phase("deduplicate"):
        sets, data = (corpus.question_sets, corpus.pair_sets), spec.data
        found = dedupe.find(corpus.columns["asked"], *sets, _priority(corpus), data.near_duplicate_jaccard, data.drop_near_duplicates, clusters)
    reasons = _with_leaks(corpus, found, spec.data.drop_leaks)
    kept = reasons == STAYS
    if not kept.any():
        raise refusals.nothing_left(_reasons(corpus.rejects), statistics.dropped(reasons), _save_rejects(corpus, partial))
    with watch.phase("split"):
        validation = split.held_out(found.groups, corpus.columns["category"], corpus.columns["id"], kept, spec.data.validation_fraction, spec.data.seed)
        compared = split.check(found.groups, validation, kept, (corpus.question_sets, corpus.pair_sets), spec.data.near_duplicate_jaccard)
    facts = _facts(corpus, found, reasons, kept, validation, compared, benchmark, spec)
    with watch.phase("write"):
        _write_content(corpus, partial, kept, validation, facts, benchmark)
        _write_report(corpus, found, reasons, validation, facts, benchmark, partial)
    page = out.with_name(out.name + ".refused") / REPORT
    if benchmark and (leaked := facts["leaks"]["cases_leaked_after"]) and not spec.data.drop_leaks:
        _set_aside(partial, page.parent)
        raise refusals.leaked(leaked, next(hit for hit in corpus.hits if kept[hit.text]), benchmark, page)
    if error := refusals.junk(facts["kept"], spec.data.refuse_beyond, page):
        _set_aside(partial, page.parent)
        raise error
    return _finish(spec, out, partial, facts, watch, given)


def inspect(spec: Spec, root: Path, wanted: Sources | None = None) -> list[dict[str, Any]]:
    """What is wrong with the sources: rejects, findings, repeats, conflicts and leaks, each with its file and line; nothing is written.

    A near-duplicate is no mistake of its author's and is left to the build. Raises UserError as :func:`build` does for sources that are not there.
    """
    wanted = wanted or sources.load(root / spec.data.sources)
    benchmark = leaks.load(root / spec.data.benchmark, spec.data.leak_jaccard) if spec.data.benchmark else None
    with tempfile.TemporaryDirectory() as folder:
        corpus = read(spec, wanted, root, Path(folder), benchmark, os.cpu_count() or 1)
        found = [{"file": row["file"], "line": row["line"], "kind": "rejected", "detail": row["reason"]} for row in corpus.rejects]
        conflicts = statistics.conflicts(corpus.columns) if len(corpus) else []
        bits = corpus.columns["findings"] if len(corpus) else np.zeros(0, np.int32)
        rows = corpus.some([*np.flatnonzero(bits).tolist(), *(hit.text for hit in corpus.hits), *(i for members, _ in conflicts for i in members)])
    for index in np.flatnonzero(bits).tolist():
        found += [_problem(rows[index], name, rows[index]["question"]) for name in statistics.names(int(bits[index]))]
    for members, figures in conflicts:
        others = ", ".join(f"{rows[i]['origin']['file']}:{rows[i]['origin']['line']}" for i in members[1:])
        found.append(_problem(rows[members[0]], "conflict", f"{'other figures' if figures else 'another answer'} in {others}: {rows[members[0]]['question']}"))
    ids = benchmark.ids if benchmark else ()
    for hit in corpus.hits:
        found.append(_problem(rows[hit.text], "leak", f"case {ids[hit.case]} ({hit.match}, {hit.jaccard:.2f}): {rows[hit.text]['question']}"))
    return found


def _problem(row: dict[str, Any], kind: str, detail: str) -> dict[str, Any]:
    return {"file": row["origin"]["file"], "line": row["origin"]["line"], "kind": kind, "detail": detail}


def _priority(corpus: Corpus) -> Any:
    """Rank of each pair among duplicates: earlier source, fewer findings, earlier row."""
    count = len(corpus)
    order = np.lexsort((np.arange(count), np.bitwise_count(corpus.columns["findings"]), corpus.columns["rank"]))
    rank = np.empty(count, np.int64)
    rank[order] = np.arange(count)
    return rank


def _with_leaks(corpus: Corpus, found: Duplicates, drop: bool) -> Any:
    reasons = found.dropped.copy()
    if drop:
        reasons[np.unique(np.array([hit.text for hit in corpus.hits], np.int64))] = LEAKED
    return reasons


def _facts(
    corpus: Corpus, found: Duplicates, reasons: Any, kept: Any, validation: Any, compared: int, benchmark: BenchmarkQuestions | None, spec: Spec
) -> dict[str, Any]:
    everything = np.ones(len(corpus), bool)
    return {
        "version": 1,
        "read": statistics.describe(corpus.columns, corpus.sources, corpus.categories, everything),
        "kept": statistics.describe(corpus.columns, corpus.sources, corpus.categories, kept),
        "train": {"pairs": int((kept & ~validation).sum())},
        "validation": {"pairs": int((kept & validation).sum()), "groups_shared_with_train": 0, "pairs_compared_with_all_of_train": compared},
        "rejected": {
            "rows": len(corpus.rejects),
            "empty": sum(row["reason"].endswith("is empty") for row in corpus.rejects),
            "by_reason": _reasons(corpus.rejects),
        },
        "duplicates": statistics.duplicates(found, corpus.columns),
        "dropped": statistics.dropped(reasons),
        "leaks": leak_facts(corpus.hits, kept, benchmark),
        "settings": {
            "dropped_by": spec.data.drop_near_duplicates,
            "near_duplicate_jaccard": spec.data.near_duplicate_jaccard,
            "leak_jaccard": spec.data.leak_jaccard,
        },
    }


def _reasons(rejects: list[dict[str, Any]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in rejects:
        kind = row["reason"].split(":")[0].split(";")[0][:80]
        counts[kind] = counts.get(kind, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def leak_facts(hits: list[Hit], kept: Any, benchmark: BenchmarkQuestions | None) -> dict[str, Any]:
    """Cases that leak, among all pairs read and among those kept."""
    return {
        "cases": len(benchmark.ids) if benchmark else 0,
        "checked": benchmark is not None,
        "cases_verbatim": len({hit.case for hit in hits if hit.match == "verbatim"}),
        "cases_leaked": len({hit.case for hit in hits}),
        "pairs_leaking": len({hit.text for hit in hits}),
        "cases_leaked_after": len({hit.case for hit in hits if kept[hit.text]}),
    }


def _write_content(corpus: Corpus, folder: Path, kept: Any, validation: Any, facts: dict[str, Any], benchmark: BenchmarkQuestions | None) -> None:
    with ExitStack() as stack:
        train, held, lines, whole = (
            stack.enter_context((folder / name).open("wb", buffering=1 << 20)) for name in (TRAIN, VALIDATION, f"{CONSOLIDATED}.jsonl", f"{CONSOLIDATED}.json")
        )
        before = b"[\n"
        for line, stays, is_held in zip(corpus.lines(), kept.tolist(), validation.tolist(), strict=True):
            if stays:
                (held if is_held else train).write(line)
                lines.write(line)
                whole.write(before + line[:-1])
                before = b",\n"
        whole.write(b"\n]\n" if before == b",\n" else b"[]\n")
    (folder / STATISTICS).write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    (folder / LEAKS).write_text(json.dumps(leak_rows(corpus, kept, benchmark), indent=1, ensure_ascii=False) + "\n")
    _save_rejects(corpus, folder)


def leak_rows(corpus: Corpus, kept: Any, benchmark: BenchmarkQuestions | None) -> list[dict[str, Any]]:
    """Each leak, side by side: the case and the training pair. A question that several pairs repeat is in once, with its worst match and their number."""
    if benchmark is None:
        return []
    rows = corpus.some(hit.text for hit in corpus.hits)
    groups: dict[tuple[int, str], list[Hit]] = {}
    for hit in sorted(corpus.hits, key=lambda hit: (hit.case, not kept[hit.text], -hit.jaccard, hit.text)):
        groups.setdefault((hit.case, plain(rows[hit.text]["question"])), []).append(hit)
    return [
        {
            "case": benchmark.ids[hit.case],
            "case_question": benchmark.questions[hit.case],
            "pair": rows[hit.text]["id"],
            "pair_question": rows[hit.text]["question"],
            "pair_source": rows[hit.text]["source"],
            "jaccard": hit.jaccard,
            "match": hit.match,
            "kept": bool(kept[hit.text]),
            "pairs": len({other.text for other in same}),
        }
        for same in groups.values()
        for hit in same[:1]
    ]


def _save_rejects(corpus: Corpus, folder: Path) -> Path:
    path = folder / REJECTS
    path.write_text("".join(json.dumps(row, ensure_ascii=True) + "\n" for row in corpus.rejects))
    return path


def _write_report(
    corpus: Corpus, found: Duplicates, reasons: Any, validation: Any, facts: dict[str, Any], benchmark: BenchmarkQuestions | None, folder: Path
) -> None:
    from runners.corpus import report

    (folder / REPORT).write_text(report.html(corpus, found, reasons, validation, facts, benchmark))


def _set_aside(partial: Path, refused: Path) -> None:
    """Keep what a refused build found, beside its place, to be looked at."""
    shutil.rmtree(refused, ignore_errors=True)
    shutil.rmtree(partial / ".work")
    partial.rename(refused)


def _refuse_strangers(out: Path) -> None:
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / MANIFEST).exists())):
        raise UserError(f"{out} is there and is no dataset", "a new folder, or a dataset to replace", "pass another --out")


def _finish(spec: Spec, out: Path, partial: Path, facts: dict[str, Any], watch: Stopwatch, given: Sources | None) -> BuildResult:
    """Give the content its id, write record and manifest, and put the folder in its place."""
    shutil.rmtree(partial / ".work")
    with watch.phase("hash"):
        content = {name: describe(partial / name) for name in CONTENT}
    dataset_id = Manifest(files=content).dataset_id
    metrics = {
        "pairs_read": facts["read"]["pairs"],
        "pairs": facts["kept"]["pairs"],
        "train": facts["train"]["pairs"],
        "validation": facts["validation"]["pairs"],
        "rejected": facts["rejected"]["rows"],
        **{f"dropped_{name}": count for name, count in facts["dropped"].items()},
    }
    settings = spec.data.model_dump(mode="json") | ({"given": given.model_dump(mode="json")} if given else {})
    record = account("data", dataset_id, watch, name=spec.dataset.name, spec=settings, metrics=metrics)
    (partial / RECORD).write_text(record.model_dump_json(indent=1))
    described: dict[str, ManifestFile] = {**content, REPORT: describe(partial / REPORT), RECORD: describe(partial / RECORD)}
    (partial / MANIFEST).write_text(Manifest(files=described).model_dump_json(indent=1))
    old = out.with_name(out.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    partial.rename(out)
    for past in (old, out.with_name(out.name + ".refused")):
        shutil.rmtree(past, ignore_errors=True)
    return BuildResult(dataset_id, out, facts, record)
