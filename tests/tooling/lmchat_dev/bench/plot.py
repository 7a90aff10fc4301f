"""Bars of the run's figures, as an SVG of a page's width."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from lmchat_dev.bench.scenarios import DIRECT, PLAIN
from lmchat_dev.bench.summary import Row

PANELS: Sequence[tuple[str, str, int]] = (
    ("Unary requests a second, 16 callers (more is better)", "requests", 0),
    ("CPU a unary request, ms (less is better)", "cpu_request", 2),
    ("Stream events a second, 16 fast streams (more is better)", "events", 0),
    ("CPU for 1,000 stream events, ms (less is better)", "cpu_events", 1),
)
"""Title, field of Row, decimals."""

WIDTH, LABELS, NUMBERS = 860, 150, 90
BAR, STEP, TITLE, GAP, EDGE = 18, 26, 34, 22, 24

_OURS, _OTHERS = "#1f6feb", "#a8b3c2"
_STYLE = (
    "text{font-family:system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;font-size:13px;fill:#24292f}"
    ".title{font-size:15px;font-weight:600}.small{font-size:11px;fill:#57606a}"
)


def svg(rows: Sequence[Row], caption: str) -> str:
    """The picture, without the targets that only pass bytes on, whose bars would dwarf the others."""
    shown = [row for row in rows if row.target not in (DIRECT, PLAIN)]
    parts: list[str] = []
    top = EDGE
    for title, name, decimals in PANELS:
        figures = [(row.target, value) for row in shown if (value := getattr(row, name)) is not None]
        if figures:
            panel, height = _panel(title, figures, decimals)
            parts.append(f'<g transform="translate({EDGE} {top})">{panel}</g>')
            top += height + GAP
    parts.append(f'<text class="small" x="{EDGE}" y="{top + 4}">{escape(caption)}</text>')
    height = top + EDGE
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}">'
        f'<style>{_STYLE}</style><rect width="100%" height="100%" fill="#ffffff"/>{"".join(parts)}</svg>\n'
    )


def _panel(title: str, figures: Sequence[tuple[str, float]], decimals: int) -> tuple[str, int]:
    """One group of bars, and its height. Bars begin at zero."""
    room = WIDTH - 2 * EDGE - LABELS - NUMBERS
    most = max(value for _, value in figures) or 1.0
    parts = [f'<text class="title" x="0" y="15">{escape(title)}</text>']
    for number, (target, value) in enumerate(figures):
        y = TITLE + number * STEP
        length = max(1.0, room * value / most)
        color = _OURS if target.startswith("lmchat") else _OTHERS
        parts.append(
            f'<text x="{LABELS - 10}" y="{y + 14}" text-anchor="end">{escape(target)}</text>'
            f'<rect x="{LABELS}" y="{y}" width="{length:.1f}" height="{BAR}" rx="2" fill="{color}"/>'
            f'<text x="{LABELS + length + 8:.1f}" y="{y + 14}">{value:,.{decimals}f}</text>'
        )
    bottom = TITLE + len(figures) * STEP
    parts.append(
        f'<line x1="{LABELS}" y1="{TITLE - 5}" x2="{LABELS}" y2="{bottom - 3}" stroke="#8c959f" stroke-width="1"/>'
    )
    return "".join(parts), bottom
