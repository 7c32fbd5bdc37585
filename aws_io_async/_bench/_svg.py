"""Pieces of SVG, with colours for light and for dark surroundings."""

from collections.abc import Sequence
from html import escape

WIDTH = 760
LIGHT = ["#c2410c", "#1d4ed8", "#52525b", "#15803d", "#7e22ce", "#0e7490", "#be185d"]
DARK = ["#fb923c", "#60a5fa", "#a1a1aa", "#4ade80", "#c084fc", "#22d3ee", "#f472b6"]
STYLES = len(LIGHT)
"""How many different markers and colours there are."""


def _rules(colours: Sequence[str], text: str, dim: str, lines: str, ground: str) -> str:
    return "".join(
        [
            f".ground{{fill:{ground}}}text{{fill:{text}}}.dim{{fill:{dim}}}.rule{{stroke:{lines}}}",
            f".axis{{stroke:{dim}}}",
            *(f".f{n}{{fill:{c}}}.s{n}{{stroke:{c}}}" for n, c in enumerate(colours)),
        ]
    )


_STYLE = (
    "text{font:12px system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}"
    ".title{font-weight:600;font-size:15px}.end{text-anchor:end}.middle{text-anchor:middle}"
    ".line{fill:none;stroke-width:2}.dashed{stroke-dasharray:3 4}"
    + _rules(LIGHT, "#18181b", "#52525b", "#d4d4d8", "#ffffff")
    + "@media (prefers-color-scheme:dark){"
    + _rules(DARK, "#f4f4f5", "#a1a1aa", "#3f3f46", "#18181b")
    + "}"
)


def document(height: float, title: str, content: Sequence[str]) -> str:
    """A file: a card of its own ground, so that it can be read on any page."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" '
        f'width="{WIDTH}" height="{height:g}" role="img">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n"
        f'<rect class="ground" width="{WIDTH}" height="{height:g}" rx="8"/>\n'
        + "\n".join(content)
        + "\n</svg>\n"
    )


def text(x: float, y: float, words: str, style: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}"{_class(style)}>{escape(words)}</text>'


def rule(x1: float, y1: float, x2: float, y2: float, style: str = "rule") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"{_class(style)}/>'


def bar(x: float, y: float, width: float, height: float, style: int) -> str:
    return (
        f'<rect class="f{style}" x="{x:.1f}" y="{y:.1f}" width="{max(width, 1):.1f}" '
        f'height="{height:g}" rx="2"/>'
    )


def path(points: Sequence[tuple[float, float]], style: int, dashed: bool = False) -> str:
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline class="line s{style}{" dashed" if dashed else ""}" points="{line}"/>'


_CORNERS: dict[int, list[tuple[float, float]]] = {
    1: [(-4.5, -4.5), (4.5, -4.5), (4.5, 4.5), (-4.5, 4.5)],
    2: [(0, -6), (6, 0), (0, 6), (-6, 0)],
    3: [(0, -5.5), (5.5, 4.5), (-5.5, 4.5)],
    4: [(0, 5.5), (5.5, -4.5), (-5.5, -4.5)],
    5: [(-2, -6), (2, -6), (2, 6), (-2, 6)],
    6: [(-6, -2), (6, -2), (6, 2), (-6, 2)],
}


def marker(x: float, y: float, style: int) -> str:
    """Every style has a shape of its own, for those to whom the colours look alike."""
    if style == 0:
        return f'<circle class="f0" cx="{x:.1f}" cy="{y:.1f}" r="5.5"/>'
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in _CORNERS[style])
    return f'<polygon class="f{style}" points="{points}"/>'


def _class(style: str) -> str:
    return f' class="{style}"' if style else ""
