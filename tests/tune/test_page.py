"""The table, the plot and the page."""

import re
import xml.etree.ElementTree as ET

import pytest

from scoring_runtime.tune import page
from scoring_runtime.tune.ramp import Point
from scoring_runtime.tune.search import Measured, Rejected, Trial, choose
from scoring_runtime.tune.space import Candidate

SLO = 10.0
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def trials():
    rising = tuple(Point(4**n, 100.0 * 4**n, 1.0, 2.0 * 3**n, 500) for n in range(4))
    slow = (Point(1, 5.0, 190.0, 200.0, 30),)
    return [
        Trial(Candidate(threads=2), [Measured(rising, 1e-7)]),
        Trial(Candidate(threads=1), [Measured(slow)]),
        Trial(Candidate(graph_optimization="basic"), [], Rejected("output 'a<b>' holds 1 in place of 2", 1.0)),
        Trial(Candidate(max_batch_size=8), [], Rejected("does not serve: it exited with code 3")),
    ]


def test_the_chosen_one_stands_first_and_the_excluded_last(trials):
    rows = page.rows(trials, SLO, choose(trials, SLO))

    assert [row[-1] for row in rows] == [
        "chosen",
        "over the limit",
        "excluded: output 'a<b>' holds 1 in place of 2",
        "excluded: does not serve: it exited with code 3",
    ]
    assert rows[0][5:10] == ("4", "400", "1", "6", "1")
    assert [row[-2] for row in rows] == ["1e-07", "0", "1", "-"]
    assert all(len(row) == len(page.HEADINGS) for row in rows)


def test_the_table_is_aligned(trials):
    lines = page.text_table(trials, SLO, choose(trials, SLO)).splitlines()
    assert len(lines) == 5
    for heading, cell in (("clients", "4"), ("answers/s", "400"), ("p99 ms", "6")):
        end = lines[0].index(heading) + len(heading)
        assert lines[1][:end].endswith(f" {cell}")
    assert lines[0].startswith("provider")


def test_the_plot_is_svg_and_marks_the_chosen_point_and_the_limit(trials):
    root = ET.fromstring(page.draw("a < b", trials, SLO, choose(trials, SLO)))

    assert root.tag == f"{SVG}svg"
    assert len(root.findall(f"{SVG}polyline")) == 2
    assert len([circle for circle in root.iter(f"{SVG}circle") if circle.get("r") == "8"]) == 1
    assert len([line for line in root.iter(f"{SVG}line") if line.get("stroke") == "#111"]) == 1


def test_the_page_is_whole_and_asks_for_nothing(trials):
    text = page.html("a < b", ["one & two"], trials, SLO, choose(trials, SLO))
    root = ET.fromstring(text)

    assert len(root.findall(".//tbody/tr")) == 4
    assert [row.get("class") for row in root.findall(".//tbody/tr")] == ["chosen", "out", "out", "out"]
    assert root.find(f".//{SVG}svg") is not None
    assert re.findall(r"(?:src|href|url\()", text) == []
    assert set(re.findall(r"https?://[^\"\s]+", text)) == {"http://www.w3.org/2000/svg"}


def test_nothing_measured_can_be_shown():
    trials = [Trial(Candidate(), [], Rejected("does not serve"))]
    ET.fromstring(page.html("t", [], trials, SLO, None))
