"""Pairs from documents of every kind, by their structure, with the place they came from and without what the export left in them."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runners.corpus import citations, documents, extract, markdown
from runners.corpus.sources import Source

GUIDE = """---
category: tax
subject: federal income tax
as_of: 2025
---
# Income tax

## What is the standard deduction?
It is a fixed amount that reduces taxable income for those who do not itemize.[1] It is larger for people of 65 and older.

## Bracket terms
Two rates are often confused with each other when people speak of brackets and taxes.

- **Marginal rate**: the rate on the next dollar of taxable income, and not on all of it.
- **Effective rate:** all tax divided by all income, always below the marginal rate.
  - It includes credits, which lower tax dollar for dollar.

## 3. How to file late
**Extension:** Form 4868 gives six months more to file, but no more time to pay what is owed.

| Form | Used for |
|---|---|
| Form 1040 | Income tax of a person or of a married couple filing together |
| Form 4868 | More time to file the income tax return, asked for by April |

### References
1. Somebody, something, accessed January 1, 2024
"""


def source(**options: Any) -> Source:
    return Source(**({"name": "guides", "kind": "documents", "path": "x", "licence": "MIT"} | options))


def test_a_guide_gives_its_questions_terms_and_rows(tmp_path: Path) -> None:
    file = tmp_path / "anything.md"
    file.write_text(GUIDE)
    rows = [raw.value for raw in extract.rows(file, "anything.md", source())]
    assert {row["question"]: row["answer"].split("\n")[0][:60] for row in rows} == {
        "What is the standard deduction in federal income tax?": "It is a fixed amount that reduces taxable income for those w",
        "What should I know about Bracket terms in federal income tax?": "Two rates are often confused with each other when people spe",
        "What is Marginal rate in federal income tax?": "The rate on the next dollar of taxable income, and not on al",
        "What is Effective rate in federal income tax?": "All tax divided by all income, always below the marginal rat",
        "How do you file late?": "Extension: Form 4868 gives six months more to file, but no m",
        "What is Extension in federal income tax?": "Form 4868 gives six months more to file, but no more time to",
        "What is Form 1040 used for?": "Income tax of a person or of a married couple filing togethe",
        "What is Form 4868 used for?": "More time to file the income tax return, asked for by April",
    }
    for row in rows:
        assert (row["category"], row["as_of"]) == ("tax", 2025)
        start, end = row["origin"]["span"]
        assert GUIDE[start:end].strip()
        assert row["origin"]["heading"][0] == "Income tax"
        assert "[1]" not in row["answer"] and "accessed" not in row["answer"]
    nested = next(row for row in rows if "Effective" in row["question"])
    assert nested["answer"].endswith("- It includes credits, which lower tax dollar for dollar.")


def test_the_category_comes_from_front_matter_source_or_name(tmp_path: Path) -> None:
    text = "## What is a will?\nA will says who receives property after a death, who cares for minor children, and who pays the debts that are left.\n"
    for name, fixed, expected in [("estate.md", None, "estate"), ("estate.md", "tax", "tax"), ("notes.md", None, ""), ("estate/notes.md", None, "estate")]:
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        assert [raw.value["category"] for raw in extract.rows(file, name, source(category=fixed))] == [expected]


@pytest.mark.parametrize(
    ("written", "left"),
    [
        ("The fund fell.[12] It rose.", "The fund fell. It rose."),
        ("The fund fell [3, 4]. It rose.", "The fund fell. It rose."),
        ("A note[^a] here.", "A note here."),
        ("A fact.¹² Another.", "A fact. Another."),
        ("The fund fell.12 It rose.13", "The fund fell. It rose."),
        ("the “limit”.4 Next", "the “limit”. Next"),
        ("in (2019).5 Next", "in (2019). Next"),
        ("since 2008.65", "since 2008."),
        ("A rate of 3.12 percent", "A rate of 3.12 percent"),
        ("See No.5 and Sec.12 there", "See No.5 and Sec.12 there"),
        ("Version MX.3 of it", "Version MX.3 of it"),
        ("ASN.1 values and the limit.4 Next", "ASN.1 values and the limit. Next"),
        ("x² + y³ = z", "x² + y³ = z"),
        ("a [link](https://x.org) and [1](https://y.org)", "a [link](https://x.org) and [1](https://y.org)"),
        ("costs $1,250.75 now", "costs $1,250.75 now"),
        ("a number beyond the list.99", "a number beyond the list.99"),
        ("done (see above).7", "done (see above)."),
    ],
)
def test_citation_marks_go_and_figures_stay(written: str, left: str) -> None:
    assert citations.without(written, largest=90) == left


def test_bare_numbers_are_marks_only_where_a_document_has_several() -> None:
    assert citations.largest_citation("The price was set.12 It is done.") == 0
    assert citations.largest_citation("One.1 Two.2 Three.3\n\n## Works cited\n\n1. A\n2. B\n3. C\n44. D") == 44


def test_spans_are_exact() -> None:
    for block in markdown.blocks(GUIDE, markdown.front_matter(GUIDE)[1]):
        piece = GUIDE[block.start : block.end]
        assert piece == piece.strip("\n")
        assert block.text.split("\n")[0].strip("*# ") in piece


HTML = """<html><head><title>x</title><script>alert(1)</script></head><body><nav><a href="/">Home</a> Skip to content</nav>
<main><h1>Bonds</h1><h2>What is a coupon?</h2><p>The coupon is the interest that a bond pays, usually <b>twice a year</b>, on its face value.</p>
<ul><li><strong>Par:</strong> the face value that is paid back when the bond matures.</li></ul></main><footer>All rights reserved</footer></body></html>"""


def test_html_is_read_without_what_surrounds_it(tmp_path: Path) -> None:
    (tmp_path / "bonds.html").write_text(HTML)
    rows = [raw.value for raw in extract.rows(tmp_path / "bonds.html", "bonds.html", source(category="investing"))]
    assert [row["question"] for row in rows] == ["What is a coupon?", "What is Par in Bonds?"]
    assert all("rights reserved" not in row["answer"] and "alert" not in row["answer"] for row in rows)
    assert all(row["origin"]["converted"] for row in rows)


def word_document(path: Path) -> None:
    """The smallest Word document with a heading and two paragraphs."""
    body = (
        '<w:p><w:pPr><w:pStyle w:val="Heading1"/></w:pPr><w:r><w:t>What is an escrow account?</w:t></w:r></w:p>'
        "<w:p><w:r><w:t>An escrow account holds money for taxes and insurance, and the lender pays them from it when they fall due.</w:t></w:r></w:p>"
    )
    schemas = "http://schemas.openxmlformats.org"
    space = f'xmlns:w="{schemas}/wordprocessingml/2006/main"'
    links = f'<?xml version="1.0"?><Relationships xmlns="{schemas}/package/2006/relationships"><Relationship Id="r1" '
    links += f'Type="{schemas}/officeDocument/2006/relationships'
    types = "application/vnd.openxmlformats"
    parts = {
        "[Content_Types].xml": f'<?xml version="1.0"?><Types xmlns="{schemas}/package/2006/content-types"><Default Extension="rels" ContentType="{types}-'
        f'package.relationships+xml"/><Default Extension="xml" ContentType="application/xml"/><Override PartName="/word/document.xml" ContentType="{types}-'
        'officedocument.wordprocessingml.document.main+xml"/></Types>',
        "_rels/.rels": f'{links}/officeDocument" Target="word/document.xml"/></Relationships>',
        "word/document.xml": f'<?xml version="1.0"?><w:document {space}><w:body>{body}</w:body></w:document>',
        "word/styles.xml": f'<?xml version="1.0"?><w:styles {space}><w:style w:type="paragraph" w:styleId="Heading1"><w:name w:val="heading 1"/>'
        "</w:style></w:styles>",
        "word/_rels/document.xml.rels": f'{links}/styles" Target="styles.xml"/></Relationships>',
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in parts.items():
            archive.writestr(name, text)


def pdf_document(path: Path, lines: list[str]) -> None:
    """The smallest PDF that shows some lines; one that begins with # is set larger."""
    sized = [f"/F1 {18 if line.startswith('#') else 11} Tf ({line.lstrip('# ')}) Tj T*" for line in lines]
    shown = "BT /F1 11 Tf 72 720 Td 18 TL " + " ".join(sized) + " ET"
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>",
        f"<< /Length {len(shown)} >>\nstream\n{shown}\nendstream",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    out, places = b"%PDF-1.4\n", []
    for number, text in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n{text}\nendobj\n".encode()
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    path.write_bytes(out + f"xref\n0 6\n0000000000 65535 f \n{table}trailer << /Size 6 /Root 1 0 R >>\nstartxref\n{len(out)}\n%%EOF\n".encode())


