"""Numbers and tables as Markdown."""

from collections.abc import Callable, Iterable, Sequence

from benchmarks import servers
from benchmarks.measured import WITHOUT_VALUE, Measured, Metric, Value
from benchmarks.scenarios import loop_of

Show = Callable[[float], str]

FEW = "few"
"""In the place of a quantile that so few answers say nothing about."""


def load_table(
    each: Measured,
    what: str,
    loads: Sequence[str],
    metric: Metric,
    show: Show,
    *,
    loops: bool = True,
    least_answers: int = 0,
) -> str:
    """A row for each server, a column for each load; nothing where all answers were fewer than `least_answers`, in which
    the number would be chance.
    """
    rows = []
    for server in each.servers():
        if server not in servers.LOOPS:
            cells = [
                FEW if 0 < each.answered(server, load) < least_answers else cell_of(each, server, load, metric, show)
                for load in loads
            ]
            rows.append([title(server), *cells])
        elif loops:
            rows.append([title(server), *_loop_cells(each, server, metric, show)])
    told = any(text not in {FEW, *WITHOUT_VALUE} for _, *texts in rows for text in texts)
    return table([what, *loads], rows) if told or not least_answers else ""


def _loop_cells(each: Measured, server: str, metric: Metric, show: Show) -> list[str]:
    """A floor's number stands under the first load that sends the same request."""
    cells: list[str] = []
    seen: set[str] = set()
    for request in each.requests().values():
        cells.append("" if request in seen else cell_of(each, server, loop_of(request), metric, show))
        seen.add(request)
    return cells


def cell_of(each: Measured, server: str, load: str, metric: Metric, show: Show) -> str:
    value = each.value(server, load, metric)
    return each.why_not(server, load) if value is None else cell(value, show)


def cells(values: Iterable[Value | None], show: Show) -> list[str]:
    return ["failed" if value is None else cell(value, show) for value in values]


def cell(value: Value, show: Show) -> str:
    text = show(value.median)
    if value.most - value.least > 0.1 * value.median:
        text += f" ({show(value.least)} to {show(value.most)})"
    return text + (f" †{value.failed}" if value.failed else "")


def title(server: str) -> str:
    """What a server is called on the page; one with other numbers of scorers is `ours, N scorers` in the results."""
    name, comma, scorers = server.partition(", ")
    return servers.title(name) + comma + scorers


def number(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def whole(value: float) -> str:
    return f"{value:,.0f}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = True) -> str:
    """`numbers`: all columns but the first stand to the right."""
    lines = [header, ["---"] + ["---:" if numbers else "---"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
