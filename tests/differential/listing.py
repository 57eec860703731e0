"""The list of differences that are wanted (differences.toml), as the tests read it."""

import tomllib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

PATH = Path(__file__).parent / "differences.toml"


@dataclass(frozen=True)
class Difference:
    """One entry."""

    id: str
    contract: str
    cases: tuple[str, ...]
    facts: tuple[str, ...]
    only: tuple[str, ...] = ("*",)

    def covering(self, case: str, fact: str, environment: str) -> set[str]:
        """The patterns of this entry that cover that fact of that case."""
        if not any(fnmatchcase(environment, pattern) for pattern in self.only):
            return set()
        if not any(fnmatchcase(fact, pattern) for pattern in self.facts):
            return set()
        return {pattern for pattern in self.cases if fnmatchcase(case, pattern)}


def load() -> list[Difference]:
    with PATH.open("rb") as file:
        entries = tomllib.load(file)["difference"]
    return [
        Difference(
            entry["id"],
            entry["contract"],
            tuple(entry["cases"]),
            tuple(entry["facts"]),
            tuple(entry.get("only", ["*"])),
        )
        for entry in entries
    ]
