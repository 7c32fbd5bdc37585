"""Draws the diagrams of the documentation: `python docs/diagrams/draw.py`.

Each is a function that returns a drawing of boxes and arrows; its name is the file's.
"""

import itertools
from collections.abc import Sequence
from html import escape
from pathlib import Path

HERE = Path(__file__).parent
WIDTH = 760
LINE = 16

LIGHT = {"ground": "#ffffff", "text": "#18181b", "dim": "#52525b", "rule": "#a1a1aa"}
LIGHT |= {"box": "#f4f4f5", "strong": "#c2410c"}
DARK = {"ground": "#18181b", "text": "#f4f4f5", "dim": "#a1a1aa", "rule": "#71717a"}
DARK |= {"box": "#27272a", "strong": "#fb923c"}

Point = tuple[float, float]


def _style(colors: dict[str, str]) -> str:
    return (
        f".ground{{fill:{colors['ground']}}}text{{fill:{colors['text']}}}"
        f".dim{{fill:{colors['dim']}}}.box{{fill:{colors['box']};stroke:{colors['rule']}}}"
        f".strong{{stroke:{colors['strong']};stroke-width:2}}"
        f".arrow{{fill:none;stroke:{colors['dim']}}}.tip{{fill:{colors['dim']}}}"
    )


STYLE = (
    "text{font:13px system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;text-anchor:middle}"
    ".title{font-weight:600}.dim{font-size:12px}.start{text-anchor:start}"
    ".dashed{stroke-dasharray:4 4}"
    f"{_style(LIGHT)}@media(prefers-color-scheme:dark){{{_style(DARK)}}}"
)


class Drawing:
    """Boxes, arrows and words, from left to right and from the top down."""

    def __init__(self, title: str, height: int) -> None:
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            f'width="{WIDTH}" height="{height}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}</style>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            'markerHeight="7" orient="auto"><path class="tip" d="M0 0 8 4 0 8z"/></marker></defs>',
            f'<rect class="ground" width="{WIDTH}" height="{height}" rx="8"/>',
        ]

    def box(
        self, x: float, y: float, width: float, height: float, *lines: str, strong: bool = False
    ) -> None:
        """A box at its upper left corner; the first line is its title."""
        kind = "box strong" if strong else "box"
        size = f'width="{width}" height="{height}"'
        self._parts.append(f'<rect class="{kind}" x="{x}" y="{y}" {size} rx="6"/>')
        middle = y + height / 2 - (len(lines) - 1) * LINE / 2 + 4.5
        for number, line in enumerate(lines):
            self.text(x + width / 2, middle + number * LINE, line, "dim" if number else "title")

    def text(self, x: float, y: float, words: str, kind: str = "dim") -> None:
        """Words on one line."""
        self._parts.append(f'<text class="{kind}" x="{x}" y="{y}">{escape(words)}</text>')

    def arrow(self, *points: Point, dashed: bool = False) -> None:
        """A line through points, with its tip at the last one."""
        path = "M" + " ".join(f"{x} {y}" for x, y in points)
        kind = "arrow dashed" if dashed else "arrow"
        self._parts.append(f'<path class="{kind}" d="{path}" marker-end="url(#tip)"/>')

    def row(self, y: float, height: float, boxes: Sequence[tuple[str, ...]]) -> list[Point]:
        """Boxes side by side; returns the middles of their upper edges."""
        gap = 50.0
        width = (WIDTH - 40 - gap * (len(boxes) - 1)) / len(boxes)
        lefts = [20 + number * (width + gap) for number in range(len(boxes))]
        for left, lines in zip(lefts, boxes, strict=True):
            self.box(left, y, width, height, *lines)
        return [(left + width / 2, y) for left in lefts]

    def __str__(self) -> str:
        return "\n".join([*self._parts, "</svg>", ""])


