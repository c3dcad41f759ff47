"""Tables in Markdown."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection, Iterable, Sequence

_WIDTH = 100


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], words: Collection[str]) -> list[str]:
    """The lines of a table; columns that `words` names are aligned to the left, the others are numbers."""
    rule = ["---" if name in words else "---:" for name in header]
    return ["| " + " | ".join(row) + " |" for row in (header, rule, *rows)]


_LINK = re.compile(r"\](?=[(\[:])")
_ELEMENT = re.compile(r"<(?![\s\d])")  # "< 2,048" is none
# A word joiner has no width, and ends what would be an address or a mention.
_INSTEAD = (("&", "&amp;"), ("|", "\\|"), ("`", "'"), ("*", "\\*"), ("@", "@\u2060"))
_ADDRESSES = (("://", ":\u2060//"), ("www.", "www\u2060."))


def plain_text(text: str) -> str:
    """Text that a name, a row or an error brought along, without a meaning in Markdown or HTML, or for GitHub: no
    element, no image, no link, no mention.
    """
    text = _LINK.sub(r"\\]", text.replace("\\", "\\\\"))
    for found, instead in (*_INSTEAD, *_ADDRESSES):
        text = text.replace(found, instead)
    text = _ELEMENT.sub("&lt;", text)
    return " ".join(text.split())


def paragraph(text: str) -> str:
    """Prose in lines that an editor and a diff show whole; a renderer joins them."""
    return _wrapped(text, "")


def list_item(text: str) -> str:
    """One item of a list, the same way."""
    return _wrapped(text, "- ")


def _wrapped(text: str, mark: str) -> str:
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=mark,
        subsequent_indent=" " * len(mark),
        break_long_words=False,
        break_on_hyphens=False,
    )
