"""Documents of every kind as Markdown: libraries convert HTML (markdownify), Word (mammoth) and PDF (kreuzberg); this only puts them together.

Spans of characters refer to the Markdown. For ``.md`` and ``.txt`` that is the file itself; for the others the pair says ``converted: true``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

#: A page of a PDF that holds fewer characters is a picture.
_SCANNED = 20
_ANCHORS = ("", "¶", "#", "§", "🔗", "¶§")
_SURROUNDS = re.compile(r"nav|breadcrumb|toc\b|sidebar|menu|footer|header(?!link)|pagination", re.IGNORECASE)
_HEADINGS = ["h1", "h2", "h3", "h4", "h5", "h6", "dt"]
#: More text than this is no navigation, whatever its class is called.
_FURNITURE_CHARACTERS = 1_500
_SKIPPED_TAGS = ("script", "style", "nav", "header", "footer", "aside", "form", "noscript", "svg", "iframe", "template")


class Unreadable(Exception):
    """A document that cannot be converted; the text is the reason, for the rejects file."""


def read(path: Path) -> tuple[str, bool]:
    """(Markdown, whether it was converted). Raises Unreadable with the reason."""
    ending = path.suffix.lower()
    try:
        if ending in (".md", ".markdown", ".txt"):
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
    # A space that keeps words together is a space to every pattern; one character for another, so that spans stay true.
    return text.replace("\r\n", "\n").replace("\xa0", " ")


def from_html(text: str) -> str:
    """The main part of a page as Markdown, without what surrounds it."""
    import markdownify
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(text, "html.parser")
    for tag in soup(list(_SKIPPED_TAGS)):
        tag.decompose()
    for tag in soup.find_all(role="navigation"):
        tag.decompose()
    for tag in soup.find_all(class_=_SURROUNDS):
        # A heading's link back to the table of contents is the heading itself.
        in_heading = tag.name in _HEADINGS or tag.find(_HEADINGS) or tag.find_parent(_HEADINGS)
        if tag.parent is not None and not in_heading and len(tag.get_text()) < _FURNITURE_CHARACTERS:
            tag.decompose()
    for table in soup("table"):
        # A table without a header or a second column of its own is for looks.
        if not table.find("th") and len(table.find_all("tr")) <= 2:
            table.replace_with(*[paragraph for cell in table("td") if (paragraph := _paragraph(soup, cell.get_text(" ").strip()))])
    for link in soup("a"):
        # Links of a heading to itself, and places that other links point to.
        if link.get_text().strip() in _ANCHORS and not link.find("img"):
            link.decompose()
    main = soup.find("main") or soup.find("article") or soup.body or soup
    converted: str = markdownify.markdownify(str(main), heading_style="ATX", bullets="-", strip=["img"])
    without_marks = re.sub(r"\[\]\([^)]*\)", "", converted.replace("\xa0", " "))
    return re.sub(r"\n{3,}", "\n\n", without_marks).strip() + "\n"


def _paragraph(soup: Any, text: str) -> Any:
    """A paragraph of a text, or None for an empty one."""
    if not text:
        return None
    tag = soup.new_tag("p")
    tag.string = text
    return tag


def _from_word(path: Path) -> str:
    import mammoth

    with path.open("rb") as file:
        return from_html(mammoth.convert_to_html(file).value)


def _from_pdf(path: Path) -> str:
    """Text with its headings (by the size of type), lists and tables."""
    import kreuzberg

    found = kreuzberg.extract_file_sync(str(path), config=kreuzberg.ExtractionConfig(output_format="markdown"))
    if len(found.content) < _SCANNED * max(1, int(found.metadata.get("page_count") or 1)):
        raise Unreadable("the PDF holds no text (a scan?)")
    return str(found.content)
