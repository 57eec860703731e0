"""The page of results, the plots and the targets."""

import dataclasses
import xml.etree.ElementTree as ET
from collections.abc import Sequence

import pytest

from benchmarks import measured, profile, report, suite
from benchmarks.loads import NOT_ASKED, Run
from benchmarks.scenarios import SCENARIOS, Load
from benchmarks.suite import Results, Start
from benchmarks.targets import TARGETS
from scoring_runtime.tune.plots import Line, plot

MACHINE = {"cpu": "a CPU", "cores": 2, "kernel": "6", "commit": "abc", "uncommitted_changes": False}


def results_of(name: str, runs: Sequence[tuple[str, str, int, float | None]], starts: Sequence[Start] = ()) -> Results:
    """The results of a scenario as the suite would write them: runs are (server, load, repeat, CPU in us or None)."""
    settings = {
        "repeats": 3,
        "seconds": 1.0,
        "loads": [dataclasses.asdict(load) for load in SCENARIOS[name].loads],
        "cores": {"server": [0], "client": 1},
    }
    results = Results(name, settings, MACHINE, "2026-01-01T00:00:00+00:00")
    for server, load, repeat, cpu_us in runs:
        failure = "it broke" if cpu_us is None else None
        results.runs.append(
            dataclasses.asdict(
                Run(server, repeat, load, failure, requests=10, cpu_ns=int((cpu_us or 0) * 10_000), wall_ns=1)
            )
        )
        results.starts.append(dataclasses.asdict(Start(server, repeat)))
    results.starts += [dataclasses.asdict(start) for start in starts]
    return results


@pytest.fixture
def page(tmp_path):
    def render(*all_results, notes=None):
        for results in all_results:
            results.write(tmp_path)
        return report.render(measured.read(tmp_path), {}, notes or {})[0]

    return render


def test_the_committed_page_is_what_the_committed_results_say():
    profiles = report.read_profiles(profile.RESULTS)
    text, plots = report.render(measured.read(suite.RESULTS), profiles, report.read_notes())
    assert report.PAGE.read_text() == text, "run: make bench-report"
    assert {path.name: path.read_text() for path in report.plots_of(report.PAGE).glob("*.svg")} == plots


def test_notes_are_about_targets():
    assert report.read_notes().keys() <= {target.name for target in TARGETS}


def test_a_value_is_the_median_of_what_succeeded(page):
    load = "32 connections"
    text = page(results_of("small", [("ours", load, 1, 10.0), ("ours", load, 2, 30.0), ("ours", load, 3, 12.0)]))
    assert "12 (10 to 30)" in text


def test_a_failure_is_shown_and_named(page):
    load = "32 connections"
    runs = [("ours", load, 1, 10.0), ("ours", load, 2, None), ("ours", load, 3, 10.0)]
    text = page(results_of("small", [*runs, ("null", load, 1, None)]))
    assert "10 †1" in text
    assert "- scoring-runtime, 32 connections, repeat 2: it broke" in text
    [null] = [line for line in text.splitlines() if line.startswith("| null uvloop")][:1]
    assert "failed" in null


def test_a_server_that_did_not_start_is_a_failure(page):
    start = Start("kserve", 1, "kserve ended with status 1\nlong output")
    text = page(results_of("small", [("ours", "32 connections", 1, 10.0)], [start]))
    assert "- KServe SDK, start, repeat 1: kserve ended with status 1\n" in text


@pytest.mark.parametrize(
    ("null_us", "state"), [(6.0, "**not measured**"), (4.0, "**not met**")], ids=["within the bound", "above the bound"]
)
def test_targets_are_judged_by_the_results(page, null_us, state):
    runs = [("ours", "32 connections", 1, 10.0), ("null", "32 connections", 1, null_us)]
    text = page(results_of("small", runs))
    assert f"ours / null, 32 connections: {10 / null_us:.2f} (≤ 2)" in text
    [row] = [line for line in text.splitlines() if "ours at most 2 times the null server" in line]
    assert f"| {state} |" in row


def test_a_target_is_met_when_all_of_it_is(page):
    runs = [("ours", "32 connections", 1, 10.0), ("azmlinfsrv", "32 connections", 1, 210.0)]
    text = page(results_of("script-plain", runs))
    [row] = [line for line in text.splitlines() if "standard library: azmlinfsrv" in line]
    assert row.endswith("| met | azmlinfsrv / ours, 32 connections: 21.00 (≥ 20) |")


