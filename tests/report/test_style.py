"""Colours that stay apart for readers who see fewer of them."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from bench.report.colours import CACHE_COLOURS
from bench.report.html.figures import COLOURS
from bench.report.tables.parts import KIND_COLOURS as PART_COLOURS

# What the eye without long or medium cones sees, over linear RGB: Viénot, Brettel and Mollon (1999).
SEEN_BY = {
    "trichromats": np.eye(3),
    "protanopes": np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]]),
    "deuteranopes": np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]]),
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])  # sRGB, D65
FAR_APART = 15  # CIE76; 2.3 is just noticeable, and no four of the palette are much further apart than this


def lab(colour: str, seen_by: str) -> NDArray[np.float64]:
    """CIELAB of a colour as it is seen."""
    linear = ((np.array(to_rgb(colour)) + 0.055) / 1.055) ** 2.4
    x, y, z = np.cbrt(XYZ @ (SEEN_BY[seen_by] @ linear).clip(0, 1) / XYZ.sum(axis=1))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("seen_by", SEEN_BY)
@pytest.mark.parametrize(
    "colours",
    [CACHE_COLOURS, PART_COLOURS, {colour: colour for colour in COLOURS}],
    ids=["caches", "parts", "page"],
)
def test_no_two_colours_look_alike(colours: dict[str, str], seen_by: str) -> None:
    distances = {
        (one, other): np.linalg.norm(lab(colours[one], seen_by) - lab(colours[other], seen_by))
        for one, other in combinations(colours, 2)
    }
    assert min(distances.values()) > FAR_APART, min(distances, key=lambda pair: distances[pair])