def turn() -> Drawing:
    """A turn of the loop."""
    drawing = Drawing("A turn of the loop", 232)
    boxes = drawing.row(
        70,
        92,
        [
            ("1. Poll", "the kernel: which", "descriptors are ready?"),
            ("2. Run", "callbacks that were", "ready when the turn", "began"),
            ("3. Dispatch", "of each ready", "descriptor, at once,", "without a Handle"),
            ("4. Timers", "that are due, in the", "order of their times"),
        ],
    )
    for (left, _), (right, _) in itertools.pairwise(boxes):
        drawing.arrow((left + 71, 116), (right - 71, 116))
    (first, _), (last, _) = boxes[0], boxes[-1]
    drawing.arrow((last, 162), (last, 200), (first, 200), (first, 164))
    drawing.text(WIDTH / 2, 218, "what was added meanwhile waits for the next turn")
    drawing.arrow((first, 36), (first, 68))
    drawing.text(20, 28, "waits for a descriptor, the first timer, or another thread;", "dim start")
    drawing.text(first + 12, 54, "not at all while callbacks are ready", "dim start")
    return drawing


def channel() -> Drawing:
    """Slots, messages and windows."""
    drawing = Drawing("Slots and windows of a channel", 250)
    boxes = drawing.row(
        80,
        70,
        [
            ("socket", "reads no more than", "the window to its right"),
            ("TLS", "decrypts no more than", "the window to its right"),
            ("application", "asks for as much again", "as it has dealt with"),
        ],
    )
    xs = [x for x, _ in boxes]
    for left, right in itertools.pairwise(xs):
        drawing.arrow((left + 104, 98), (right - 104, 98))
        drawing.arrow((right - 104, 132), (left + 104, 132))
    drawing.text(WIDTH / 2, 30, "read direction: send_message(message, READ)  →")
    drawing.text(WIDTH / 2, 50, "each message takes from the window of the slot that it goes to")
    drawing.arrow((xs[2], 152), (xs[2], 182), (xs[1] + 4, 182), (xs[1] + 4, 152), dashed=True)
    drawing.arrow((xs[1] - 4, 152), (xs[1] - 4, 182), (xs[0], 182), (xs[0], 152), dashed=True)
    drawing.text((xs[1] + xs[2]) / 2, 174, "increment_read_window")
    drawing.text((xs[0] + xs[1]) / 2, 174, "increment_read_window")
    drawing.text(
        WIDTH / 2, 206, "saved up, and emitted together when the scarcest window is down to 64 KiB"
    )
    drawing.text(
        WIDTH / 2, 232, "←  write direction: send_message(message, WRITE), slot.write(data)"
    )
    return drawing


def shutdown() -> Drawing:
    """The two phases of a channel's end."""
    drawing = Drawing("Shutdown of a channel", 272)
    drawing.text(20, 34, "1. Read direction, left to right", "title start")
    drawing.text(20, 52, "what was received is delivered first", "dim start")
    drawing.text(20, 164, "2. Write direction, right to left", "title start")
    drawing.text(20, 182, "what was written goes out first", "dim start")
    for y, rightwards in ((64, True), (194, False)):
        names = [("socket",), ("TLS",), ("application",)]
        xs = [x for x, _ in drawing.row(y, 40, names)]
        for left, right in itertools.pairwise(xs):
            tip = (right - 104, y + 20) if rightwards else (left + 104, y + 20)
            tail = (left + 104, y + 20) if rightwards else (right - 104, y + 20)
            drawing.arrow(tail, tip)
    drawing.arrow((xs[2], 104), (xs[2], 192))
    drawing.text(xs[2] - 60, 152, "a turn of the loop")
    drawing.text(xs[0], 256, "closes the descriptor")
    drawing.text(xs[1], 256, "says close_notify")
    return drawing