def test_word_and_pdf_are_read(tmp_path: Path) -> None:
    word_document(tmp_path / "a.docx")
    lines = [
        "# What is an index fund?",
        "An index fund holds the shares of an index such as the S&P 500 at",
        "low cost, and follows it without choosing among them.",
        "# What is a bond fund?",
        "A bond fund holds many bonds and pays their interest out each month to",
        "the people who own its shares, and its price falls when rates rise.",
    ]
    pdf_document(tmp_path / "b.pdf", lines)
    word = [raw.value for raw in extract.rows(tmp_path / "a.docx", "a.docx", source(category="credit"))]
    assert [(row["question"], row["answer"][:26]) for row in word] == [("What is an escrow account?", "An escrow account holds mo")]
    pdf = [raw.value for raw in extract.rows(tmp_path / "b.pdf", "b.pdf", source(category="investing"))]
    assert [(row["question"], row["answer"]) for row in pdf] == [
        (lines[0].lstrip("# "), f"{lines[1]} {lines[2]}"),
        (lines[3].lstrip("# "), f"{lines[4]} {lines[5]}"),
    ]


@pytest.mark.parametrize("name", ["x.pdf", "x.docx", "x.html", "x.md", "x.txt"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300))
def test_garbage_is_a_reject_and_never_an_error(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    for raw in extract.rows(tmp_path / name, name, source()):
        assert raw.error or raw.value["question"]


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.sampled_from("#*-_|:[]()^ \n\t.1aB`>?\\$é"), max_size=300))
def test_any_markdown_is_taken_apart_within_its_bounds(text: str) -> None:
    for one in extract.pairs(text):
        assert 0 <= one.start <= one.end <= len(text)
    ends = [(block.start, block.end) for block in markdown.blocks(text)]
    assert ends == sorted(ends)


