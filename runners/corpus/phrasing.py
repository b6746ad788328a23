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
#: A name of a program's part: camelCase, dotted, with a call's brackets, an underscore, a leading dot, dash or sign.
_IDENTIFIER = re.compile(
    r"`|\((?i:object|string|number|boolean|bool|function|array|integer|int|any|optional|default|required)\b[^)]*\)$|\b(?![ei][A-Z])[a-z]+\d*[A-Z]\w*"
    r"|[A-Za-z_]\w+\.(?!js\b|com\b|org\b|net\b|io\b|gov\b)[A-Za-z]\w+|(?<![\d])[A-Za-z_]\w+\([^)]*\)|\w_\w|(?:^|\s)[-.@$/\[]\w|[=<>{}\]]|::"
)
#: The authors and the number of a page above its text.
_PAGE = re.compile(r"(?:[A-Z][\w.’'-]+ ){1,3}[A-Z][\w.’'-]+(?:, (?:[A-Z][\w.’'-]+ ?){2,4})* \d{1,3}|[A-Z]\w+ [A-Z]\w+ \d{1,3}")
#: Questions of the writer to the reader, not of a reader.
_TO_THE_READER = re.compile(r"(?:would you like|do you (?:want|like|need)|are you (?:ready|looking|interested)|ready|still|want|need|any)\b", re.IGNORECASE)
#: "It is necessary to": the word stands for no subject.
_DUMMY = re.compile(
    r"(?:it|this|there)(?: is|['’]s|\s+are)(?: (?:not|also|very|often|always|usually|sometimes|generally))*"
    r" (?:\w+(?:ed|ible|able|ful)|best|good|easy|hard|clear|true|no|worth|common|wrong|essential"
    r"|critical|crucial|vital|typical|important|necessary|mandatory|imperative|helpful|up)\b",
    re.IGNORECASE,
)
#: A definition without its term, as glossaries have them: "A price at which …", "Money that …".
_FRAGMENT = re.compile(
    r"(?:an?|the|any) (?:(?!\w+(?:ly|n['’]t)\b)[\w'’-]+,? ){1,3}?"
    r"(?:that|which|who|whose|where|of|for|in|at|to|by|with|from|issued|paid|used|held|made)\b|(?:money|amounts?) ",
    re.IGNORECASE,
)
#: A verb behind the clause of a relative: the sentence is whole, and about another thing: "A server that gets a packet will answer".
_MAIN_VERB = re.compile(r"\s*(?!(?:will|can|must|should|cannot|may)\b)(?:[\w'’-]+ ){1,8}?(?:will|can|must|should|cannot)\b", re.IGNORECASE)
#: The first words of a text that goes on from another one.
_LEANS = re.compile(r"(?:th(?:is|ese|at|ose)|it|they|he|she|its|their|both|here|such|another|other|one)\b", re.IGNORECASE)
_DESCRIPTION = re.compile(r"(?:descriptions?|meaning|definition|explanation|information|what it (?:is|means)|details?)", re.IGNORECASE)
_OF_A_PROGRAM = re.compile(
    r"(?:data ?)?types?|default(?: value)?|signature|values?|required|parameters?|arguments?|options?|returns?|notes?|comments?|remarks?|examples?|links?",
    re.IGNORECASE,
)
#: Words of a title that say what sort of text it is.
_SORT = re.compile(
    r"^(?:(?:an? )?(?:short |brief )?(?:introduction|overview|guide) (?:to|of) |using (?:the )?|welcome to |about )"
    r"|\s(?:faqs?|frequently asked questions|(?:package|users?['’]?s?|reference|developers?|administration|quick start)?"
    r" ?(?:manual|guide|handbook|documentation|reference|tutorial|book))$",
    re.IGNORECASE,
)
#: A clause: "It's a zoo", "Invoked in posix mode", "the command returns nothing".
_CLAUSE = re.compile(
    r"^(?:it|there|that|here)['’]s |^\w+ed (?:in|as|by|with|on|to|when)\b|\w (?:returns|fails|crashes|works|raises|hangs|gets|goes|makes|needs|causes"
    r"|enforces?) \w",
    re.IGNORECASE,
)
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


