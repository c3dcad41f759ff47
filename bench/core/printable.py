"""Text that anybody may have written, to be shown: a terminal carries out what is in it, a picture cannot have it."""

from __future__ import annotations

import re

# Control characters, and those that turn the direction of text, hide, or end a line.
UNPRINTABLE = r"[\x00-\x1f\x7f-\x9f\x{200b}-\x{200f}\x{2028}-\x{202e}\x{2060}-\x{2069}\x{feff}]"  # as RE2 writes it
_UNPRINTABLE = re.compile(re.sub(r"\\x\{(\w+)\}", r"\\u\1", UNPRINTABLE) + r"|[\ud800-\udfff]")


def printable(text: str, keep: str = "") -> str:
    """`text` with the escapes of Python's `repr` for what cannot be shown, but for the characters of `keep`."""
    return _UNPRINTABLE.sub(lambda found: found[0] if found[0] in keep else _escape(found[0]), text)


def is_printable(text: str, keep: str = "") -> bool:
    """Whether `printable` leaves `text` as it is."""
    return all(found[0] in keep for found in _UNPRINTABLE.finditer(text))


def _escape(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
