"""What is printed where the output cannot have all characters, as with PYTHONIOENCODING=ascii or a pipe on Windows.

Tables and bars are laid out before they are encoded, so what stands in for a character is as wide as it.
"""

from __future__ import annotations

import codecs
import sys
from io import TextIOWrapper

HANDLER = "vram-bench"
_INSTEAD = dict(
    zip(
        "–—−×·≡±≈µ✓✗→←≥≤»█▓▒■░│━",
        "---x.=~~u+x><><>#%+@.|=",
        strict=True,
    )
)
# With the blank after them they are as wide.
_WITH_BLANK = {"≥": ">=", "≤": "<="}


def fall_back() -> None:
    """From now on standard output and standard error print something readable for what they cannot encode."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors=HANDLER)


def _instead(error: UnicodeError) -> tuple[str, int]:
    """For the first character that cannot be encoded: what stands in for it, and where to go on."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character, at = error.object[error.start], error.start + 1
    followed_by = error.object[at : at + 1]
    if character in _WITH_BLANK and followed_by == " ":
        return _WITH_BLANK[character], at + 1
    if character == "…":  # a sentence, or the end of a cell that was cut
        return "..." if followed_by == " " else "~", at
    if "\u2800" <= character <= "\u28ff":  # the dots that turn while one waits
        return ".", at
    return _INSTEAD.get(character, character.encode("ascii", "backslashreplace").decode()), at


codecs.register_error(HANDLER, _instead)