#: A shorter text that does not say what its heading is leads to something else.
_LEAST_WORDS = 30
#: A longer term names enough by itself; a longer heading makes no place for one.
_PLACE_WORDS = 5
#: The question of a text that does not say what its heading is.
ANYTHING = "What should I know about "
#: The question of a heading that is a doing: "Writing a program".
DOING = "What is involved in "


class Unclear(Exception):
    """No question can be made of a title; the text is the reason, for the rejects file."""


def asked(path: Sequence[str], subject: str, answer: str, name: str = "") -> str:
    """The question that the text below a heading answers: the heading if that is one, else one made of it and of the headings above. Raises Unclear.

    ``subject`` is what the document says it is about; ``name`` is the one that its text repeats, where it does not say so.
    """
    title = path[-1]
    if _QUESTION.match(re.split(r"(?<=[.!?]) ", title)[-1]):
        return _in_subject(title, subject or name)
    opening = _opening(answer)
    defined = _defines(opening, subject_of(title))
    if not defined and _LEANS.match(opening):
        raise Unclear("the text goes on from another, and the heading does not say from which")
    question = _made(title, [*([subject] if subject else []), *path[:-1]], subject or name, defined=defined, opening=opening)
    if question.startswith(ANYTHING) and (answer.startswith("- ") or len(answer.split()) < _LEAST_WORDS):
        raise Unclear("a list or a line under a heading, and no text that says what it is about")
    return question


def about(term: str, path: Sequence[str], subject: str, name: str = "", *, use: bool = False) -> str:
    """The question that a term's definition answers; ``path`` is the headings around it; ``use``: it says when to use it. Raises Unclear."""
    if _QUESTION.match(term):
        return term
    if _IDENTIFIER.search(term):
        raise Unclear("the term is a name in a program")
    around = [title for title in path if subject_of(title) != term]
    if use and not _EMPTY.fullmatch(term) and not _general(term) and re.search(r"[^\W\d_]{2}", term) and len(term.split()) <= 8:
        return f"When do you use {_with_article(term)}{_of(subject or name, term) or _place(term, around, anyway=True)}?"
    return _made(term, [*([subject] if subject else []), *around], subject or name)


def _opening(answer: str) -> str:
    return re.sub(r"[*_`]", "", answer.lstrip("-*# "))


def _defines(opening: str, term: str) -> bool:
    """Whether a text says what a term is: by its beginning, or by a verb near it whose subject is the term or "this"."""
    if _DUMMY.match(opening) or re.match(r"[^.]{1,60}? (?:is|are) (?:one of|among|a great|a good|a common)\b", opening):
        return False
    words = re.findall(r"[\w'’-]+", re.sub(r"\(.*?\)", "", term)) or [term]
    head = re.escape(words[-1].rstrip("s"))
    if fragment := _FRAGMENT.match(opening):
        return not _MAIN_VERB.match(opening[fragment.end() :])
    subject = rf"(?!(?:when|if|for|in|to|let|although)\b)(?:(?:[^\s.:]+ ){{0,5}}?{head}\w*(?: [^\s.:]+){{0,3}}?|(?:this|these|it)(?: {head}\w*)?(?: [a-z]+ly)?)"
    return bool(re.match(rf"{subject} {_DEFINING}\b", opening, re.IGNORECASE))


