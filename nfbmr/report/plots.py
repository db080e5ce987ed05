"""Small charts as inline SVG, in the page's own colours (CSS classes), without scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from numpy.typing import ArrayLike, NDArray

WIDTH, HEIGHT = 340, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 10, 10, 32


def _x(share: float) -> float:
    return _LEFT + share * (WIDTH - _LEFT - _RIGHT)


def _y(share: float) -> float:
    return HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)


def _frame(
    body: str, label: str, x_title: str, x_ticks: Sequence[str], y_ticks: Sequence[str]
) -> str:
    """A chart with axes; ticks spread evenly from end to end."""
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">',
        f'<path class="axis" d="M{_x(0):.1f} {_y(1):.1f}V{_y(0):.1f}H{_x(1):.1f}"/>',
    ]
    for index, text in enumerate(x_ticks):
        at = index / max(1, len(x_ticks) - 1)
        anchor = (
            ("start", "end")[index == len(x_ticks) - 1]
            if index in (0, len(x_ticks) - 1)
            else "middle"
        )
        place = f'x="{_x(at):.1f}" y="{_y(0) + 13:.1f}" text-anchor="{anchor}"'
        parts.append(f"<text {place}>{escape(text)}</text>")
    for index, text in enumerate(y_ticks):
        at = index / max(1, len(y_ticks) - 1)
        parts.append(
            f'<text x="{_LEFT - 4}" y="{_y(at) + 3:.1f}" text-anchor="end">{escape(text)}</text>'
        )
    parts.append(
        f'<text x="{_x(0.5):.1f}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x_title)}</text>'
    )
    return "".join([*parts, body, "</svg>"])


def histogram(groups: Mapping[str, ArrayLike], threshold: float | None, bins: int = 30) -> str:
    """Overlaid histograms of scores, each as the share of its group.

    The axis is logarithmic where all scores are positive: those of defects are often a thousand
    times the threshold.

    Args:
        groups: scores by CSS class: ``normal``, ``defective`` or ``all``.
        threshold: drawn as a line.
        bins: how many bars.
    """
    values = {name: np.asarray(scores, dtype=np.float64) for name, scores in groups.items()}
    values = {name: scores for name, scores in values.items() if scores.size}
    if not values:
        return ""
    together = np.concatenate([*values.values(), [threshold] if threshold is not None else []])
    low, high = float(together.min()), float(together.max())
    high = high if high > low else low + 1.0
    spread = np.geomspace if low > 0 else np.linspace
    edges = spread(low, high, bins + 1)
    shares = {n: np.histogram(s, edges)[0] / s.size for n, s in values.items()}
    tallest = max(float(share.max()) for share in shares.values())
    body = ""
    for name, share in shares.items():
        points = "".join(
            f"H{_x(i / bins):.1f}V{_y(h / tallest):.1f}H{_x((i + 1) / bins):.1f}"
            for i, h in enumerate(share)
        )
        body += f'<path class="bar {name}" d="M{_x(0):.1f} {_y(0):.1f}{points}V{_y(0):.1f}Z"/>'
    if threshold is not None:
        at = _x(float(np.interp(threshold, edges, np.linspace(0, 1, bins + 1))))
        body += f'<path class="threshold" d="M{at:.1f} {_y(0):.1f}V{_y(1):.1f}"/>'
    ticks = [f"{value:.3g}" for value in spread(low, high, 3)]
    return _frame(body, "histogram of image scores", "image score", ticks, ["0", f"{tallest:.0%}"])


def roc(false_positive_rate: ArrayLike, true_positive_rate: ArrayLike, auroc: float) -> str:
    """A ROC curve with the diagonal."""
    curve = _polyline(np.asarray(false_positive_rate), np.asarray(true_positive_rate))
    diagonal = f'<path class="diagonal" d="M{_x(0)} {_y(0)}L{_x(1)} {_y(1)}"/>'
    body = f'{diagonal}<path class="line defective" d="{curve}"/>'
    body += (
        f'<text x="{_x(0.97):.1f}" y="{_y(0.08):.1f}" text-anchor="end">AUROC {auroc:.3f}</text>'
    )
    return _frame(
        body, f"ROC curve, AUROC {auroc:.3f}", "false-alarm rate", ["0", "0.5", "1"], ["0", "1"]
    )


def losses(curves: Mapping[str, Sequence[float]]) -> str:
    """Losses over the epochs, each scaled to its own range; the legend has first and last value."""
    body, legend = "", []
    longest = 1
    for index, (name, values) in enumerate(curves.items()):
        numbers = np.asarray(values, dtype=np.float64)
        if numbers.size < 2:
            continue
        longest = max(longest, numbers.size)
        span = max(float(np.ptp(numbers)), 1e-12)
        curve = _polyline(np.linspace(0, 1, numbers.size), (numbers - numbers.min()) / span)
        body += f'<path class="line loss{index % 3}" d="{curve}"/>'
        legend.append(f"{name}: {numbers[0]:.3g} to {numbers[-1]:.3g}")
    for index, text in enumerate(legend):
        y = _y(1) + 12 + 13 * index
        place = f'x="{_x(1):.1f}" y="{y:.1f}" text-anchor="end"'
        body += f'<text class="loss{index % 3}" {place}>{escape(text)}</text>'
    return _frame(body, "losses per epoch", "epoch", ["1", str(longest)], ["low", "high"])


def _polyline(x: NDArray[np.floating], y: NDArray[np.floating]) -> str:
    points = [f"{_x(float(a)):.1f} {_y(float(b)):.1f}" for a, b in zip(x, y, strict=True)]
    return "M" + "L".join(points)
