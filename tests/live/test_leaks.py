"""The server keeps nothing of connections and of scorers that have gone, in whatever way they went."""

import asyncio
import os
import re
import signal
import socket
import struct
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil

CONNECTIONS = 2000
AT_A_TIME = 20
REQUEST = b"POST /score HTTP/1.1\r\nHost: here\r\nContent-Length: 2\r\n\r\n[]"
Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter
RESET = struct.pack("ii", 1, 0)  # SO_LINGER that closes with RST


async def ask_and_close(reader: Reader, writer: Writer) -> None:
    writer.write(REQUEST)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


async def ask_to_close(reader: Reader, writer: Writer) -> None:
    writer.write(REQUEST.replace(b"Host: here", b"Host: here\r\nConnection: close"))
    assert (await reader.read()).startswith(b"HTTP/1.1 200 ")


async def say_nothing(reader: Reader, writer: Writer) -> None:
    pass


async def leave_in_the_head(reader: Reader, writer: Writer) -> None:
    writer.write(REQUEST[:30])
    await writer.drain()


async def leave_in_the_body(reader: Reader, writer: Writer) -> None:
    writer.write(REQUEST[:-1])
    await writer.drain()


async def leave_before_the_answer(reader: Reader, writer: Writer) -> None:
    writer.write(REQUEST)
    await writer.drain()


async def reset_before_the_answer(reader: Reader, writer: Writer) -> None:
    writer.write(REQUEST)
    await writer.drain()
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


async def send_nonsense(reader: Reader, writer: Writer) -> None:
    writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 400 ")


async def pipeline_and_leave(reader: Reader, writer: Writer) -> None:
    writer.write(REQUEST * 20)
    await reader.readuntil(b"\r\n\r\n")


WAYS = [
    ask_and_close,
    ask_to_close,
    say_nothing,
    leave_in_the_head,
    leave_in_the_body,
    leave_before_the_answer,
    reset_before_the_answer,
    send_nonsense,
    pipeline_and_leave,
]


async def open_and_close(port: int, count: int) -> None:
    numbers = iter(range(count))

    async def one_after_the_other() -> None:
        for number in numbers:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                await WAYS[number % len(WAYS)](reader, writer)
            finally:
                writer.close()
                try:
                    await writer.wait_closed()
                except ConnectionError:
                    pass

    await asyncio.gather(*(one_after_the_other() for _ in range(AT_A_TIME)))


def test_nothing_is_left_of_2000_connections(serve, script, wait_until):
    with serve(script("def init(): pass\ndef run(data): return data\n"), "--scorers", "2") as server:
        tree = [psutil.Process(server.process.pid), server.front, *server.scorers]

        def held() -> tuple[list[tuple[int, int]], list[int]]:
            """Descriptors and threads of every process, and the processes themselves."""
            now = [process.pid for process in (tree[0], *tree[0].children(recursive=True))]
            return [(process.num_fds(), process.num_threads()) for process in tree], sorted(now)

        def not_more() -> bool:
            (numbers, pids), (numbers_before, pids_before) = held(), before
            pairs = zip(numbers, numbers_before, strict=True)
            return pids == pids_before and all(
                fds <= fds_before and threads <= threads_before
                for (fds, threads), (fds_before, threads_before) in pairs
            )

        def idle() -> bool:
            body = server.get("/metrics").body
            return b"scoring_connections 1.0" in body and b"scoring_queue_requests 0.0" in body

        asyncio.run(open_and_close(server.port, 10 * len(WAYS)))
        wait_until(idle)
        before = held()
        memory_before = server.front.memory_info().rss

        asyncio.run(open_and_close(server.port, CONNECTIONS))
        wait_until(idle)
        wait_until(not_more, "descriptors, threads or processes of the connections are left", 10.0)

        assert server.front.memory_info().rss - memory_before < 30 << 20
        assert "Traceback" not in server.log
        assert server.score(b"x").json == "x"


DIES = """
import ctypes, os, time
from pathlib import Path

def init():
    if Path("fail").exists():
        raise RuntimeError("told to fail")

def run(data):
    if data == "exit":
        os._exit(1)
    if data == "segfault":
        ctypes.string_at(0)
    if data == "close":
        os.closerange(3, 1000)
    return data
"""


def held_by(pid: int) -> Counter[str]:
    """Descriptors by what they are, and mappings of anonymous files."""
    held: Counter[str] = Counter()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            held[re.sub(r"\d+|\(deleted\)", "", str(link.readlink()))] += 1
    held["mapped"] = Path(f"/proc/{pid}/maps").read_text().count("/memfd:")
    return held


def test_nothing_is_left_of_scorers_that_died_in_every_way(serve, script, wait_until, tmp_path):
    scorers = 5
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environ = {"TMPDIR": str(temporary)}
    with serve(script(DIES), "--scorers", str(scorers), folder=tmp_path, environ=environ) as server:

        def all_live() -> bool:
            return b"scoring_scorers_live %d.0" % scorers in server.get("/metrics").body

        def replaced(killed: set[int]) -> bool:
            return all_live() and not killed & {scorer.pid for scorer in server.scorers}

        def killed(number: int) -> None:
            pids = {scorer.pid for scorer in server.scorers}
            for pid in pids:
                os.kill(pid, number)
            wait_until(lambda: replaced(pids))

        def held() -> tuple[object, object]:
            return held_by(server.front.pid), held_by(server.process.pid)

        def at_rest() -> bool:
            """What the last life left open is let go of a moment after the next one is ready."""
            first = held()
            time.sleep(0.5)
            return held() == first

        killed(signal.SIGKILL)
        wait_until(at_rest)
        before = held()
        for way in ("exit", "segfault", "close", "exit", "segfault"):
            assert server.score(way.encode()).status in (200, 500)
        wait_until(all_live)
        (tmp_path / "fail").touch()
        (victim, *_) = server.scorers
        victim.kill()
        wait_until(lambda: server.log.count("told to fail") >= 2)
        (tmp_path / "fail").unlink()
        wait_until(all_live)
        killed(signal.SIGTERM)

        def as_before() -> bool:
            return held() == before

        wait_until(as_before, "descriptors or shared memory of scorers are left", 10.0)
        assert not [child for child in server.front.children() if child.status() == psutil.STATUS_ZOMBIE]
        assert server.score(b"x").json == "x"

    assert list(temporary.iterdir()) == []
