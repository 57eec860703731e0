"""What `tune` is asked to do."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Order:
    """What is to be found, and what it may cost."""

    slo_p99_ms: float
    samples: Sequence[str] = ()
    """Files and folders."""
    budget_s: float = 120.0
    out: str = "tuned.json"
    report: str | None = None
    """A folder, or the file of the page; None: beside `out`."""
    providers: str | None = None
    """Those to try; None for all that work."""
    tolerance: float | None = None
    """Instead of those of the outputs' types."""

    def report_paths(self, name: str) -> tuple[Path, Path]:
        """Of the page and of the plot, for a model of this name."""
        if self.report is None:
            page = Path(self.out).with_suffix(".html")
        elif self.report.endswith(".html"):
            page = Path(self.report)
        else:
            page = Path(self.report) / f"{name}.html"
        return page, page.with_suffix(".svg")
