"""Small SVG drawings as text: learning curves, waveforms, series, point clouds. Colours are CSS variables of the
report's style sheet, so that one drawing serves light and dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup, escape

__all__ = ["COLOURS", "curves", "lines", "number", "scatter", "smooth", "waveform"]

COLOURS = 8  # the style sheet's --c0 .. --c7


def number(value: float) -> str:
    """A number for a path: one decimal, no trailing zero."""
    text = f"{value:.1f}"
    return text[:-2] if text.endswith(".0") else text


def path(xs: Sequence[float] | np.ndarray, ys: Sequence[float] | np.ndarray) -> str:
    """An open polyline through the points."""
    return "M" + "L".join(f"{number(x)} {number(y)}" for x, y in zip(xs, ys, strict=True))


def smooth(values: Sequence[float], share: float = 0.05) -> np.ndarray:
    """Exponential moving average over about `share` of the length, corrected for its start."""
    decay = 1 - 1 / max(1.0, share * len(values))
    total, weight, out = 0.0, 0.0, np.empty(len(values))
    for position, value in enumerate(values):
        total = decay * total + (1 - decay) * value
        weight = decay * weight + (1 - decay)
        out[position] = total / weight
    return out


def curves(series: Mapping[str, tuple[Sequence[float], Sequence[float]]], title: str, clip_id: str) -> Markup:
    """Loss over steps: per name the raw values faint, their smoothed line on top. The first name is drawn in ink.

    The vertical axis is logarithmic where the values span more than a factor of 20, and says so.
    """
    width, height, left, right, top, bottom = 460, 262, 40, 10, 24, 38
    everything = np.concatenate([np.asarray(ys, dtype=float) for _, ys in series.values()])
    low, high = (float(value) for value in np.quantile(everything, [0.0, 0.995]))
    is_log = low > 0 and high / low > 20
    ticks_y = _log_ticks(low, high) if is_log else _ticks(min(low, 0.0) if low < 0.4 * high else low, high)
    low, high = min(low, ticks_y[0]), max(high, ticks_y[-1])
    steps = np.concatenate([np.asarray(xs, dtype=float) for xs, _ in series.values()])
    first, last = float(steps.min()), float(steps.max())

    def at_x(x: float) -> float:
        return left + (width - left - right) * ((x - first) / (last - first) if last > first else 0.5)

    def at_y(y: float) -> float:
        share = math.log(max(y, low) / low) / math.log(high / low) if is_log else (y - low) / (high - low)
        return height - bottom - (height - top - bottom) * share

    out = [
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">',
        f'<clipPath id="{clip_id}"><rect x="{left}" y="{top - 4}" width="{width - left - right + 4}" '
        f'height="{height - top - bottom + 8}"/></clipPath>',
    ]
    for tick in ticks_y:
        y = number(at_y(tick))
        out.append(f'<path class="grid" d="M{left} {y}H{width - right}"/>')
        out.append(f'<text class="tick" x="{left - 7}" y="{y}" dy=".32em" text-anchor="end">{tick:g}</text>')
    for tick in _ticks(first, last, 5):
        if first <= tick <= last:
            x = number(at_x(tick))
            out.append(f'<text class="tick" x="{x}" y="{height - 22}" text-anchor="middle">{tick:g}</text>')
    out.append(f'<path class="axis" d="M{left} {height - bottom}H{width - right}"/>')
    unit = "loss (log)" if is_log else "loss"
    out.append(f'<text class="tick" x="{width - right}" y="{height - 3}" text-anchor="end">step</text>')
    out.append(f'<text class="tick" x="0" y="10">{unit}</text><g clip-path="url(#{clip_id})">')
    drawn = []
    for position, (name, (xs, ys)) in enumerate(series.items()):
        keep = np.unique(np.linspace(0, len(xs) - 1, min(len(xs), 240)).round().astype(int))
        pixels_x = [at_x(xs[k]) for k in keep]
        smoothed = smooth(ys)
        colour = "var(--ink)" if position == 0 else f"var(--c{(position - 1) % COLOURS})"
        dash = ' stroke-dasharray="5 3"' if position > COLOURS else ""
        if position == 0 or len(series) <= 3:
            out.append(f'<path class="raw" style="stroke:{colour}" d="{path(pixels_x, [at_y(ys[k]) for k in keep])}"/>')
        line = path(pixels_x, [at_y(float(smoothed[k])) for k in keep])
        drawn.append(
            f'<path class="line" style="stroke:{colour}"{dash} d="{line}">'
            f"<title>{escape(name)}: {float(smoothed[-1]):.3g} at the end</title></path>"
        )
    return Markup("".join([*out, *reversed(drawn), "</g></svg>"]))


def waveform(samples_S: np.ndarray, duration_s: float) -> Markup:
    """The envelope of a sound: least and greatest sample of each of 180 columns, scaled to the loudest."""
    columns = min(180, len(samples_S))
    edges = np.linspace(0, len(samples_S), columns + 1).astype(int)
    peak = float(np.abs(samples_S).max()) or 1.0
    low = np.minimum.reduceat(samples_S, edges[:-1]) / peak
    high = np.maximum.reduceat(samples_S, edges[:-1]) / peak
    xs = (np.arange(columns) + 0.5) * 240 / columns
    # At least half a unit high, so that silence is a line and not nothing.
    top, bottom = 32 - np.maximum(high * 29, 0.5), 32 - np.minimum(low * 29, -0.5)
    outline = path([*xs, *xs[::-1]], [*top, *bottom[::-1]])
    return Markup(
        f'<svg class="wave" viewBox="0 0 240 64" preserveAspectRatio="none" role="img" '
        f'aria-label="waveform of {duration_s:.1f} seconds"><path d="{outline}Z"/></svg>'
    )


def lines(values_TC: np.ndarray, label: str) -> Markup:
    """Channels over time: on one scale up to six of them, each in a band of its own beyond."""
    steps, channels = values_TC.shape
    keep = np.unique(np.linspace(0, steps - 1, min(steps, 200)).round().astype(int))
    xs = keep * (240 / max(1, steps - 1))
    stacked = channels > 6
    height = 96 if not stacked else min(240, 18 * channels)
    band = height / channels if stacked else float(height)
    out = [f'<svg class="series" viewBox="0 0 240 {number(height)}" role="img" aria-label="{escape(label)}">']
    low, high = float(values_TC.min()), float(values_TC.max())
    if low < 0 < high and not stacked:
        zero = number(4 + (band - 8) * high / (high - low))
        out.append(f'<path class="grid" d="M0 {zero}H240"/>')
    for channel in range(channels):
        values = values_TC[keep, channel].astype(float)
        least, most = (float(values.min()), float(values.max())) if stacked else (low, high)
        pad, offset = (1.5, channel * band) if stacked else (4.0, 0.0)
        span = most - least or 1.0
        ys = offset + pad + (band - 2 * pad) * (most - values) / span
        out.append(f'<path class="line" style="stroke:var(--c{channel % COLOURS})" d="{path(xs, ys)}"/>')
    return Markup("".join([*out, "</svg>"]))


def scatter(xyz_N3: np.ndarray, limit: int = 900) -> Markup:
    """Two views of a point cloud, from the front (x, y) and from above (x, z), nearer points darker.

    More than `limit` points are thinned evenly in the file's order.
    """
    keep = np.unique(np.linspace(0, len(xyz_N3) - 1, min(len(xyz_N3), limit)).round().astype(int))
    points = xyz_N3[keep].astype(float)
    centre = (points.max(axis=0) + points.min(axis=0)) / 2
    scale = 54 / (float(np.abs(points - centre).max()) or 1.0)
    points = (points - centre) * scale
    label = "point cloud from the front and from above"
    out = [f'<svg class="points" viewBox="0 0 240 130" role="img" aria-label="{label}">']
    for x0, across, up, depth, name in ((60, 0, 1, 2, "x, y"), (180, 0, 2, 1, "x, z")):
        shade = np.clip(((points[:, depth] + 54) / 108 * 3).astype(int), 0, 2)
        for level in range(3):
            chosen = points[shade == level]
            dots = "".join(f"M{number(x0 + p[across])} {number(59 - p[up])}h0" for p in chosen)
            if dots:
                out.append(f'<path class="dots d{level}" d="{dots}"/>')
        out.append(f'<text class="tick" x="{x0}" y="127" text-anchor="middle">{name}</text>')
    return Markup("".join([*out, "</svg>"]))


def _ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers that cover low..high."""
    span = high - low
    if span <= 0:
        span = abs(low) or 1.0
        high = low + span
    raw = span / count
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= raw * 0.999)
    start, stop = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 12) for k in range(start, stop + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 of every decade, or the decades alone where there are many."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if math.log10(high / low) < 2.5 else (1,)
    ticks = [round(factor * 10.0**decade, 12) for decade in decades for factor in factors]
    inside = [tick for tick in ticks if low <= tick <= high]
    return inside if len(inside) >= 2 else [ticks[0], ticks[-1]]
