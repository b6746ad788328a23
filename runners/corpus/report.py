"""The page of a dataset: what came in, what stays, what is suspicious, and the pairs themselves in a table that can be searched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from runners.corpus import dedupe, statistics
from runners.corpus.checks import FINDINGS
from runners.corpus.dedupe import LEAKED, NEAR, REPEATED, Duplicates
from runners.corpus.leaks import BenchmarkQuestions
from runners.corpus.pairs import DOMAINS
from runners.pages import charts, page
from runners.pages.page import Html, Tile

if TYPE_CHECKING:
    from runners.corpus.reading import Corpus

#: The goal of this project's own corpus, and the least a domain should have.
TARGET_PAIRS, TARGET_PER_DOMAIN = 1_200, 25
#: Rows shown in one table; a page of more is slow to open. What is cut is said.
_PAIRS_SHOWN, _ROWS_SHOWN, _POINTS_SHOWN = 3_000, 300, 20_000
_REASONS = {REPEATED: "same question", NEAR: "near-duplicate", LEAKED: "is in the benchmark"}


def html(corpus: Corpus, found: Duplicates, reasons: Any, validation: Any, facts: dict[str, Any], benchmark: BenchmarkQuestions | None) -> str:
    """The whole page."""
    sections = [
        page.section("Summary", *_summary(facts)),
        page.section("Categories", _categories(facts), intro=f"The goal is {TARGET_PAIRS:,} pairs, and at least {TARGET_PER_DOMAIN} in every domain."),
        page.section("Lengths", *_lengths(corpus, reasons == dedupe.STAYS)),
        page.section("Leaks", _leaks(corpus, reasons, facts, benchmark), intro="Benchmark questions that are also among the pairs read, beside them."),
        page.section("Duplicates", *_duplicates(corpus, found, reasons, facts)),
        page.section("Conflicts", _conflicts(corpus), intro="One question with different answers; most serious where the figures differ."),
        page.section("Findings", _findings(corpus, facts)),
        page.section("Rejects", _rejects(corpus)),
        page.section("Pairs", _pairs(corpus, reasons, validation)),
    ]
    return page.page("Dataset", sections, subtitle=f"{facts['kept']['pairs']:,} pairs from {facts['read']['pairs']:,} read")


def _summary(facts: dict[str, Any]) -> list[Html]:
    read, kept, leaks, dropped = facts["read"], facts["kept"], facts["leaks"], facts["dropped"]
    left = leaks["cases_leaked_after"]
    if not leaks["checked"]:
        verdict = page.banner("warn", "No benchmark was given", "Leaks were not looked for.")
    elif left:
        verdict = page.banner("bad", f"{left} of {leaks['cases']} benchmark questions are among the pairs", "This dataset is refused.")
    else:
        verdict = page.banner("good", f"None of the {leaks['cases']} benchmark questions is in the dataset", f"{dropped['leak']} pairs were dropped for it.")
    tiles = page.stat_tiles(
        [
            Tile("Pairs", kept["pairs"], f"goal {TARGET_PAIRS:,}", "good" if kept["pairs"] >= TARGET_PAIRS else "warn"),
            Tile("Read", read["pairs"], f"{facts['rejected']['rows']:,} rows rejected"),
            Tile("Training", facts["train"]["pairs"]),
            Tile("Validation", facts["validation"]["pairs"], "no near-duplicate in training"),
            Tile("Dropped", sum(dropped.values()), f"{dropped['repeated_question']} repeated, {dropped['near_duplicate']} near, {dropped['leak']} leaks"),
            Tile("Mean answer", f"{kept['answer_characters']['mean']:.0f} characters", f"about {kept['answer_tokens']['mean']:.0f} tokens"),
        ]
    )
    sources = page.table(["Source", "Read", "Kept"], [[name, count, kept["by_source"].get(name, 0)] for name, count in read["by_source"].items()])
    return [verdict, tiles, sources]


def _categories(facts: dict[str, Any]) -> Html:
    counts = facts["kept"]["by_category"]
    names = [*(name for name in DOMAINS if name in counts or set(counts) <= set(DOMAINS)), *(name for name in counts if name not in DOMAINS)]
    rows = [charts.Bar(name, counts.get(name, 0), "good" if counts.get(name, 0) >= TARGET_PER_DOMAIN else "warn") for name in names]
    return charts.bars(rows, title="Pairs by category", limit=TARGET_PER_DOMAIN, limit_label="least", written=lambda value: f"{value:,.0f}")


def _lengths(corpus: Corpus, kept: Any) -> list[Html]:
    out = []
    for name, title in (
        ("question_characters", "Question, characters"),
        ("answer_characters", "Answer, characters"),
        ("tokens", "Whole pair, tokens (estimated)"),
    ):
        values = corpus.columns[name][kept]
        step = max(1, len(values) // _POINTS_SHOWN)
        marks = {f"p{share}": float(np.percentile(values, share)) for share in (50, 95)} if len(values) else {}
        out.append(charts.histogram(values[::step].tolist(), title=title, x_label=name.split("_")[-1], marks=marks))
    return out


def _leaks(corpus: Corpus, reasons: Any, facts: dict[str, Any], benchmark: BenchmarkQuestions | None) -> Html:
    if benchmark is None or not corpus.hits:
        return page.paragraph("None were found." if benchmark else "No benchmark was given.")
    hits = sorted(corpus.hits, key=lambda hit: (hit.case, -hit.jaccard, hit.text))
    rows = corpus.some(hit.text for hit in hits[:_ROWS_SHOWN])
    found = facts["leaks"]
    text = f"{found['cases_verbatim']} cases stand word for word, {found['cases_leaked']} of {found['cases']} in all, in {found['pairs_leaking']} pairs."
    cells = [
        [benchmark.ids[h.case], benchmark.questions[h.case], rows[h.text]["question"], h.match, h.jaccard, _stays(reasons[h.text])] for h in hits[:_ROWS_SHOWN]
    ]
    return Html(page.paragraph(text) + _table(["Case", "Benchmark question", "Question in the pairs", "Match", "Jaccard", ""], cells, len(hits)))


def _duplicates(corpus: Corpus, found: Duplicates, reasons: Any, facts: dict[str, Any]) -> list[Html]:
    counts, threshold = facts["duplicates"], facts["settings"]["near_duplicate_jaccard"]
    by_question, by_pair = counts["by_question_words"], counts["by_question_and_answer"]
    table = page.table(
        ["Notion", "Pairs with a twin", "Clusters", "Largest"],
        [
            [f"question words, Jaccard ≥ {threshold:g}", by_question["pairs_with_a_twin"], by_question["clusters"], by_question["largest"]],
            [f"question + answer, 3-word shingles, Jaccard ≥ {threshold:g}", by_pair["pairs_with_a_twin"], by_pair["clusters"], by_pair["largest"]],
        ],
    )
    dropped = np.flatnonzero((reasons == REPEATED) | (reasons == NEAR))[:_ROWS_SHOWN]
    rows = corpus.some([*dropped.tolist(), *found.by[dropped].tolist()])
    cells = [[rows[int(found.by[i])]["question"], rows[int(i)]["question"], rows[int(i)]["source"], _REASONS[int(reasons[i])]] for i in dropped]
    total = int(((reasons == REPEATED) | (reasons == NEAR)).sum())
    shown = _table(["Stays", "Dropped", "Source", "Why"], cells, total) if cells else page.paragraph("No pair was dropped.")
    return [page.paragraph(f"{counts['repeated_questions']} questions are exact repeats."), table, shown, _largest(corpus, found)]


def _largest(corpus: Corpus, found: Duplicates) -> Html:
    sizes = np.bincount(found.questions)
    labels = [int(label) for label in np.argsort(-sizes, kind="stable")[:20] if sizes[label] > 1]
    members = {label: np.flatnonzero(found.questions == label) for label in labels}
    rows = corpus.some(int(i) for group in members.values() for i in group[:3])
    cells = [[int(sizes[label]), " · ".join(rows[int(i)]["question"] for i in members[label][:3])] for label in labels]
    return page.details("Largest clusters of questions", page.table(["Questions", "Of them"], cells)) if cells else Html("")


def _conflicts(corpus: Corpus) -> Html:
    found = sorted(statistics.conflicts(corpus.columns), key=lambda conflict: not conflict[1])
    if not found:
        return page.paragraph("None were found.")
    rows = corpus.some(i for members, _ in found[:_ROWS_SHOWN] for i in members)
    cells = [
        [rows[members[0]]["question"], page.badge("figures differ", "bad") if figures else page.badge("wording differs", "warn"), *_two(rows, members)]
        for members, figures in found[:_ROWS_SHOWN]
    ]
    return _table(["Question", "", "One answer", "Another"], cells, len(found))


def _two(rows: dict[int, dict[str, Any]], members: list[int]) -> tuple[str, str]:
    answers = list(dict.fromkeys(rows[i]["answer"] for i in members))
    return page.cut(answers[0]), page.cut(answers[1])


def _findings(corpus: Corpus, facts: dict[str, Any]) -> Html:
    counts = facts["read"]["findings"]
    table = page.table(
        ["Finding", "Pairs read", "Pairs kept", "What it is"],
        [[n, counts[n], facts["kept"]["findings"][n], text] for n, text in FINDINGS.items()],
        cards=True,
    )
    bits = corpus.columns["findings"]
    marked = np.flatnonzero(bits)
    shown = marked[np.lexsort((marked, bits[marked] & -bits[marked]))][:_ROWS_SHOWN]
    rows = corpus.some(shown.tolist())
    cells = [[", ".join(statistics.names(int(bits[i]))), rows[int(i)]["question"], page.cut(rows[int(i)]["answer"]), rows[int(i)]["source"]] for i in shown]
    more = page.details("Pairs with findings", _table(["Finding", "Question", "Answer", "Source"], cells, len(marked)))
    return Html(table + (more if cells else ""))


def _rejects(corpus: Corpus) -> Html:
    if not corpus.rejects:
        return page.paragraph("No row was rejected.")
    cells = [[row["file"], row["line"], row["reason"], page.cut(row["row"])] for row in corpus.rejects[:_ROWS_SHOWN]]
    return _table(["File", "Line", "Reason", "Row"], cells, len(corpus.rejects))


def _pairs(corpus: Corpus, reasons: Any, validation: Any) -> Html:
    count = min(len(corpus), _PAIRS_SHOWN)
    rows = corpus.some(range(count))
    cells = [
        [
            rows[i]["question"],
            page.cut(rows[i]["answer"]),
            rows[i]["category"],
            rows[i]["source"],
            _stays(reasons[i]) or ("validation" if validation[i] else "training"),
            ", ".join(statistics.names(int(corpus.columns["findings"][i]))),
        ]
        for i in range(count)
    ]
    return _table(["Question", "Answer", "Category", "Source", "Where", "Findings"], cells, len(corpus))


def _stays(reason: int) -> str:
    return f"dropped: {_REASONS[int(reason)]}" if reason else ""


def _table(header: list[str], rows: Sequence[Sequence[Any]], total: int) -> Html:
    """The rows shown of so many, with a search box."""
    caption = f"The first {len(rows):,} of {total:,}" if len(rows) < total else f"All {total:,}"
    return page.table(header, rows, caption=caption, search=True, cards=True)
