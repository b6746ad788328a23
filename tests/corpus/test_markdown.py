"""Markdown and pages as people write them: what is a heading, a table, a fence, and what is no part of an answer."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from runners.corpus import documents, extract, markdown

PASTED = """Income tax
==========

What is a bracket?
------------------
A bracket is a range of taxable income that is taxed at one rate.

~~~python
# not a heading
| not | a table |
~~~

Form | Used for
---|---
1040 | Income tax of a person
4868 | More time to file

A sentence that a chat closed with a rule below it, without an empty line, as they do.
---
• first point
• second point
"""


def test_underlined_headings_tilde_fences_and_tables_without_outer_pipes() -> None:
    found = [(block.kind, block.text.split("\n")[0], PASTED[block.start : block.end].split("\n")[0]) for block in markdown.blocks(PASTED)]
    assert found == [
        ("heading", "Income tax", "Income tax"),
        ("heading", "What is a bracket?", "What is a bracket?"),
        ("paragraph", "A bracket is a range of taxable income that is taxed at one rate.", "A bracket is a range of taxable income that is taxed at one rate."),
        ("code", "~~~python", "~~~python"),
        ("table", "Form | Used for", "Form | Used for"),
        ("paragraph", *[PASTED.split("\n")[17]] * 2),
        ("item", "first point", "• first point"),
        ("item", "second point", "• second point"),
    ]
    assert [section.path for section in markdown.sections(PASTED)] == [("Income tax",), ("Income tax", "What is a bracket?")]
    assert markdown.table_rows(next(b.text for b in markdown.blocks(PASTED) if b.kind == "table"))[1] == [
        ["1040", "Income tax of a person"],
        ["4868", "More time to file"],
    ]


@given(st.text(alphabet="ab #*-=~|`>\n\r\t1.•_", max_size=200))
def test_blocks_are_pieces_of_the_text_in_order(text: str) -> None:
    found = list(markdown.blocks(text))
    assert all(0 <= block.start <= block.end <= len(text) for block in found)
    assert all(a.end <= b.start for a, b in itertools.pairwise(found))


def test_navigation_layout_and_marks_of_a_page_are_no_part_of_an_answer() -> None:
    page = (
        "<body><div class='navheader'>Next: Chapter 2. Funds</div><h2>What is a bond?<a class='headerlink' href='#b'>¶</a></h2>"
        "<p>A bond is a loan\xa0to a company that pays interest until it is repaid.<a id='x'></a><a href='#ftn1'></a></p>"
        "<table><tr><td></td><td>Tip</td></tr><tr><td colspan=2>A ladder of bonds spreads the risk of rates over years.</td></tr></table>"
        "<table class='navfooter'><tr><td>Prev</td><td>Up</td><td>Next</td></tr></table></body>"
    )
    found = extract.pairs(documents.from_html(page))
    assert [one.question for one in found] == ["What is a bond?"]
    assert found[0].answer.splitlines()[0] == "A bond is a loan to a company that pays interest until it is repaid."
    assert found[0].answer.endswith("repaid.\n\nA ladder of bonds spreads the risk of rates over years.")


NUMBERED = """2.7. Alias menu

The alias menu helps you to find the recipients of a message.

Example 3.11. Header weeding

# Everything but the sender
ignore *

12.3.1 Ordering the headers

The order is that in which they are listed.

1.5 Million readers is what the paper claims.
"""


def test_plain_text_that_numbers_its_headings_has_them_and_its_comments_are_none() -> None:
    titles = [(block.text, block.level) for block in markdown.blocks(NUMBERED) if block.kind == "heading"]
    assert titles == [("2.7. Alias menu", 2), ("12.3.1 Ordering the headers", 3)]
    assert [section.title for section in markdown.sections("# Title\n\n1.1. Alone\n\n# More\n")] == ["Title", "Alone", "More"]


def test_the_number_of_a_question_is_no_part_of_it() -> None:
    numbered = "# FAQ\n\n## (FAQ 2d) Does it work behind a router?\n\nYes.\n\n## Q (quick) answers\n\n## 12. - Rewriting\n"
    assert [section.title for section in markdown.sections(numbered)] == ["FAQ", "Does it work behind a router?", "Q (quick) answers", "Rewriting"]
