from collections.abc import Iterator
from pathlib import Path

import pytest

from .runs import Runs

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def runs(request: pytest.FixtureRequest) -> Iterator[Runs]:
    """What comes of batteries and starts. Those that the chosen tests ask for are begun at once."""
    everything = Runs()
    for item in request.session.items:
        callspec = getattr(item, "callspec", None)
        if item.path.parent == HERE and callspec is not None and "battery" in callspec.params:
            everything.prepare_all(callspec.params["battery"])
    yield everything
    everything.close()