def tls() -> Drawing:
    """The states of the TLS engine."""
    drawing = Drawing("States of a TLS connection", 250)
    drawing.box(20, 95, 130, 50, "HANDSHAKE", "writes are kept")
    drawing.box(215, 95, 130, 50, "OPEN", "plaintext both ways", strong=True)
    drawing.box(415, 30, 150, 50, "PEER_CLOSED", "we still may write")
    drawing.box(415, 160, 150, 50, "SHUTTING_DOWN", "input is discarded")
    drawing.box(635, 95, 105, 50, "CLOSED")
    drawing.arrow((150, 120), (213, 120))
    drawing.arrow((345, 112), (380, 112), (380, 55), (413, 55))
    drawing.arrow((345, 128), (380, 128), (380, 185), (413, 185))
    drawing.arrow((565, 55), (687, 55), (687, 93))
    drawing.arrow((565, 185), (687, 185), (687, 147))
    drawing.text(350, 44, "the peer closes")
    drawing.text(372, 206, "we close")
    drawing.text(630, 45, "we close")
    drawing.text(640, 204, "the peer says so too")
    drawing.text(
        20,
        238,
        "From each of them but CLOSED to FAILED, when OpenSSL gives the connection up.",
        "dim start",
    )
    return drawing


def engine() -> Drawing:
    """Who has a TLS engine, and what goes in and comes out."""
    drawing = Drawing("One TLS engine", 216)
    drawing.box(260, 24, 240, 96, "TLS engine", "bytes in, bytes out", "no I/O", strong=True)
    drawing.arrow((232, 50), (258, 50))
    drawing.text(128, 54, "bytes from the network")
    drawing.arrow((258, 94), (232, 94))
    drawing.text(128, 98, "bytes for the network")
    drawing.arrow((502, 42), (528, 42))
    drawing.text(536, 46, "plaintext, as much as is asked for", "dim start")
    drawing.arrow((502, 72), (528, 72))
    drawing.text(536, 76, "handshake done, closed, failed", "dim start")
    drawing.arrow((528, 102), (502, 102))
    drawing.text(536, 106, "plaintext to send", "dim start")
    drawing.box(60, 150, 290, 46, "the loop's TLS transport", "create_connection(ssl=…), start_tls")
    drawing.box(410, 150, 290, 46, "the channel's TLS handler", "TlsChannelHandler")
    drawing.arrow((300, 150), (300, 122), dashed=True)
    drawing.arrow((460, 150), (460, 122), dashed=True)
    return drawing


def resolver() -> Drawing:
    """What becomes of an address, and of an entry of the cache."""
    drawing = Drawing("An address of a host, and the host's entry in the cache", 330)
    drawing.text(20, 30, "An address", "title start")
    drawing.box(215, 60, 150, 56, "good", "given out in turn", strong=True)
    drawing.box(520, 60, 150, 56, "failed", "not given out")
    drawing.arrow((60, 88), (213, 88))
    drawing.text(130, 80, "an answer of DNS")
    drawing.arrow((365, 76), (518, 76))
    drawing.text(442, 66, "a connection failed")
    drawing.arrow((518, 102), (367, 102))
    drawing.text(442, 122, "no good one is left")
    drawing.arrow((290, 116), (290, 158))
    drawing.arrow((595, 116), (595, 158))
    drawing.text(290, 174, "forgotten when it expires: the last one not during an outage")
    drawing.text(595, 174, "forgotten when it expires")
    drawing.text(20, 216, "A host's entry", "title start")
    drawing.box(60, 244, 110, 44, "IDLE", strong=True)
    drawing.box(270, 244, 110, 44, "QUEUED")
    drawing.box(480, 244, 110, 44, "QUERYING")
    drawing.box(640, 244, 100, 44, "ENDED")
    drawing.arrow((170, 266), (268, 266))
    drawing.text(220, 258, "somebody asks")
    drawing.arrow((380, 266), (478, 266))
    drawing.text(430, 258, "a thread is free")
    drawing.arrow((520, 288), (520, 312), (115, 312), (115, 290))
    drawing.text(318, 304, "answered or failed")
    drawing.arrow((150, 244), (150, 226), (690, 226), (690, 242), dashed=True)
    drawing.text(420, 220, "nobody asks any more")
    return drawing


DIAGRAMS = {each.__name__: each for each in (turn, channel, shutdown, tls, engine, resolver)}

if __name__ == "__main__":
    for name, draw in DIAGRAMS.items():
        (HERE / f"{name}.svg").write_text(f"{draw()}")
