"""The arena as a scorer sees it."""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scoring_runtime.scorer.arena import MAPPED_BYTES, Arena
from scoring_runtime.scorer.frames import FrameError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is none")

SIZE = 4 * MAPPED_BYTES


@pytest.fixture
def memory() -> Iterator[int]:
    descriptor = os.memfd_create("bodies")
    os.ftruncate(descriptor, SIZE)
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize("offset", [0, 8192, MAPPED_BYTES - 100_000, MAPPED_BYTES - 4096, 2 * MAPPED_BYTES + 4096, 17])
def test_a_body_is_found_where_it_lies(memory, offset):
    body = os.urandom(100_000)
    os.pwrite(memory, body, offset)
    found = Arena(memory).find(offset, len(body))
    assert found.readonly
    assert found == body
    os.pwrite(memory, b"changed", offset)
    assert bytes(found[:7]) == b"changed"


def mappings() -> int:
    return Path("/proc/self/maps").read_text().count("/memfd:bodies")


def test_what_lies_above_is_mapped_no_longer_than_somebody_has_it(memory):
    arena = Arena(memory)
    found = arena.find(2 * MAPPED_BYTES, 1000)
    part = found[10:20]
    assert mappings() == 2
    del found
    assert mappings() == 2
    del part
    assert mappings() == 1
    del arena
    gc.collect()
    assert mappings() == 0


@pytest.mark.parametrize("reference", [(SIZE, 1), (SIZE - 1, 2), (0, SIZE + 1), (1 << 63, 1), (0, 1 << 64)])
def test_what_is_outside_is_refused(memory, reference):
    with pytest.raises(FrameError, match="outside"):
        Arena(memory).find(*reference)


def test_nothing_is_found_anywhere(memory):
    arena = Arena(memory)
    assert [bytes(arena.find(offset, 0)) for offset in (0, MAPPED_BYTES, SIZE)] == [b""] * 3


def test_a_small_file_is_mapped_as_far_as_it_goes(memory):
    os.ftruncate(memory, 8192)
    assert len(Arena(memory).find(4096, 4096)) == 4096
