"""Documents of every kind as Markdown: libraries convert HTML (markdownify), Word (mammoth) and PDF (pypdf); this only puts them together.

Spans of characters refer to the Markdown. For ``.md`` and ``.txt`` that is the file itself; for the others the pair says ``converted: true``.
"""

from __future__ import annotations

import re
from pathlib import Path

#: A page of a PDF that holds fewer characters is a picture.
_SCANNED = 20
_SKIPPED_TAGS = ("script", "style", "nav", "header", "footer", "aside", "form", "noscript", "svg", "iframe", "template")


class Unreadable(Exception):
    """A document that cannot be converted; the text is the reason, for the rejects file."""


def read(path: Path) -> tuple[str, bool]:
    """(Markdown, whether it was converted). Raises Unreadable with the reason."""
    ending = path.suffix.lower()
    try:
        if ending in (".md", ".markdown"):
            return _text(path), False
        if ending == ".txt":
            return _text(path), False
        if ending in (".html", ".htm"):
            return from_html(_text(path)), True
        if ending == ".docx":
            return _from_word(path), True
        return _from_pdf(path), True
    except Unreadable:
        raise
    except Exception as error:  # noqa: BLE001  # the converters raise whatever a damaged file leads them to
        raise Unreadable(f"{type(error).__name__}: {str(error)[:200]}") from None


def _text(path: Path) -> str:
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable(f"the text is not UTF-8 at byte {error.start}") from None
    if "\x00" in text:
        raise Unreadable("the file is binary")
    return text.replace("\r\n", "\n")


def from_html(text: str) -> str:
    """The main part of a page as Markdown, without what surrounds it."""
    import markdownify
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(text, "html.parser")
    for tag in soup(list(_SKIPPED_TAGS)):
        tag.decompose()
    main = soup.find("main") or soup.find("article") or soup.body or soup
    converted: str = markdownify.markdownify(str(main), heading_style="ATX", bullets="-", strip=["img"])
    return re.sub(r"\n{3,}", "\n\n", converted).strip() + "\n"


def _from_word(path: Path) -> str:
    import mammoth

    with path.open("rb") as file:
        return from_html(mammoth.convert_to_html(file).value)


def _from_pdf(path: Path) -> str:
    import pypdf

    reader = pypdf.PdfReader(path)
    if reader.is_encrypted and not reader.decrypt(""):
        raise Unreadable("the PDF is encrypted")
    pages = [page.extract_text() or "" for page in reader.pages]
    if sum(len(page) for page in pages) < _SCANNED * max(1, len(pages)):
        raise Unreadable("the PDF holds no text (a scan?)")
    return "\n\n".join(_unwrapped(page) for page in pages) + "\n"


def _unwrapped(page: str) -> str:
    """Lines of a page put back into paragraphs; a short line in title case before a longer one becomes a heading."""
    lines = [line.rstrip() for line in page.splitlines()]
    out: list[str] = []
    for place, line in enumerate(lines):
        following = next((other for other in lines[place + 1 :] if other.strip()), "")
        if _looks_like_heading(line.strip(), following.strip()):
            out.append(f"\n## {line.strip()}\n")
        elif re.match(r"\s*(?:[•▪●◦–-]|\d{1,2}[.)])\s+\S", line):
            out.append("\n" + re.sub(r"^\s*[•▪●◦–]", "-", line))
        elif out and out[-1].endswith("-") and line[:1].islower():
            out[-1] = out[-1][:-1] + line
        elif out and line.strip() and out[-1].strip() and not out[-1].startswith("\n##"):
            out[-1] += " " + line.strip()
        else:
            out.append(line)
    return "\n".join(out)


def _looks_like_heading(line: str, following: str) -> bool:
    words = line.split()
    if not 1 <= len(words) <= 10 or len(line) > 80 or line[-1] in ".,;:" or len(following) <= len(line) or not line[0].isupper():
        return False
    return line.endswith("?") or line.isupper() or sum(word[:1].isupper() or word[:1].isdigit() for word in words) >= 0.6 * len(words)
