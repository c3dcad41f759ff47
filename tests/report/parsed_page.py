"""A page taken apart: its words, its figures, its table of cases, and whatever could reach out to a network."""

from __future__ import annotations

import json
from collections import Counter
from html.parser import HTMLParser
from typing import Any

_VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """`words`: all that a reader sees, by the `id` of the nearest element that has one; `links`: what is referred to;
    `json`: what scripts of data hold; `scripts`: the code; `tags`: how many there are of each.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.links: list[str] = []
        self.json: list[tuple[str | None, Any]] = []
        self.scripts: list[str] = []
        self.tags: Counter[str] = Counter()
        self.labels: list[str] = []
        self._open: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert not self._open, "an element is not closed"

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    @property
    def figures(self) -> list[dict[str, Any]]:
        return [data for name, data in self.json if name is None]

    @property
    def cases(self) -> list[dict[str, Any]]:
        """The rows of the table of cases, by its columns."""
        (table,) = [data for name, data in self.json if name == "case-rows"]
        titles = [column["title"] for column in table["columns"]]
        return [dict(zip(titles, row, strict=True)) for row in table["rows"]]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.tags[tag] += 1
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "action", "data", "srcset")]
        if named.get("class") == "plot":
            self.labels.append(named["aria-label"] or "")
        if tag not in _VOID:
            self._open.append((tag, named))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        tag, named = self._open[-1] if self._open else ("", {})
        if tag == "script" and named.get("type") == "application/json":
            self.json.append((named.get("id"), json.loads(data)))
        elif tag == "script":
            self.scripts.append(data)
        elif tag != "style":
            self.words.append(data)
