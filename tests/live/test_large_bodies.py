"""Large bodies against real servers: what arrives is what was sent, whoever goes away meanwhile, and nothing of it is kept."""

import asyncio
import hashlib
import os
import random
import signal
import ssl
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import orjson
import psutil
import pytest

from .certificates import Authority
from .conftest import Server, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no arena")

DIGEST = """
import hashlib, os, time
from pathlib import Path
from azureml.contrib.services.aml_request import rawhttp

def init(): pass

@rawhttp
def run(request):
    data = request.get_data()
    if data.startswith(b"die"):
        Path("died").open("a").write(".")
        os._exit(1)
    if data.startswith(b"slow"):
        time.sleep(0.2)
    return hashlib.sha256(data).hexdigest()
"""

LENGTH = """
import time
def init(): pass
def run(data):
    time.sleep(1.0 if data == "wait" else 0.0)
    return len(data)
"""

SIZES = [0, 10, 5_000, 65_536, 131_071, 131_072, 200_000, 602_000, 2_900_000, 20_000_000]
SUM = Path(__file__).parents[2] / "benchmarks" / "models" / "sum.onnx"
BLOCK = random.Random(1).randbytes(1 << 20)


def body_of(size: int, mark: int) -> bytes:
    return (b"%d " % mark + BLOCK * (size // len(BLOCK) + 1))[:size]


def digest(body: bytes) -> bytes:
    return b'"%b"' % hashlib.sha256(body).hexdigest().encode()


def request(body: bytes) -> bytes:
    return b"POST /score HTTP/1.1\r\nHost: here\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def arena_bytes(server: Server) -> int:
    """The memory that the front holds in the arena."""
    for path in Path(f"/proc/{server.front.pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            if "scoring-runtime-bodies" in str(path.readlink()):
                return path.stat().st_blocks * 512
    raise AssertionError("the front has no arena")


def mapped_bytes(process: psutil.Process) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("RssShmem:")[2].split()[0]) << 10


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    return int(head.split()[1]), await reader.readexactly(size)


async def end(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError, ssl.SSLError):
        await writer.wait_closed()


async def leave(writer: asyncio.StreamWriter) -> None:
    """Close in the middle of something."""
    writer.transport.abort()
    with suppress(ConnectionError, ssl.SSLError):
        await writer.wait_closed()


async def converse(port: int, seed: int, rounds: int, context: ssl.SSLContext | None) -> None:
    """Pipelined requests of all sizes on one connection; at times it goes away in the middle of one."""
    generator = random.Random(seed)
    reader = writer = None
    for number in range(rounds):
        if writer is None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, limit=1 << 26)
        assert reader is not None
        asked = [body_of(generator.choice(SIZES), seed * 1000 + number) for _ in range(generator.randint(1, 4))]
        data = b"".join(map(request, asked))
        if generator.random() < 0.2:
            writer.write(data[: generator.randrange(len(data))])
            await leave(writer)
            writer = None
            continue
        writer.write(data)
        for body in asked:
            assert await read_answer(reader) == (200, digest(body))
        await writer.drain()
    if writer is not None:
        await end(writer)


async def converse_at_once(port: int, context: ssl.SSLContext | None = None) -> None:
    await asyncio.gather(*(converse(port, seed, 12, context) for seed in range(8)))


@pytest.mark.parametrize("preload", ["false", "true"])
def test_bodies_of_all_sizes_at_once(serve, script, preload):
    with serve(script(DIGEST), "--scorers", "2", "--preload", preload) as server:
        asyncio.run(converse_at_once(server.port))
        until(lambda: arena_bytes(server) == 0, "memory of bodies is left", 30.0)
        assert server.log.count("is ready.") == 2
        assert "Traceback" not in server.log


def test_the_same_over_tls(serve, script, tmp_path):
    authority = Authority(tmp_path, "authority")
    certificate, key = authority.sign("server")
    context = ssl.create_default_context(cafile=str(authority.pem))
    flags = ["--scorers", "2", "--tls-cert", str(certificate), "--tls-key", str(key)]
    with serve(script(DIGEST), *flags, ready=False) as server:
        until(lambda: "is ready." in server.log or server.process.poll() is not None)
        asyncio.run(converse_at_once(server.port, context))
        until(lambda: arena_bytes(server) == 0, "memory of bodies is left", 30.0)
        assert "Traceback" not in server.log


def test_a_scorer_that_dies_under_a_large_body_harms_no_other(serve, script, tmp_path):
    with serve(script(DIGEST), "--scorers", "2", folder=tmp_path) as server:

        async def die() -> list[int]:
            statuses = []
            for _ in range(5):
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                writer.write(request(b"die" + BLOCK))
                statuses.append((await read_answer(reader))[0])
                await end(writer)
            return statuses

        async def both() -> list[int]:
            statuses, _ = await asyncio.gather(die(), converse_at_once(server.port))
            return statuses

        assert asyncio.run(both()) == [500] * 5
        assert (tmp_path / "died").read_text() == "....."
        until(lambda: arena_bytes(server) == 0, "memory of bodies is left", 30.0)


def test_what_was_sent_to_a_scorer_outlives_its_client(serve, script):
    """The place of a body that is still read is not given to another one."""
    with serve(script(DIGEST), "--scorers", "1") as server:

        async def run() -> None:
            for number in range(5):
                _, gone = await asyncio.open_connection("127.0.0.1", server.port)
                gone.write(request(b"slow" + body_of(1_000_000, number)))
                await gone.drain()
                await asyncio.sleep(0.05)
                await leave(gone)
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                body = body_of(1_000_000, number + 100)
                writer.write(request(body))
                assert await read_answer(reader) == (200, digest(body))
                await end(writer)

        asyncio.run(run())


def test_a_body_of_50_mb_leaves_nothing(serve):
    rows = np.random.default_rng(1).random((60_000, 100)).round(6)
    body = orjson.dumps({"data": rows}, option=orjson.OPT_SERIALIZE_NUMPY)
    assert len(body) > 50_000_000
    with serve(SUM, "--scorers", "1") as server:
        before = server.front.memory_info().rss
        with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", trust_env=False, timeout=60) as client:
            for _ in range(2):
                (output,) = client.post("/score", content=body).json()["outputs"].values()
                assert np.shape(output)[0] == 60_000
        until(lambda: arena_bytes(server) == 0, "memory of bodies is left", 30.0)
        assert [mapped_bytes(process) < 1 << 20 for process in (server.front, *server.scorers)] == [True, True]
        assert server.front.memory_info().rss - before < 20 << 20


SPIES = """
import os, subprocess
from azureml.contrib.services.aml_request import rawhttp

def arenas(pid):
    names = []
    for name in os.listdir("/proc/%s/fd" % pid):
        try:
            names.append(os.readlink("/proc/%s/fd/%s" % (pid, name)))
        except OSError:
            pass
    return sum("scoring-runtime-bodies" in name for name in names)

def init(): pass

@rawhttp
def run(request):
    child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        return [arenas("self") > 0, arenas(child.pid)]
    finally:
        child.kill()
        child.wait()
"""


def test_what_a_script_starts_does_not_inherit_it(serve, script):
    with serve(script(SPIES)) as server:
        assert server.score(BLOCK).json == [True, 0]


def test_the_arena_is_not_counted_as_a_scorer_s_own_memory(serve, script):
    limit = 80
    with serve(script(LENGTH), "--scorers", "1", "--max-scorer-memory-mb", str(limit)) as server:

        async def ask(body: bytes) -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(request(body))
            assert await read_answer(reader) == (200, b"%d" % len(body))
            await end(writer)

        async def together() -> None:
            await asyncio.gather(ask(b"wait"), *(ask(b"x" * 4_000_000) for _ in range(15)))

        asyncio.run(together())
        (scorer,) = server.scorers
        assert scorer.memory_info().rss > limit << 20
        time.sleep(1.0)  # it is looked at in the meantime
        assert server.log.count("is ready.") == 1


def test_a_client_that_announces_much_and_sends_little_costs_little(serve, script):
    with serve(script(DIGEST), "--scorers", "1") as server:

        async def announce() -> None:
            writers = []
            for _ in range(200):
                _, writer = await asyncio.open_connection("127.0.0.1", server.port)
                writer.write(b"POST /score HTTP/1.1\r\nHost: here\r\nContent-Length: 100000000\r\n\r\nfew")
                await writer.drain()
                writers.append(writer)
            assert await asyncio.to_thread(lambda: server.score(BLOCK).status) == 200
            assert arena_bytes(server) <= 200 * os.sysconf("SC_PAGE_SIZE") + 2 * len(BLOCK)
            for writer in writers:
                await end(writer)

        asyncio.run(announce())


def test_the_drain_waits_for_a_large_body(serve, script):
    with serve(script(DIGEST), "--scorers", "1") as server:
        body = body_of(3_000_000, 1)

        async def send() -> tuple[int, bytes]:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            data = request(body)
            writer.write(data[:1_000_000])
            await writer.drain()
            await asyncio.to_thread(until, lambda: arena_bytes(server) > 500_000)
            server.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.5)
            writer.write(data[1_000_000:])
            answer = await read_answer(reader)
            await end(writer)
            return answer

        assert asyncio.run(send()) == (200, digest(body))
