"""What a whole document is about: the name in its first heading that its text repeats. A heading such as "Limits" is no question without it.

Pure; it reads the words only. A name that is only repeated may be of something beside the subject: a server's page says "WebSocket" more often than its
own name. Left out: documents about several things. They get no name, and their questions are completed from the headings above.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from runners.corpus import markdown
from runners.corpus.chrome import MATH_OR_CODE
from runners.corpus.markdown import Section

#: A section of fewer words says too little to be counted; fewer sections are no evidence.
_SECTION_WORDS, _LEAST_SECTIONS, _LEAST_NAMED = 20, 4, 3
#: Share of the sections that must hold a name: a word with a capital, words joined by a hyphen; and by how much the first must lead the next one.
_IN_TITLE, _JOINED_SHARE, _LEAD = 0.2, 0.5, 1.25
#: Share of sections with code from which a text is one about a program.
_WITH_CODE = 0.3
_TECHNICAL = re.compile(
    r"`|\w\(\)|\w_\w|(?<!\S)--?[a-z][a-z-]+|(?<!\S)[~/][\w.-]+/\w|\b[a-z]+\.[a-z]+\(|\.(?:py|js|c|h|sh|conf|txt|html|xml|json|ya?ml)\b|(?<!\S)\$ \w"
)
#: Words without their ligatures, and how many of them are no misprints.
_LOST = re.compile(
    r"\b(?:dieren\w+|signican\w+|speci(?:c|ed|cally|cation)|denes?|dened|denition\w*|bene(?:t|ts|cial)|eects?|eective\w*|coecients?|sucient\w*|exib\w+"
    r"|uctuation\w*|congur\w+|simplied|rst|gures?|identied|modied|classi(?:ed|cation)|o(?:er|ers|ered)|e(?:ciency|cient)|ow|ag|tted)\b"
)
_LEAST_LOST = 4
#: Letters of formulas, and the share of a text from which its words are in them.
_FORMULA = re.compile(r"[α-ωΑ-Ωˆ˜∑∫±≤≥∈∞√⊤∼]")
_FORMULAS = 0.002
#: A word with a capital inside a sentence, and no part of a longer name. Abbreviations (USA) are not names of what a document is about.
_NAME = re.compile(r"(?<![\w'’.-])[a-z][\w'’-]*,? ((?!My)[A-Z][A-Za-z]*[a-z][A-Za-z]*(?:\.js)?)\b(?! [A-Z][a-z]|,? (?:et al|and [A-Z]|\(\d{4}))")
#: A first heading in small letters is a program's name: "# winston", "fetchmail FAQ".
_SMALL_TITLE = re.compile(r"(?:the )?([a-z][a-z\d]+(?:[.-][a-z\d]+)*)(?: (?:faq|manual|documentation|readme|user guide|guide|reference))?", re.IGNORECASE)
#: Words joined by a hyphen in this share of the sections are a program's name too: "semantic-release".
_JOINED = re.compile(r"[a-z]{3,}(?:-[a-z]{3,})+")


def name_of(sections: Sequence[Section]) -> str:
    """The name of what a document is about, or an empty text when it repeats none."""
    texts = [text for section in sections if len((text := _prose(section)).split()) >= _SECTION_WORDS]
    if len(texts) < _LEAST_SECTIONS:
        return ""
    first = next((section.path[0] for section in sections if section.path), "")
    # A word that is also written small is no name: "the Law", "a Security".
    small = Counter(word for text in texts for word in set(re.findall(r"\b[a-z][a-z\d.-]*[a-z\d]\b", text)))
    counts = Counter[str](name for text in texts for name in set(_NAME.findall(text)) if re.search(rf"\b{re.escape(name)}\b", first))
    counts = Counter({name: count for name, count in counts.items() if small[name.lower()] <= count and not _is_identifier(name, texts)})
    (name, most), (_, second) = [*counts.most_common(2), ("", 0), ("", 0)][:2]
    if most >= max(_LEAST_NAMED, _IN_TITLE * len(texts)) and most >= _LEAD * second:
        return str(name)
    joined, held = max(((word, count) for word, count in small.items() if _JOINED.fullmatch(word)), key=lambda one: one[1], default=("", 0))
    if (
        joined
        and joined in first.lower()
        and held >= _JOINED_SHARE * len(texts)
        and len(re.findall(rf"\b(?:an?|the|this|from|via) {joined}\b", " ".join(texts))) < held / 5
    ):
        return joined
    title = _SMALL_TITLE.fullmatch(first)
    return title[1] if title and title[1].islower() and small[title[1]] >= max(_LEAST_NAMED, _IN_TITLE * len(texts)) else ""


def _is_identifier(name: str, texts: Sequence[str]) -> bool:
    """Whether a name is a part of a program: often with a dot or a bracket behind it ("Entry.objects", "Form(")."""
    whole = " ".join(texts)
    return len(re.findall(rf"\b{re.escape(name)}(?:\.[a-z]|\()", whole)) > 0.1 * len(re.findall(rf"\b{re.escape(name)}\b", whole))


def is_of_a_program(sections: Sequence[Section]) -> bool:
    """Whether so many of a document's sections hold code, or what is written only of programs, that it is about one."""
    held = [any(block.kind == "code" or _TECHNICAL.search(block.text) for block in section.blocks) for section in sections if section.blocks]
    return sum(held) >= max(1, _WITH_CODE * len(held))


def is_damaged(text: str) -> bool:
    """Whether a conversion lost letters (the ligatures of a PDF: "rst" for first, "dierent"), or a text is so full of formulas that words are missing."""
    lost = _LOST.findall(text)
    return (len(lost) >= _LEAST_LOST and len(set(lost)) > 1) or len(_FORMULA.findall(text)) > _FORMULAS * len(text)


def _prose(section: Section) -> str:
    """A section's paragraphs and items without code and without its source."""
    kept = (block for block in section.blocks if block.kind in ("paragraph", "item") and not block.text.startswith("Source"))
    return MATH_OR_CODE.sub(" ", " ".join(markdown.inline(block.text) for block in kept))
