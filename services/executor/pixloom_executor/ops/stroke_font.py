"""A small font of our own, drawn with round strokes, so that captions need no font files on the machine.

A glyph is written as its width and its strokes; a stroke is a chain of points, each two hexadecimal digits x and y on a
grid whose unit is an eighth of the height of a capital: y is 0 at the top of capitals, 3 at the top of small letters,
8 on the base line and 11 at the end of descenders. A point given twice is a dot. Letters with accents are drawn without;
other characters without a glyph are drawn as a box.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["GLYPHS", "elided", "line_height", "rendered", "text_width"]

GLYPHS: Final[dict[str, str]] = {
    " ": "2",
    "!": "0 0005 0808",
    '"': "2 0002 2022",
    "#": "5 2018 4038 0353 0555",
    "$": "4 413010010314344547381807 2029",
    "%": "6 100102132221 2110 6008 4546475867655444",
    "&": "5 58131201102031330507182856",
    "'": "0 0002",
    "(": "2 20020729",
    ")": "2 00222709",
    "*": "4 2125 0224 0422",
    "+": "4 0545 2327",
    ",": "1 180a",
    "-": "3 0535",
    ".": "0 0808",
    "/": "4 0940",
    "0": "4 100107183847413010",
    "1": "2 022028",
    "2": "4 01103041430848",
    "3": "4 01103041433414 344547381807",
    "4": "4 38300646",
    "5": "4 40000413334447381807",
    "6": "4 413010010718384745341405",
    "7": "4 004018",
    "8": "4 140301103041433414 140507183847453414",
    "9": "4 071838474130100103143443",
    ":": "0 0404 0808",
    ";": "1 1414 180a",
    "<": "4 430547",
    "=": "4 0444 0646",
    ">": "4 034507",
    "?": "4 01103041422425 2828",
    "@": "7 543424263747565456677572502002072959",
    "A": "6 083068 1555",
    "B": "5 0008 004051534404 4455574808",
    "C": "5 5140100107184857",
    "D": "5 00083856523000",
    "E": "5 50000858 0444",
    "F": "5 500008 0444",
    "G": "5 51401001071848575434",
    "H": "5 0008 5058 0454",
    "I": "0 0008",
    "J": "3 3037281807",
    "K": "5 0008 5005 2358",
    "L": "4 000848",
    "M": "6 0800356068",
    "N": "5 08005850",
    "O": "5 100107184857514010",
    "P": "5 08004051534404",
    "Q": "5 100107184857514010 3659",
    "R": "5 08004051534404 3458",
    "S": "5 514010010314445557481807",
    "T": "6 0060 3038",
    "U": "5 000718485750",
    "V": "6 003860",
    "W": "8 0028416880",
    "X": "5 0058 5008",
    "Y": "6 003460 3438",
    "Z": "5 00500858",
    "[": "2 20000929",
    "\\": "4 0049",
    "]": "2 00202909",
    "^": "4 032043",
    "_": "5 0959",
    "`": "1 0012",
    "a": "4 4348 4433130407183847",
    "b": "4 0008 0413334447381807",
    "c": "4 4433130407183847",
    "d": "4 4048 4433130407183847",
    "e": "4 05454433130407183847",
    "f": "3 30201118 0333",
    "g": "4 43493a1a09 4433130407183847",
    "h": "4 0008 0413334448",
    "i": "0 0308 0101",
    "j": "1 13190a 1111",
    "k": "4 0008 4307 2548",
    "l": "1 000718",
    "m": "6 0308 0413233438 3443536468",
    "n": "4 0308 0413334448",
    "o": "4 130407183847443313",
    "p": "4 030b 0413334447381807",
    "q": "4 434b 4433130407183847",
    "r": "3 0308 05142333",
    "s": "4 4433130415354647381807",
    "t": "3 11172838 0333",
    "u": "4 0307183847 4348",
    "v": "4 032843",
    "w": "6 0328344863",
    "x": "4 0348 4308",
    "y": "4 0328 43281a0a",
    "z": "4 03430848",
    "{": "3 30211405152839",
    "|": "0 0009",
    "}": "3 00112435251809",
    "~": "5 0615244655",
    "\u00b7": "0 0505",
    "\u00d7": "4 0347 4307",
    "\u2013": "5 0555",
    "\u2026": "4 0808 2828 4848",
}
_UNKNOWN: Final = "5 0050580800"
_UNITS: Final = 8  # capital height
_SPACE_BETWEEN: Final = 2.4
_ABOVE: Final = 1.0
_BELOW: Final = 4.0


def line_height(cap_px: float) -> int:
    """Return the height in pixels of a line of text whose capitals are `cap_px` high."""
    return round((_ABOVE + _UNITS + _BELOW) * cap_px / _UNITS)


def text_width(text: str, cap_px: float) -> int:
    """Return the width in pixels of a line of text."""
    return sum(_glyph(character, cap_px)[0] for character in _drawable(text))


def elided(text: str, cap_px: float, width_px: int) -> str:
    """Return the text, shortened in the middle so that it is at most `width_px` wide."""
    if text_width(text, cap_px) <= width_px:
        return text
    for kept in range(len(text) - 1, 0, -1):
        head, tail = (kept + 1) // 2, kept // 2
        shortened = f"{text[:head]}\u2026{text[len(text) - tail :] if tail else ''}"
        if text_width(shortened, cap_px) <= width_px:
            return shortened
    return ""


def rendered(text: str, cap_px: float) -> NDArray[np.float64]:
    """Return how much of each pixel a line of text covers, 0 to 1, height x width.

    Args:
        text: The line.
        cap_px: Height of capitals in pixels.
    """
    import numpy as np

    glyphs = [_glyph(character, cap_px) for character in _drawable(text)]
    line = np.zeros((line_height(cap_px), max(1, sum(advance for advance, _ in glyphs))))
    left = 0
    for advance, coverage in glyphs:
        line[:, left : left + advance] = coverage
        left += advance
    return line


def _drawable(text: str) -> str:
    plain = (part for part in unicodedata.normalize("NFKD", text) if not unicodedata.combining(part))
    return "".join(plain) if any(character not in GLYPHS for character in text) else text


@lru_cache(maxsize=1024)
def _glyph(character: str, cap_px: float) -> tuple[int, NDArray[np.float64]]:
    """Return how far a character advances and the coverage of its pixels."""
    import numpy as np

    width, *strokes = GLYPHS.get(character, _UNKNOWN).split()
    unit = cap_px / _UNITS
    advance = max(1, round((int(width) + _SPACE_BETWEEN) * unit))
    rows, columns = line_height(cap_px), advance
    y, x = np.mgrid[0:rows, 0:columns] + 0.5
    radius = max(0.5, 0.62 * unit)
    nearest = np.full((rows, columns), np.inf)
    left = (advance - int(width) * unit) / 2
    for stroke in strokes:
        points = [
            (int(stroke[at], 16) * unit + left, (int(stroke[at + 1], 16) + _ABOVE) * unit)
            for at in range(0, len(stroke), 2)
        ]
        for start, end in pairwise(points):
            # A dot of the width of a stroke would look faint.
            nearest = np.minimum(nearest, _distance(x, y, start, end) - (0.25 if start == end else 0.0))
    return advance, np.clip(radius + 0.5 - nearest, 0.0, 1.0)


def _distance(
    x: NDArray[np.float64], y: NDArray[np.float64], start: tuple[float, float], end: tuple[float, float]
) -> NDArray[np.float64]:
    """Return the distance of every point to the line from `start` to `end`."""
    import numpy as np

    along_x, along_y = end[0] - start[0], end[1] - start[1]
    length = along_x**2 + along_y**2
    share = np.clip(((x - start[0]) * along_x + (y - start[1]) * along_y) / length, 0.0, 1.0) if length else 0.0
    distance: NDArray[np.float64] = np.hypot(x - start[0] - share * along_x, y - start[1] - share * along_y)
    return distance
