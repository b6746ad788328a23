"""Resource catalogues: rows of links become pairs that say what a source is, who publishes it, what it is for and where it is.

A row needs a title, a link and notes that say something; the rest is left to ``elson data categorize``, which gives every link a domain.
A row whose ``pair`` column says "no" is a link only: it can be categorized and gives no pair.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from runners.corpus import formats
from runners.corpus.categorize import OFF_TOPIC, Categorizer
from runners.corpus.formats import Raw

#: Notes of fewer words ("p930", "see above") make no answer.
NOTE_WORDS = 4
_QUESTIONS = (
    "What is {title}, and who publishes it?",
    "Which organization is behind {title}, and what is it used for?",
    "Where can I find {title}, and what does it contain?",
    "Is there an official source for {title}?",
    "What would I look up in {title}?",
    "Who maintains {title}, and where is it online?",
)
#: For a title that is a question itself: "Where can I find What is a fiduciary?" is no sentence.
_ASKED = 'Which page answers this question: "{title}"'
_TIERS = {"primary": "a primary source", "secondary": "a secondary source", "reference": "a reference work"}


def rows(path: Path, name: str, categorizer: Categorizer | None = None) -> Iterator[Raw]:
    """One row of a pair for each usable row of a catalogue; the others are rejects with their reason.

    A row without a domain is given the one its host and words speak of, where they do so clearly.
    """
    for raw in formats.rows(path, name):
        if raw.error is not None:
            yield raw
            continue
        value = {str(key).strip().lower(): str(text).strip() for key, text in raw.value.items()}
        if value.get("pair", "").lower() == "no":
            continue
        if value.get("question") and value.get("answer"):
            yield Raw(name, raw.line, value | {"category": _category(value)})
        elif missing := [key for key in ("title", "url") if not value.get(key)]:
            yield Raw(name, raw.line, raw.value, f"the row has no {' and no '.join(missing)}")
        elif len(value.get("notes", "").split()) < NOTE_WORDS:
            yield Raw(name, raw.line, raw.value, f"the notes have fewer than {NOTE_WORDS} words, so there is nothing to answer")
        else:
            yield Raw(name, raw.line, pair(_placed(value, categorizer)))


def _placed(row: dict[str, str], categorizer: Categorizer | None) -> dict[str, str]:
    """A row with its domain: its own, or the categorizer's when that is sure."""
    if _category(row) or categorizer is None:
        return row
    verdict = categorizer.row(row)
    if verdict.unsure or verdict.domain == OFF_TOPIC:
        return row
    return {"authority_tier": verdict.tier, "subdomain": verdict.subdomain} | row | {"domain": verdict.domain, "category_by": verdict.reason}


def pair(row: Mapping[str, str]) -> dict[str, Any]:
    """The pair of a row. The wording of the question is drawn by the link, so that it is the same tomorrow."""
    draw = int(hashlib.sha256(row["url"].encode()).hexdigest(), 16)
    title, organization = row["title"], row.get("organization", "")
    notes = row["notes"].rstrip()
    sentences = [f"{_quoted(title)} is published by {organization}." if organization and organization.lower() not in title.lower() else f"{_quoted(title)}:"]
    sentences.append(notes if notes.endswith((".", "!", "?")) else f"{notes}.")
    if tier := _TIERS.get(row.get("authority_tier", "").lower()):
        sentences.append(f"It is {tier}{_where(row.get('jurisdiction', ''))}.")
    sentences.append(f"Online: {row['url']}")
    question = _ASKED.format(title=title) if title.endswith("?") else _QUESTIONS[draw % len(_QUESTIONS)].format(title=title)
    carried = {key: row[key] for key in ("subdomain", "authority_tier", "jurisdiction", "as_of", "category_by") if row.get(key)}
    return {"question": question, "answer": " ".join(sentences), "category": _category(row), "reference": row["url"], **carried}


def _quoted(title: str) -> str:
    return f'"{title}"' if title.endswith("?") else title


def _where(jurisdiction: str) -> str:
    names = {"us": " for the United States", "global": " used worldwide"}
    return names.get(jurisdiction.lower(), f" for {jurisdiction}" if jurisdiction else "")


def _category(row: Mapping[str, str]) -> str:
    return row.get("domain") or row.get("category") or ""
