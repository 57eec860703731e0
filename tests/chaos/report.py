"""What a person reads at the end. Pure."""

import statistics
from collections import Counter
from collections.abc import Iterable
from typing import Any

OUTCOMES = ("right", "refused", "error", "lost", "left", "wrong")


def text(result: dict[str, Any]) -> str:
    """The whole report."""
    parts = [
        _outcomes(result["outcomes"]),
        _reasons(result["reasons"]),
        _recoveries(result["faults"]),
        _growth(result["growth"]),
        _verdict(result),
    ]
    return "\n\n".join(parts)


def _outcomes(outcomes: Iterable[list[Any]]) -> str:
    by_server: dict[str, Counter[str]] = {}
    for server, _client, outcome, count in outcomes:
        by_server.setdefault(server, Counter())[outcome] += count
    total: Counter[str] = sum(by_server.values(), Counter())
    rows = [["server", "sent", *OUTCOMES]]
    for server, counts in [*by_server.items(), ("all", total)]:
        rows.append([server, str(counts.total()), *(str(counts[outcome]) for outcome in OUTCOMES)])
    return _table(rows)


def _reasons(reasons: Iterable[list[Any]]) -> str:
    totals: Counter[tuple[str, str]] = Counter()
    for _server, outcome, fault, count in reasons:
        totals[outcome.lower(), fault] += count
    return _table([["why not right", "reason", "requests"], *([*key, str(n)] for key, n in sorted(totals.items()))])


def _recoveries(faults: Iterable[dict[str, Any]]) -> str:
    times: dict[str, list[float]] = {}
    for stroke in faults:
        times.setdefault(stroke["fault"], []).append(
            float("inf") if stroke["recovery_s"] is None else stroke["recovery_s"]
        )
    rows = [["fault", "times", "recovery s, median", "longest"]]
    for fault, seconds in sorted(times.items()):
        rows.append([fault, str(len(seconds)), f"{statistics.median(seconds):.2f}", f"{max(seconds):.2f}"])
    return _table(rows)


def _growth(growths: Iterable[dict[str, Any]]) -> str:
    rows = [["held by", "what", "samples", "second fifth", "last fifth", ""]]
    for grown in growths:
        numbers = [
            f"{grown[key] / (1 << 20 if grown['what'] == 'rss_bytes' else 1):.4g}" for key in ("before", "after")
        ]
        what = grown["what"].replace("rss_bytes", "RSS, MiB")
        within = "" if grown["within"] else "GROWS"
        rows.append([f"{grown['role']} of {grown['server']}", what, str(grown["samples"]), *numbers, within])
    return _table(rows)


def _verdict(result: dict[str, Any]) -> str:
    head = f"seed {result['seed']}, {result['length_s'] / 60:g} minutes, {result['requests']} requests: "
    if not result["violations"]:
        return head + "nothing lost without a reason, nothing wrong, nothing doubled, nothing run twice, no growth"
    lines = [f"{count} of {kind}" for kind, count in sorted(result["violations"].items())]
    return "\n".join([head + "VIOLATED", *lines, "", *result["details"]])


def _table(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
