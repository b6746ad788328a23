"""The questions that headings and terms are answers to: made of titles, completed from the headings around them, or the reason why none is made.

The lists of words and patterns are in ``titles.yaml``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

from runners.corpus import markdown

_QUESTION = re.compile(
    r"(?:what|who|whom|whose|which|when|where|why|how|is|are|am|was|do|does|did|can|could|should|would|will|may|must|has|have|if)\b.*\?$",
    re.IGNORECASE | re.DOTALL,
)
_STATEMENT = re.compile(
    r"\w+ (?:is|are|was|were|can|could|should|must|will|would|has|have|had|does|do|did|may|might|(?:is|are|do|does|was|were|wo|ca)n['’]t|cannot) \w+",
    re.IGNORECASE,
)


_VERSUS = re.compile(r"(.+?) (?:vs\.?|versus) (.+)", re.IGNORECASE)
_DEFINING = r"(?:is|are|was|were|means?|refers?|consists?|contains?|holds?|lets?|allows?|provides?|describes?|represents?)"
#: After a word on -ing, these say that its object is in the heading above: "Viewing as a chart".
_LACKS_OBJECT = frozenset(("as", "by", "using", "via"))
_AUXILIARY = frozenset(("is", "are", "was", "were", "do", "does", "did", "can", "could", "should", "would", "will", "must", "may", "has", "have"))
#: First words of an advice.
_TELLS = frozenset(("do", "don't", "don’t", "be", "always", "never", "avoid", "please", "remember", "there", "it", "you", "i", "he", "they", "this", "that"))


def _any(patterns: Iterable[str]) -> re.Pattern[str]:
    return re.compile(rf"(?:the )?(?:{'|'.join(patterns)})", re.IGNORECASE)


_LISTS = yaml.safe_load((Path(__file__).parent / "titles.yaml").read_text())
SKIPPED, _EMPTY = _any(_LISTS["skipped"]), _any(_LISTS["empty"])
_OF_PARENT = tuple((_any(patterns), question) for question, patterns in _LISTS["of_parent"].items())
_GOES_ON, _IMPERATIVES, _AMBIGUOUS, _AFTER_A_VERB, _GERUND_NOUNS, _NAMES = (
    frozenset(_LISTS[name].split()) for name in ("goes_on", "imperatives", "ambiguous", "after_a_verb", "gerund_nouns", "names")
)


class Unclear(Exception):
    """No question can be made of a title; the text is the reason, for the rejects file."""


def asked(path: Sequence[str], subject: str, answer: str) -> str:
    """The question that the text below a heading answers: the heading if that is one, else one made of it and of the headings above. Raises Unclear."""
    title = path[-1]
    if _QUESTION.match(re.split(r"(?<=[.!?]) ", title)[-1]):
        return _in_subject(title, subject)
    return _made(title, [*([subject] if subject else []), *path[:-1]], subject, defined=_defines(answer, subject_of(title)))


def about(term: str, path: Sequence[str], subject: str) -> str:
    """The question that a term's definition answers; ``path`` is the headings around it. Raises Unclear."""
    if _QUESTION.match(term):
        return term
    around = [title for title in path if subject_of(title) != term]
    return _made(term, [*([subject] if subject else []), *around], subject)


def _defines(answer: str, term: str) -> bool:
    """Whether a text says what a term is: by its beginning, or by a verb near it whose subject is the term or "this"."""
    opening = re.sub(r"[*_`]", "", answer.lstrip("-*# "))
    head = re.escape(re.findall(r"[\w'’-]+", re.sub(r"\(.*?\)", "", term) or term)[-1].rstrip("s"))
    if re.match(r"(?:an?|any|money|amounts?) ", opening, re.IGNORECASE):
        return True
    subject = rf"(?!(?:when|if|for|in|to|let|although)\b)(?:[^\s.:]+ ){{0,5}}?(?:{head}\w*|this|these|it)\b"
    return bool(re.match(rf"{subject}(?: [^\s.:]+){{0,3}}? {_DEFINING}\b", opening, re.IGNORECASE))


def _made(title: str, above: Sequence[str], subject: str, *, defined: bool = True) -> str:
    if len(title.split()) > 12:
        raise Unclear("the heading is a sentence, not a subject")
    term = subject_of(title)
    if _EMPTY.fullmatch(term) or not re.search(r"[^\W\d_]{2}", term):
        raise Unclear("the heading says nothing by itself")
    first, *rest = re.findall(r"[\w'’-]+", term.lower()) or [""]
    if question := _general(term):
        return _of_parent(question, term, above)
    if first == "how" and rest[:1] == ["to"]:
        return f"How do you {lowered(term)[7:].strip()}?"
    if first in ("why", "when", "where", "how", "what", "who", "which"):
        if rest and rest[0] in _AUXILIARY:
            return f"{term.rstrip('?')}{_of(subject)}?"
        return f"Can you explain {lowered(term.rstrip('?'))}{_of(subject)}?"
    if _STATEMENT.search(term) or first in _TELLS:
        raise Unclear("the heading is a statement: no question can be made of it")
    if sides := _VERSUS.fullmatch(term):
        return f"How do {sides[1]} and {lowered(sides[2])} differ{_of(subject)}?"
    if first in _GOES_ON:
        raise Unclear("the heading goes on from another")
    if rest and (first in _IMPERATIVES or (first in _AMBIGUOUS and rest[0] in _AFTER_A_VERB)):
        return f"How do you {lowered(term)}{_of(subject)}?"
    if (first.endswith("ing") and first not in _GERUND_NOUNS) or (first.endswith("ly") and rest and rest[0].endswith("ing")):
        if rest and rest[0] in _LACKS_OBJECT:
            raise Unclear("the heading goes on from another")
        return f"What is involved in {lowered(term)}{_of(subject) if rest else _object(above)}?"
    head, of, _ = term.partition(" of ")
    if of and _general(head).startswith("What {are} the"):
        return f"What are the {re.sub('^the ', '', lowered(term))}{_of(subject)}?"
    where = _of(subject) or _place(term, above)
    if len(term.split()) > 8:
        raise Unclear("the heading is a sentence, not a subject")
    if not defined and not where and re.fullmatch(r"[A-Z]?[a-z]+", term):
        raise Unclear("the heading says nothing by itself")
    if not defined:
        return f"What should I know about {_with_article(term)}{where}?"
    return f"What {'are' if is_plural(term) else 'is'} {_with_article(term)}{where}?"


