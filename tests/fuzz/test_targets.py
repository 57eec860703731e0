"""What the fuzz programs hold for any bytes, for their seeds and bytes close to them: so that they do not rot, and a short
look is taken in every run. `make fuzz` looks longer.
"""

import importlib
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from . import run

EXAMPLES = {"connection": 60, "scorer": 40, "frames": 300}


def target(name: str) -> ModuleType:
    return importlib.import_module(f".{name}", __package__)


@pytest.mark.parametrize("name", run.TARGETS)
def test_seeds(name):
    for seed in target(name).SEEDS:
        target(name).check(seed)


@pytest.mark.parametrize("name", run.TARGETS)
def test_bytes_close_to_the_seeds(name):
    module = target(name)

    @settings(max_examples=EXAMPLES.get(name, 120), deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.sampled_from(module.SEEDS),
        st.lists(
            st.tuples(st.integers(0, 300), st.integers(0, 3), st.binary(max_size=2) | st.sampled_from(module.TOKENS))
        ),
    )
    def look(seed, changes):
        for place, removed, put_in in changes:
            at = place % (len(seed) + 1)
            seed = seed[:at] + put_in + seed[at + removed :]
        module.check(seed[: run.MAX_INPUT_BYTES])

    look()


def test_every_target_is_listed():
    folder = run.HERE
    assert {path.stem for path in folder.glob("*.py") if "\ndef check(data: bytes)" in path.read_text()} == set(
        run.TARGETS
    )