def _made(title: str, above: Sequence[str], subject: str, *, defined: bool = True, opening: str = "") -> str:
    if len(title.split()) > 12:
        raise Unclear("the heading is a sentence, not a subject")
    term = subject_of(title)
    if _EMPTY.fullmatch(term) or not re.search(r"[^\W\d_]{2}", term):
        raise Unclear("the heading says nothing by itself")
    if re.search(r"[!?;/.]\W*$|\w/ |[α-ωˆ˜∑∫±≤≥]|\d[.:]\d.*\d[.:]\d|\(\d{4}\w?\)$|[a-z]\. [A-Z]", title.strip()) or re.match(r"[^\w(\"“'‘$]", title):
        raise Unclear("the heading is cut or damaged")
    if _PAGE.fullmatch(title):
        raise Unclear("the head of a page")
    if _IDENTIFIER.search(term):
        raise Unclear("the heading is a name in a program")
    first, *rest = re.findall(r"[\w'’-]+", term.lower()) or [""]
    if question := _general(term):
        question = _of_parent(question, term, above, opening)
        return question if subject.lower() in question.lower() else f"{question.rstrip('?')}{_of(subject, question)}?"
    if first == "how" and rest[:1] == ["to"]:
        return f"How do you {lowered(term)[7:].strip()}?"
    if first in ("why", "when", "where", "how", "what", "who", "which"):
        if rest and rest[0] in _AUXILIARY:
            return f"{term.rstrip('?')}{_of(subject, term)}?"
        return f"Can you explain {lowered(term.rstrip('?'))}{_of(subject, term)}?"
    if _STATEMENT.search(term) or first in _TELLS or _CLAUSE.search(term):
        raise Unclear("the heading is a statement: no question can be made of it")
    if sides := _VERSUS.fullmatch(term):
        return f"How do {sides[1]} and {lowered(sides[2])} differ{_of(subject, term)}?"
    if first in _GOES_ON:
        raise Unclear("the heading goes on from another")
    if rest and (first in _IMPERATIVES or (first in _AMBIGUOUS and rest[0] in _AFTER_A_VERB)):
        return f"How do you {lowered(term)}{_of(subject, term)}?"
    if term[:2].isupper() and first.endswith("ing"):
        raise Unclear("the heading says nothing by itself")
    if (first.endswith("ing") and first not in _GERUND_NOUNS) or (first.endswith("ly") and rest and rest[0].endswith("ing")):
        if rest and (rest[0] in _LACKS_OBJECT or (rest[0] == "the" and len(rest) < 3)):
            raise Unclear("the heading goes on from another")
        return f"{DOING}{lowered(term)}{_of(subject, term) if rest else _object(above)}?"
    head, of, _ = term.partition(" of ")
    if of and _general(head).startswith("What {are} the"):
        return f"What {'are' if is_plural(head) else 'is'} the {re.sub('^the ', '', lowered(term))}{_of(subject, term)}?"
    where = _of(subject, term) or _place(term, above, anyway=not defined)
    if len(term.split()) > 8:
        raise Unclear("the heading is a sentence, not a subject")
    if not defined and (len(term.split()) < 2 or (not where and len(term.split()) < 3)):
        raise Unclear("the heading says nothing by itself")
    if not defined:
        return f"{ANYTHING}{_with_article(term)}{where}?"
    return f"What {'are' if is_plural(term) else 'is'} {_with_article(term)}{where}?"


def _general(term: str) -> str:
    """The form of the question that a general title makes of what it belongs to; empty for any other title."""
    return next((question for pattern, question in _OF_PARENT if pattern.fullmatch(term)), "")


def _of_parent(question: str, term: str, above: Sequence[str], opening: str) -> str:
    """A question about what a general title belongs to. Raises Unclear when nothing around it says what that is."""
    if "example" in question and above and not named_by(above[-1]) and not _general(subject_of(above[-1])):
        raise Unclear("the heading says nothing without what it belongs to, and no heading above names that")
    parent = next((name for title in reversed(above) if (name := named_by(title))), "")
    if not parent:
        raise Unclear("the heading says nothing without what it belongs to, and no heading above names that")
    if question == "What {is} {parent}?" and opening and not _defines(opening, parent):
        raise Unclear("an introduction that does not say what its subject is")
    plural, many = is_plural(parent), is_plural(term)
    words = {"parent": _with_article(parent), "is": "are" if plural else "is", "does": "do" if plural else "does", "are": "are" if many else "is"}
    return question.format(title=lowered(re.sub(r"^the ", "", term, flags=re.IGNORECASE)), **words)


def _object(above: Sequence[str]) -> str:
    """What a single word on -ing is done to: the heading above. Raises Unclear when that does not say."""
    if not (parent := next((name for title in reversed(above) if (name := named_by(title))), "")):
        raise Unclear("the heading says nothing without what it belongs to, and no heading above names that")
    return f" {_with_article(parent)}"