def _general(term: str) -> str:
    """The form of the question that a general title makes of what it belongs to; empty for any other title."""
    return next((question for pattern, question in _OF_PARENT if pattern.fullmatch(term)), "")


def _of_parent(question: str, term: str, above: Sequence[str]) -> str:
    """A question about what a general title belongs to. Raises Unclear when nothing around it says what that is."""
    parent = next((name for title in reversed(above) if (name := _named_by(title))), "")
    if not parent:
        raise Unclear("the heading says nothing without what it belongs to, and no heading above names that")
    plural, many = is_plural(parent), is_plural(term)
    words = {"parent": _with_article(parent), "is": "are" if plural else "is", "does": "do" if plural else "does", "are": "are" if many else "is"}
    return question.format(title=lowered(re.sub(r"^the ", "", term, flags=re.IGNORECASE)), **words)


def _object(above: Sequence[str]) -> str:
    """What a single word on -ing is done to: the heading above. Raises Unclear when that does not say."""
    if not (parent := next((name for title in reversed(above) if (name := _named_by(title))), "")):
        raise Unclear("the heading says nothing without what it belongs to, and no heading above names that")
    return f" {_with_article(parent)}"


def _named_by(title: str) -> str:
    """What a heading above is about, or an empty text when it says nothing by itself either."""
    if _QUESTION.match(title):
        return ""
    name = subject_of(title)
    usable = not (_general(name) or _EMPTY.fullmatch(name) or _STATEMENT.search(name) or name.split()[0].lower() in _GOES_ON or len(name.split()) > 8)
    return name if usable and re.search(r"[^\W\d_]{2}", name) else ""


def _place(term: str, above: Sequence[str]) -> str:
    """For a single everyday word, the heading above: "execution" alone may be of a trade or of a will."""
    if len(term.split()) > 1 or not re.fullmatch(r"[A-Z]?[a-z]+", term):
        return ""
    parent = next((name for title in reversed(above) if (name := _named_by(title))), "")
    return f" in {_with_article(parent)}" if parent and term.lower() not in parent.lower() else ""


def of_row(term: str, columns: Sequence[str], path: Sequence[str]) -> str:
    """The question that a table's row answers under the names of its other columns. Raises Unclear."""
    if _EMPTY.fullmatch(term) or not re.search(r"[^\W\d_]{2}", term) or len(term.split()) > 8:
        raise Unclear("the table's row has no name")
    if any(not re.search(r"[^\W\d_]{2}", name) or len(name.split()) > 5 for name in columns):
        raise Unclear("the table's columns have no names that make a question")
    if len(columns) == 1 and re.search(r"\b(?:for|by|to|in|with|as|of|from)$", columns[0]):
        return f"What is {term} {lowered(columns[0])}?"
    if any(re.match(r"(?:when|who|how|what|where|if|why|used|allowed|required)\b", name, re.IGNORECASE) for name in columns):
        raise Unclear("the table's columns have no names that make a question")
    listed = [f"the {lowered(name)}" for name in columns]
    joined = listed[0] if len(listed) == 1 else f"{', '.join(listed[:-1])} and {listed[-1]}"
    verb = "is" if len(columns) == 1 and not is_plural(columns[0]) else "are"
    return f"What {verb} {joined} of {_with_article(term)}{_place(term, path)}?"


def _of(subject: str) -> str:
    return f" in {subject}" if subject else ""


def _in_subject(question: str, subject: str) -> str:
    """A question as it stands; short ones ("How does it work?") are completed by the subject."""
    if subject and len(question.split()) <= 5 and subject.lower() not in question.lower():
        return f"{question.rstrip('? ')} in {subject}?"
    if not subject and re.search(r"\b(?:it|this|that|these|they|them|those|are there other)\b", question, re.IGNORECASE) and len(question.split()) <= 5:
        raise Unclear("the question leans on the text before it")
    return question


def _with_article(term: str) -> str:
    return f"the {term[4:]}" if term.lower().startswith("the ") else term


def is_plural(term: str) -> bool:
    """Whether a term takes "are": by its head, the last word before a preposition, or because it joins two."""
    bare = re.sub(r"\(.*?\)", "", term).strip()
    head = re.split(r"\s(?:in|of|for|with|to|from|on|by|at|as|under|between|within|versus|vs\.?|against)\s", bare)[0]
    joined = bool(re.search(r"\s(?:and|&)\s|,\s", head))
    last = head.split()[-1].lower() if head.split() else ""
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
    if rest and (_general(head) or _EMPTY.fullmatch(head)):
        return rest
    return head if len(head) > 2 else term


def one_line(text: str) -> str:
    """Inline Markdown as plain text on one line."""
    return re.sub(r"\s*\n\s*", " ", markdown.inline(text)).strip()
