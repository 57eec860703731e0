"""The memory that front and scorers share: whose it is, and when it is given back."""

import gc
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from mmap import ACCESS_READ, PAGESIZE, mmap

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scoring_runtime.pool import arena as arenas
from scoring_runtime.pool.arena import GIVE_BACK_BYTES, SIZE_BYTES, WARM_BYTES, WARM_S, Arena, Block

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is none")

MIB = 1 << 20


@pytest.fixture
def arena() -> Iterator[Arena]:
    made = arenas.create()
    assert made is not None
    yield made
    made.close()


def descriptors() -> int:
    return psutil.Process().num_fds()


def fill(arena: Arena, size: int, byte: bytes = b"x") -> Block:
    block = arena.take(size)
    assert block is not None
    while block.filled_bytes < size:
        block.write(byte * min(MIB, size - block.filled_bytes))
    return block


def give_back(arena: Arena, seconds: float) -> None:
    """Let time pass, a tick after the other."""
    arena.tick(0.0)
    for tick in range(1, int(seconds * 4) + 1):
        arena.tick(tick / 4)


def test_a_block_holds_what_was_written(arena):
    block = arena.take(10_000)
    block.write(b"a" * 4000)
    room = block.room(3000)
    assert len(room) == 3000
    room[:2] = b"bc"
    block.filled_bytes += 2
    block.write(memoryview(b"d" * 5998))
    assert len(block) == block.filled_bytes == 10_000
    assert bytes(block) == b"a" * 4000 + b"bc" + b"d" * 5998
    assert block[3999:4003] == b"abcd"
    assert block[: 1 << 20] == bytes(block)
    assert len(block.room(3000)) == 0
    seen = mmap(arena.reader, PAGESIZE * 3, access=ACCESS_READ)
    assert seen[block.offset : block.offset + 10_000] == bytes(block)
    seen.close()


def test_a_block_that_nobody_refers_to_is_free_at_once(arena):
    gc.disable()
    try:
        offsets = []
        for _ in range(3):
            first, second = fill(arena, 5000), fill(arena, 5000)
            offsets.append((first.offset, second.offset))
            del first
            assert arena.take(5000).offset == 0
            del second
        assert offsets == [(0, 2 * PAGESIZE)] * 3
        assert arena._free.find(SIZE_BYTES) == 0
    finally:
        gc.enable()


@settings(deadline=None)
@given(st.lists(st.one_of(st.integers(1, 1 << 31), st.integers(0, 5)), max_size=40))
def test_blocks_never_overlap_and_everything_comes_back(steps):
    arena = arenas.create()
    assert arena is not None
    held: list[Block] = []
    for step in steps:
        if step < 6:
            if held:
                held.pop(step % len(held))
            continue
        block = arena.take(step)
        taken = sorted((one.offset, one.offset + one.size) for one in held)
        if block is None:
            gaps = zip([0, *(end for _, end in taken)], [*(begin for begin, _ in taken), SIZE_BYTES], strict=True)
            assert max(begin - end for end, begin in gaps) < step + PAGESIZE
            continue
        assert block.offset % PAGESIZE == 0
        assert block.offset + step <= SIZE_BYTES
        assert all(end <= block.offset or block.offset + step <= begin for begin, end in taken)
        held.append(block)
    held.clear()
    block = None
    assert arena._free.find(SIZE_BYTES) == 0
    arena.close()


def test_what_is_announced_costs_nothing(arena):
    blocks = [arena.take(1 << 30) for _ in range(16)]
    assert arena.take(1) is None
    assert arena.resident_bytes == 0
    blocks[3].write(b"x")
    assert arena.resident_bytes == PAGESIZE


def test_memory_is_given_back_the_upper_part_soon_and_all_of_it_when_nothing_comes(arena):
    live = fill(arena, MIB)
    fill(arena, WARM_BYTES + 40 * MIB)
    assert arena.resident_bytes == WARM_BYTES + 41 * MIB
    arena.tick(0.0)
    assert arena.resident_bytes == WARM_BYTES + 41 * MIB - GIVE_BACK_BYTES
    give_back(arena, 1.0)
    assert arena.resident_bytes == WARM_BYTES
    give_back(arena, WARM_S + 2.0)
    assert arena.resident_bytes == MIB
    assert bytes(live) == b"x" * MIB


def test_memory_stays_warm_while_bodies_come(arena):
    arena.tick(0.0)
    for tick in range(1, 40):
        fill(arena, MIB)
        arena.tick(tick / 4)
        assert arena.resident_bytes == MIB


def test_a_warm_block_is_written_over(arena):
    fill(arena, MIB)
    block = fill(arena, 2 * MIB, b"y")
    assert bytes(block) == b"y" * (2 * MIB)


@pytest.mark.parametrize(
    "attack",
    [
        "os.ftruncate(fd, 0)",
        "os.write(fd, b'x')",
        "mmap.mmap(fd, 4096)",
        "os.posix_fallocate(fd, 0, 4096)",
        "mmap.mmap(fd, 4096, access=mmap.ACCESS_READ).madvise(mmap.MADV_REMOVE)",
        "os.ftruncate(os.open(f'/proc/self/fd/{fd}', os.O_RDWR), 0)",
    ],
)
def test_who_gets_the_descriptor_can_only_read(arena, attack):
    block = fill(arena, 4096)
    code = f"import mmap, os\nfd = {arena.reader}\nassert os.pread(fd, 1, 0) == b'x'\n{attack}"
    ended = subprocess.run([sys.executable, "-c", code], pass_fds=[arena.reader], capture_output=True, check=False)
    assert ended.returncode == 1
    assert b"Error" in ended.stderr
    assert bytes(block) == b"x" * 4096


def test_nothing_is_left_of_an_arena():
    before = descriptors()
    made = arenas.create()
    assert made is not None
    block = fill(made, 4096)
    made.close()
    del block, made
    gc.collect()
    assert descriptors() == before


def test_without_room_for_addresses_there_is_none(caplog):
    caplog.set_level("INFO", "scoring_runtime.pool")
    before = descriptors()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (SIZE_BYTES, hard))
    try:
        assert arenas.create() is None
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert "shares no memory" in caplog.text
    assert descriptors() == before


def test_without_memfd_there_is_none(monkeypatch):
    monkeypatch.delattr(os, "memfd_create")
    assert arenas.create() is None


def test_where_memory_is_never_overcommitted_there_is_none(monkeypatch, tmp_path):
    path = tmp_path / "overcommit_memory"
    path.write_text("2\n")
    monkeypatch.setattr(arenas, "_OVERCOMMIT", path)
    assert arenas.create() is None
