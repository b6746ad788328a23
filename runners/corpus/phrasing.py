"""The questions that headings and terms are answers to: plain English made of titles, with the section around them where a title alone would be unclear."""

from __future__ import annotations

import re

from runners.corpus import markdown
from runners.corpus.markdown import Section

#: Titles that say nothing without the section around them.
_GENERIC = re.compile(
    r"(?:the )?(?:introduction|overview|background|summary|conclusions?|mechanisms?|applications?|architectures?|implications?(?: for .*)?|mathematics"
    r"|phenomenon|examples?|details|process|benefits|advantages|disadvantages|drawbacks|risks?|costs?|limits?|steps|how it works|key (?:terms|points|facts)"
    r"|definitions?|terms|types|uses?|pros|cons|pros and cons|requirements|eligibility|rules|exceptions?|deadlines?|penalt(?:y|ies)|thesis|trade|value|size"
    r"|quality|(?:table|figure|exhibit) \d+|options|general|basics|other|notes?|strategy|strategies|pricing methods|standards)$",
    re.IGNORECASE,
)
_QUESTION = re.compile(
    r"(?:what|who|whom|whose|which|when|where|why|how|is|are|am|was|do|does|did|can|could|should|would|will|may|must|has|have|if)\b.*\?$",
    re.IGNORECASE | re.DOTALL,
)
#: Words that keep their capital wherever they stand.
_NAMES = frozenset(
    re.findall(
        r"\w+",
        "Roth Medicare Medicaid Social Security Treasury Congress American America Coverdell Keogh Black Scholes Merton Litterman Kelly Sharpe Monte Carlo"
        " Federal Reserve Fed States Internal Revenue Service Pell Basel Dodd Frank Volcker Sarbanes Oxley Uniform English Markowitz Fama French",
    )
)


def asked(section: Section, subject: str) -> str:
    """The question a section answers: its heading if that is one, else one made of it."""
    title = section.title
    if _QUESTION.match(title):
        return _in_subject(title, subject)
    term = subject_of(title)
    if _GENERIC.match(term) or len(title.split()) == 1:
        return about(term, section, subject)
    if re.match(r"how to\b", title, re.IGNORECASE):
        return f"How do you {title[7:].strip()}?"
    if re.match(r"(?:why|when|where|how|what|who|which)\b", title, re.IGNORECASE):
        return f"Can you explain {lowered(title)}{_of(subject)}?"
    if re.match(r"[A-Z]?[a-z]+ing\b", title):
        return f"What should one know about {lowered(title)}{_of(subject)}?"
    return f"What {'are' if _is_plural(term) else 'is'} {_with_article(term)}{_of(subject)}?"


def about(term: str, section: Section, subject: str) -> str:
    """The question that a term's definition answers, with the section around it where the term alone would be unclear."""
    if _QUESTION.match(term):
        return term
    around = section.path[-1] if section.path and subject_of(section.path[-1]) != term else section.path[-2] if len(section.path) > 1 else ""
    verb = "are" if _is_plural(term) else "is"
    if _GENERIC.match(term) and around:
        return f"What {verb} the {lowered(re.sub(r'^the ', '', term, flags=re.IGNORECASE))} of {subject_of(around)}?"
    if subject:
        return f"What {verb} {_with_article(term)} in {subject}?"
    return f"What {verb} {_with_article(term)}?"


def of_row(term: str, kind: str, wanted: str, several: bool) -> str:
    """The beginning of the question that a table's row answers; ``kind`` and ``wanted`` are the names of its first column and of the others."""
    if re.search(r"\b(?:for|by|to|when|who|how|what|where|if|of|per|used|allowed|required)\b", wanted):
        return f"What is listed under “{wanted}” for {term}"
    verb = "are" if several or wanted.endswith("s") else "is"
    if re.search(r"\b(?:type|option|term|name|instrument|account|form|feature)\b", kind):
        return f"What {verb} the {wanted} of {term}"
    return f"What {verb} the {wanted} of the {kind} “{term}”"


def within(section: Section) -> str:
    """The section as the end of a question; empty when it is itself a question."""
    return f" in {subject_of(section.title)}" if section.title and not _QUESTION.match(section.title) else ""


def _of(subject: str) -> str:
    return f" in {subject}" if subject else ""


def _in_subject(question: str, subject: str) -> str:
    """A question as it is; short ones ("How does it work?") are completed by the subject."""
    if subject and len(question.split()) <= 5 and subject.lower() not in question.lower():
        return f"{question.rstrip('? ')} in {subject}?"
    return question


def _with_article(term: str) -> str:
    return f"the {term[4:]}" if term.lower().startswith("the ") else term


def _is_plural(term: str) -> bool:
    last = re.sub(r"\(.*?\)", "", term).strip().split(" and ")[-1].split(" ")[-1].lower() if term else ""
    joined = " and " in term or " & " in term or "," in term
    return joined or (last.endswith("s") and not last.endswith(("ss", "us", "is", "ics", "'s", "’s", "ness", "mas", "ios")) and len(last) > 3)


def lowered(title: str) -> str:
    """A title as it is inside a sentence: its first word in lower case; all of them in a title in title case; names and abbreviations never."""
    bare = re.sub(r"\(.*?\)", "", title)
    in_title_case = not any(len(word) > 4 and word.islower() for word in bare.split())
    start = r"(?<![\w(’'])" if in_title_case else r"^"
    return re.sub(start + r"[A-Z](?=[a-z]+(?![^(]*\)))", lambda match: _lower_unless_named(title, match), title)


def _lower_unless_named(title: str, match: re.Match[str]) -> str:
    word = re.match(r"\w+", title[match.start() :])
    return match.group() if word and word.group() in _NAMES else match.group().lower()


def subject_of(title: str) -> str:
    """What a heading or a bold beginning is about: without marks, number and the part after a colon."""
    term = one_line(title).strip("*_: ").rstrip(".")
    head, _, rest = term.partition(": ")
    if rest and _GENERIC.match(head):
        return rest
    return head if len(head) > 2 else term


def one_line(text: str) -> str:
    """Inline Markdown as plain text on one line."""
    return re.sub(r"\s*\n\s*", " ", markdown.inline(text)).strip()