def test_a_damaged_document_says_why(tmp_path: Path) -> None:
    pdf_document(tmp_path / "scan.pdf", [])
    with pytest.raises(documents.Unreadable, match="no text"):
        documents.read(tmp_path / "scan.pdf")
    (tmp_path / "latin.md").write_bytes("café".encode("latin-1"))
    with pytest.raises(documents.Unreadable, match="not UTF-8 at byte 3"):
        documents.read(tmp_path / "latin.md")


def test_the_ground_of_a_section_is_its_last_paragraph_and_no_part_of_its_answer(tmp_path: Path) -> None:
    """A guide's front matter speaks for all of it; a section that names its own source is not held to the common one."""
    file = tmp_path / "guide.md"
    file.write_text(
        "---\ncategory: tax\nreference: the common ground\n---\n# Guide\n\n"
        "## What is a wash sale?\nA sale at a loss with a purchase of the same security within 30 days before or after it.\n\n"
        "Source: Internal Revenue Code section 1091;\nIRS Publication 550.\n\n"
        "## Terms\n- **Basis**: what was paid for a thing, with later adjustments.\n- **Gain**: what the sale brought in money above the basis of it.\n\n"
        "**Sources:** IRS Publication 551\n\n"
        "## What is a bracket?\nA layer of income that is taxed at one rate. Source: the sentence goes on in its paragraph.\n"
    )
    found = {raw.value["question"]: raw.value for raw in extract.rows(file, "guide.md", source()) if raw.error is None}
    assert {question: row["reference"] for question, row in found.items()} == {
        "What is a wash sale?": "Internal Revenue Code section 1091; IRS Publication 550",
        "What is Basis?": "IRS Publication 551",
        "What is Gain?": "IRS Publication 551",
        "What is a bracket?": "the common ground",
    }
    assert [question for question, row in found.items() if "Source" in row["answer"]] == ["What is a bracket?"]


def test_the_word_before_an_answer_is_no_part_of_it_nor_are_comments() -> None:
    answer = "<!-- added: v2 -->\n**Answer:** Yes, each has its own limit, and [the bank][] reports both of them every year to [the tax office][1]."
    found = extract.pairs(f"# Questions\n\n## F.2 Can I keep two accounts?\n\n{answer}\n")
    assert [(one.question, one.answer) for one in found] == [
        ("Can I keep two accounts?", "Yes, each has its own limit, and the bank reports both of them every year to the tax office.")
    ]
