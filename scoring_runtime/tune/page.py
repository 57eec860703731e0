"""What was found, for people: a table for the terminal, a plot, and a page that holds both and needs nothing else. Pure."""

from collections.abc import Sequence
from html import escape

from .plots import Line, plot
from .ramp import Point
from .search import Trial

HEADINGS = (
    *("provider", "graph", "scorers", "threads", "batch", "clients", "answers/s", "p50 ms", "p99 ms", "runs"),
    *("differs by", ""),
)
_PLOTTED = 12
"""Candidates that a plot has colours for; the best ones are shown."""

_STYLE = """
body { font: 15px/1.5 sans-serif; margin: 2em auto; max-width: 64em; padding: 0 1em; color: #222 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1em 0 }
th, td { padding: .25em .7em; text-align: right; border-bottom: 1px solid #ddd }
td:last-child, th:last-child, td:first-child, th:first-child { text-align: left }
tr.chosen { background: #fdeaea; font-weight: bold }
tr.out { color: #888 }
svg { max-width: 100%; height: auto }
"""


def ranked(trials: Sequence[Trial], slo_p99_ms: float, chosen: Trial | None) -> list[Trial]:
    """The chosen one first, then by what they answer within the limit, then those that never keep it, then the rejected."""

    def key(trial: Trial) -> tuple[int, float]:
        point = trial.best(slo_p99_ms)
        if trial is chosen:
            return 0, 0.0
        if point is not None:
            return 1, -point.throughput
        return (3, 0.0) if trial.rejected is not None else (2, shown_point(trial, slo_p99_ms).p99_ms)

    return sorted(trials, key=key)


def shown_point(trial: Trial, slo_p99_ms: float) -> Point:
    """The best one within the limit, or the one that came nearest to it."""
    nothing = Point(0, 0.0, 0.0, 0.0, 0)
    measured = [point for point in trial.points() if point.requests]
    return trial.best(slo_p99_ms) or min(measured, key=lambda point: point.p99_ms, default=nothing)


def rows(trials: Sequence[Trial], slo_p99_ms: float, chosen: Trial | None) -> list[tuple[str, ...]]:
    """A row of the table for each, in the order of `ranked`."""
    return [_row(trial, slo_p99_ms, trial is chosen) for trial in ranked(trials, slo_p99_ms, chosen)]


def _row(trial: Trial, slo_p99_ms: float, is_chosen: bool) -> tuple[str, ...]:
    candidate, point = trial.candidate, shown_point(trial, slo_p99_ms)
    batch = str(candidate.max_batch_size) + ("" if candidate.batch_buckets == "auto" else " no buckets")
    measured = ("-",) * 4
    if point.requests:
        measured = (str(point.clients), f"{point.throughput:,.0f}", f"{point.p50_ms:.3g}", f"{point.p99_ms:.3g}")
    difference = trial.largest_difference
    if is_chosen:
        remark = "chosen"
    elif trial.rejected is not None:
        remark = f"excluded: {trial.rejected.why}"
    elif trial.best(slo_p99_ms) is None:
        remark = "some requests failed" if point.failures else "over the limit"
    else:
        remark = ""
    return (
        *(candidate.provider, candidate.graph_optimization, str(candidate.scorers), str(candidate.threads), batch),
        *(*measured, str(len(trial.runs)), "-" if difference is None else f"{difference:.2g}", remark),
    )


def text_table(trials: Sequence[Trial], slo_p99_ms: float, chosen: Trial | None) -> str:
    """For a terminal."""
    table = [HEADINGS, *rows(trials, slo_p99_ms, chosen)]
    widths = [max(len(row[column]) for row in table) for column in range(len(HEADINGS))]
    left = (0, 1, len(HEADINGS) - 1)
    lines = [
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]
    return "\n".join(lines)


def draw(title: str, trials: Sequence[Trial], slo_p99_ms: float, chosen: Trial | None) -> str:
    """Throughput against p99, a line for each candidate, as SVG: the chosen one stands out, excluded ones have no line."""
    lines = []
    shown = [trial for trial in ranked(trials, slo_p99_ms, chosen) if trial.rejected is None][:_PLOTTED]
    for number, trial in enumerate(shown):
        points = sorted(trial.points(), key=lambda point: point.clients)
        candidate = trial.candidate
        name = f"{candidate.provider} {candidate.graph_optimization} {candidate.scorers}x{candidate.threads} b{candidate.max_batch_size}"
        name += "" if candidate.batch_buckets == "auto" else " no buckets"
        best = trial.best(slo_p99_ms) if trial is chosen else None
        lines.append(
            Line(
                name + (" (chosen)" if trial is chosen else ""),
                [(point.p99_ms, point.throughput) for point in points],
                emphasised=trial is chosen,
                colour=number,
                dashed=trial.best(slo_p99_ms) is None,
                marked=None if best is None else (best.p99_ms, best.throughput),
            )
        )
    return plot(title, "p99 in ms", "answers a second", lines, slo_p99_ms)


def html(
    title: str, paragraphs: Sequence[str], trials: Sequence[Trial], slo_p99_ms: float, chosen: Trial | None
) -> str:
    """The whole page. It refers to nothing outside of itself."""
    body = []
    for trial, row in zip(ranked(trials, slo_p99_ms, chosen), rows(trials, slo_p99_ms, chosen), strict=True):
        kind = "chosen" if trial is chosen else "out" if trial.best(slo_p99_ms) is None else "in"
        body.append(f'<tr class="{kind}">{"".join(f"<td>{escape(cell)}</td>" for cell in row)}</tr>')
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8"/>',
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        *(f"<p>{escape(paragraph)}</p>" for paragraph in paragraphs),
        draw(title, trials, slo_p99_ms, chosen),
        f"<table><thead><tr>{''.join(f'<th>{escape(heading)}</th>' for heading in HEADINGS)}</tr></thead>",
        f"<tbody>{''.join(body)}</tbody></table>",
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"
