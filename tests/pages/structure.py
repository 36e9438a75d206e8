"""Reads an HTML page as a browser and a screen reader would, and checks what every page has to have."""

import dataclasses
import html.parser
import itertools
import json
import re
from typing import Any

VOID = {"meta", "link", "img", "br", "input", "hr"}
PAGE = re.compile(r"(?!/|[a-z]+:)[^?#]*\.html")  # another page, by a path relative to this one
SELF_CLOSING = {"path", "circle"}  # inside SVG
# Names that would be obeyed where a page does not escape them.
HOSTILE = (
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "</title></style><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "' onmouseover='alert(1)",
    "{{ 7 * 7 }}{% for %}",
    "<!-- ",
    "line\nbreak\ttab",
    "&amp; &lt;",
    "Überraschung 합성곱 🙂",
)


@dataclasses.dataclass
class Element:
    """An element of a page: its tag, attributes, own text with that of its children, and the tags around it."""

    tag: str
    attributes: dict[str, str | None]
    path: tuple[str, ...]
    text: str = ""

    def __getitem__(self, name: str) -> str:
        return self.attributes[name] or ""


class Document(html.parser.HTMLParser):
    """A page: all its elements, in order. Raises AssertionError where tags do not match."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self._texts: list[str] = []
        self._starts: list[int] = []  # in _texts, of the open elements
        self.feed(content)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs), tuple(outer.tag for outer in self._open))
        assert len(element.attributes) == len(attrs), f"an attribute twice: {tag} {attrs}"
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)
            self._starts.append(len(self._texts))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in SELF_CLOSING
        self.elements.append(Element(tag, dict(attrs), tuple(outer.tag for outer in self._open)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        element = self._open.pop()
        assert element.tag == tag, f"</{tag}> closes another element"
        element.text = "".join(self._texts[self._starts.pop() :])

    def handle_data(self, data: str) -> None:
        self._texts.append(data)

    def all(self, tag: str, **attributes: str) -> list[Element]:
        """Returns the elements of a tag, with these attributes."""
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}.items()
        return [each for each in self.elements if each.tag == tag and wanted <= each.attributes.items()]

    def charts(self) -> dict[str, Any]:
        """Returns the data of the page's charts, by title."""
        titles = {heading["id"]: heading.text for heading in self.all("h3") if "id" in heading.attributes}
        found = self.all("script", type="application/json")
        return {titles[each["id"].removesuffix("-data")]: json.loads(each.text) for each in found}


def check(content: str, lang: str = "en") -> Document:
    """Checks that a page is whole, legible to a screen reader, and requests nothing. Returns it parsed."""
    page = Document(content)
    assert content.startswith("<!doctype html>")
    assert [each["lang"] for each in page.all("html")] == [lang]
    assert page.all("title")[0].text.strip()
    assert all(len(page.all(tag)) == 1 for tag in ("h1", "main", "nav", "header", "footer"))
    (policy,) = (each["content"] for each in page.all("meta", **{"http-equiv": "Content-Security-Policy"}))
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"

    ids = [each["id"] for each in page.elements if "id" in each.attributes]
    assert len(ids) == len(set(ids))
    links = [each["href"] for each in page.all("a")]
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    levels = [int(each.tag[1]) for each in page.elements if re.fullmatch("h[1-6]", each.tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels)), levels
    assert all(each["alt"].strip() and each["src"].startswith("data:image/") for each in page.all("img"))
    assert all(each["scope"] in ("row", "col") for each in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))

    addresses = [each[name] for each in page.elements for name in ("src", "href", "data") if name in each.attributes]
    assert all(address.startswith(("data:", "#")) or PAGE.fullmatch(address) for address in addresses)
    assert not re.search(r"url\(|@import", "".join(each.text for each in page.all("style")))
    assert not [name for each in page.elements for name in each.attributes if name.startswith("on")]
    return page