def named_by(title: str) -> str:
    """What a heading above is about, or an empty text when it says nothing by itself either."""
    if _QUESTION.match(title):
        return ""
    name = _SORT.sub("", subject_of(title)).strip()
    first = name.split()[0].lower() if name else ""
    if (
        not name
        or name.lower() in ("user", "users", "reference", "developer", "quick")
        or first in ("how", "why", "when", "what", "where", "adding", "setting")
        or first in _IMPERATIVES
        or re.search(r"[!?;:]", name)
        or _IDENTIFIER.search(name)
    ):
        return ""
    usable = not (_general(name) or _EMPTY.fullmatch(name) or _STATEMENT.search(name) or name.split()[0].lower() in _GOES_ON or len(name.split()) > 8)
    return name if usable and re.search(r"[^\W\d_]{2}", name) else ""


def _place(term: str, above: Sequence[str], *, anyway: bool = False) -> str:
    """The heading above, for a single everyday word ("execution" alone may be of a trade or of a will), or for any term that its text does not define."""
    if not anyway and (len(term.split()) > 1 or not re.fullmatch(r"[A-Z]?[a-z]+", term)):
        return ""
    parent = next((name for title in reversed(above) if (name := named_by(title)) and len(name.split()) <= _PLACE_WORDS and " in " not in name), "")
    if anyway and (len(term.split()) > _PLACE_WORDS or " in " in term):
        return ""
    known = {word.rstrip("s") for word in re.findall(r"\w{4,}", term.lower())}
    return f" in {_with_article(parent)}" if parent and not known & {word.rstrip("s") for word in re.findall(r"\w{4,}", parent.lower())} else ""


def of_row(term: str, columns: Sequence[str], path: Sequence[str]) -> str:
    """The question that a table's row answers under the names of its other columns. Raises Unclear."""
    if _IDENTIFIER.search(term):
        raise Unclear("the term is a name in a program")
    if _EMPTY.fullmatch(term) or not re.search(r"[^\W\d_]{2}", term) or len(term.split()) > 8:
        raise Unclear("the table's row has no name")
    if any(not re.search(r"[^\W\d_]{2}", name) or len(name.split()) > 5 for name in columns):
        raise Unclear("the table's columns have no names that make a question")
    if len(columns) == 1 and _DESCRIPTION.fullmatch(columns[0]):
        return f"What {'are' if is_plural(term) else 'is'} {_with_article(term)}{_place(term, path)}?"
    if any(_DESCRIPTION.fullmatch(name) or _OF_A_PROGRAM.fullmatch(name) for name in columns):
        raise Unclear("the table's columns have no names that make a question")
    if len(columns) == 1 and re.search(r"\b(?:for|by|to|in|with|as|of|from)$", columns[0]):
        return f"What is {term} {lowered(columns[0])}?"
    if any(re.match(r"(?:when|who|how|what|where|if|why|used|allowed|required)\b", name, re.IGNORECASE) for name in columns):
        raise Unclear("the table's columns have no names that make a question")
    listed = [f"the {lowered(name)}" for name in columns]
    joined = listed[0] if len(listed) == 1 else f"{', '.join(listed[:-1])} and {listed[-1]}"
    verb = "is" if len(columns) == 1 and not is_plural(columns[0]) else "are"
    return f"What {verb} {joined} of {_with_article(term)}{_place(term, path)}?"


def _of(subject: str, term: str) -> str:
    return f" in {subject}" if subject and subject.lower() not in term.lower() else ""


def _in_subject(question: str, subject: str) -> str:
    """A question as it stands; short ones ("How does it work?") are completed by the subject."""
    if _TO_THE_READER.match(question):
        raise Unclear("the writer asks the reader")
    if not subject and len(question.split()) < 4 and not re.match(r"(?:what|who) (?:is|are) ", question, re.IGNORECASE):
        raise Unclear("the question leans on the text before it")
    named = re.fullmatch(r"[A-Z]\w+", subject) and not re.search(r"\s[\"“(]?[A-Z]\w|\w_\w|\w\(", question)
    single = not re.search(r"[.?!] ", question)
    if subject and single and len(question.split()) <= (8 if named else 5) and subject.lower() not in question.lower():
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
    title = re.sub(r"(?<= )(?:A|An|The)(?= [A-Za-z])", lambda match: match.group().lower(), title)
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