def test_a_target_that_was_not_met_has_its_note_and_one_that_was_has_none(page):
    notes = {"script-plain": "The interpreter.\n", "script-numpy": "numpy."}
    runs = [("ours", "32 connections", 1, 10.0), ("azmlinfsrv", "32 connections", 1, 90.0)]
    text = page(results_of("script-plain", runs), results_of("script-numpy", runs), notes=notes)
    assert "What bounds it: The interpreter." in text
    assert "What bounds it: numpy." not in text


def test_default_settings_are_shown_beside_what_is_judged(page):
    runs = [(server, load, 1, 10.0) for server in ("ours", "ours, 2 scorers") for load in ("alone", "beside 50 MB")]
    results = results_of("mixed", runs)
    for run in results.runs:
        slow = run["server"] == "ours" and run["load"] == "beside 50 MB"
        run["p99_us"] = 9000.0 if slow else 1000.0
    text = page(results)
    [row] = [line for line in text.splitlines() if "beside / alone" in line]
    assert "2 scorers: 1.00 (≤ 3)<br>p99 beside / alone, default settings: 9.00 (not judged)" in row
    assert "| met |" in row


def test_servers_are_compared_by_what_they_cost_next_to_ours(page):
    runs = [("ours", "32 connections", 1, 10.0), ("fastapi", "32 connections", 1, 125.0)]
    text = page(results_of("small", runs))
    [row] = [line for line in text.splitlines() if line.startswith("| FastAPI and uvicorn | ")][:1]
    assert row.startswith("| FastAPI and uvicorn | 12.5x |")


def test_a_floor_stands_under_the_load_with_its_request(page):
    runs = [("raw", "1 row, loop", 1, 5.0), ("raw", "100 rows, loop", 1, 50.0)]
    text = page(results_of("trees", runs))
    assert "| onnxruntime in a loop | 5 | 50 |" in text


def test_what_was_not_asked_has_not_failed(page):
    results = results_of("arrivals", [("litserve", "250 a second", 1, None), ("litserve", "250 a second", 2, None)])
    results.runs += [dataclasses.asdict(Run("litserve", repeat, "1000 a second", NOT_ASKED)) for repeat in (1, 2)]
    text = page(results)
    assert "| LitServe | failed | not asked | not measured |" in text
    assert "- LitServe, 250 a second, repeats 1, 2: it broke\n" in text
    assert "1000 a second, repeat" not in text


def test_a_plot_is_the_same_for_the_same_numbers():
    lines = [Line("ours", [(1, 10.0), (512, 20.0)], emphasised=True), Line("a < b", [(1, 500.0), (512, 0.0)])]
    once, again = plot("t", "x", "y", lines), plot("t", "x", "y", lines)
    assert once == again
    drawn = ET.fromstring(once)
    points = [line.get("points") for line in drawn.iter("{http://www.w3.org/2000/svg}polyline")]
    assert [len(places.split()) for places in points if places] == [2, 1]  # nothing is drawn at zero
    assert "a &lt; b" in once


def test_a_plot_of_one_point_has_axes():
    assert plot("t", "x", "y", [Line("one", [(32, 10.0)])]).count("<circle") == 1


def test_what_failed_can_be_measured_again():
    results = results_of("small", [("ours", "32 connections", 1, None), ("ours", "32 connections", 2, 1.0)])
    assert results.done() == {(1, "ours"), (2, "ours")}
    results.drop_failed()
    assert results.done() == {(2, "ours")}


def test_every_headline_is_a_load():
    for name, scenario in SCENARIOS.items():
        assert scenario.headline in {None, *(load.name for load in scenario.loads)}, name


def test_every_server_is_in_every_scenario_or_has_a_reason_why_not():
    from benchmarks.servers import SERVERS

    for name, scenario in SCENARIOS.items():
        if scenario.scorers:
            continue  # growth of ours alone
        missing = set(SERVERS) - set(scenario.servers) - set(scenario.absent)
        assert missing <= {"nginx", "ours-tuned"}, name


def test_names_of_loads_differ_within_a_scenario():
    for name, scenario in SCENARIOS.items():
        names = [load.name for load in scenario.loads]
        assert len(set(names)) == len(names), name
        assert all(isinstance(load, Load) for load in scenario.loads)
