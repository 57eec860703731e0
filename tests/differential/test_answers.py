"""The incumbent and ours are started and asked the same, with the same scripts.

What comes of it differs in what differences.toml lists, else nowhere; and what it lists is there.
"""

import re
from collections.abc import Iterator

import pytest

from . import listing
from .cases import BATTERIES
from .environments import INCUMBENT, ROOT, VERSIONS, pythons
from .runs import Runs, servers_of
from .servers import INCUMBENT as THEIRS
from .starts import STARTS
from .wire import differing

DIFFERENCES = listing.load()

pytestmark = pytest.mark.timeout(600)  # the first test waits for servers of those behind it


@pytest.fixture(autouse=True, scope="module")
def _incumbent_is_there() -> None:
    assert INCUMBENT.exists(), "the incumbent is not set up: make incumbent"


def differences(runs: Runs, battery: str) -> Iterator[tuple[str, str, str, tuple[object, object]]]:
    """What differs: case, fact, environment, both values."""
    theirs = runs.answers(battery, THEIRS)
    for environment in servers_of(battery):
        ours = runs.answers(battery, environment)
        for case, facts in theirs.items():
            full_name = f"{'start' if battery in STARTS else battery}/{case}"
            for fact, values in differing(facts, ours[case]).items():
                yield full_name, fact, environment, values


@pytest.mark.parametrize("battery", [*BATTERIES, *STARTS])
def test_what_differs_is_listed(runs: Runs, battery: str) -> None:
    report = [
        f"{case} [{environment}] {fact}:\n  {theirs!r:.500}\n  {ours!r:.500}"
        for case, fact, environment, (theirs, ours) in differences(runs, battery)
        if not any(entry.covering(case, fact, environment) for entry in DIFFERENCES)
    ]

    assert not report, f"{len(report)} differences:\n" + "\n".join(report)


def test_what_is_listed_differs(runs: Runs) -> None:
    unused = {(entry.id, pattern) for entry in DIFFERENCES for pattern in entry.cases}
    for battery in [*BATTERIES, *STARTS]:
        for case, fact, environment, _ in differences(runs, battery):
            for entry in DIFFERENCES:
                unused -= {(entry.id, pattern) for pattern in entry.covering(case, fact, environment)}

    assert not unused, "listed, but not there (any more):\n" + "\n".join(map(str, sorted(unused)))


@pytest.mark.parametrize("version", VERSIONS)
def test_the_script_engine_runs_under_old_and_new_pythons(version: str) -> None:
    there = pythons()
    if f"bare-{version}" not in there:
        pytest.skip(f"no Python {version} here")

    assert f"user-{version}" in there, "an environment of users is not set up: make incumbent"


def test_the_page_on_compatibility_names_every_listed_difference() -> None:
    page = (ROOT / "docs" / "compatibility.md").read_text("utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \| ([\d.]+) \|", page, re.MULTILINE)

    assert sorted(rows) == sorted((entry.id, entry.contract) for entry in DIFFERENCES)
