"""HTTP/1.1 as a strict client reads it: bytes that do not belong to an answer are found."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any, NamedTuple

STREAM_LIMIT_BYTES = 1 << 20
Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter


class Cut(Exception):
    """The connection ended, or could not be made, before the answer was whole."""


class NotHTTP(Exception):
    """What came is no answer: the server is at fault."""


class Answer(NamedTuple):
    """A whole response."""

    status: int
    headers: dict[str, str]
    """By lower-case name."""

    body: bytes

    @property
    def closes(self) -> bool:
        """Whether no other answer follows on its connection."""
        return self.headers.get("connection", "").lower() == "close"


@asynccontextmanager
async def connect(port: int) -> Any:
    """`async with connect(port) as (reader, writer)`; Cut when nobody listens."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=STREAM_LIMIT_BYTES)
    except OSError as error:
        raise Cut(f"no connection: {error}") from None
    try:
        yield reader, writer
    finally:
        writer.close()
        try:
            await writer.wait_closed()
        except OSError:
            pass


def encode(method: str, target: str, body: bytes = b"", headers: Sequence[str] = ()) -> bytes:
    """A request whose length is known."""
    lines = [f"{method} {target} HTTP/1.1", "Host: chaos", *headers]
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def encode_chunked(target: str, body: bytes, random: Random, headers: Sequence[str] = ()) -> Iterator[bytes]:
    """A POST in chunks of any size, in writes that end anywhere."""
    pieces = [f"POST {target} HTTP/1.1\r\nHost: chaos\r\nTransfer-Encoding: chunked\r\n".encode()]
    pieces += [f"{header}\r\n".encode() for header in headers]
    pieces.append(b"\r\n")
    at = 0
    while at < len(body):
        size = random.choice((1, 7, 100, 4096, 65536))
        chunk = body[at : at + size]
        pieces.append(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        at += size
    pieces.append(b"0\r\n\r\n")
    whole = b"".join(pieces)
    cuts = sorted(random.randrange(1, len(whole)) for _ in range(random.randrange(4)))
    for begin, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        yield whole[begin:end]


async def read_head(reader: Reader) -> tuple[int, dict[str, str]]:
    """Status and headers of the next answer."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        raise Cut(f"end of the stream after {len(error.partial)} bytes of a head") from None
    except asyncio.LimitOverrunError:
        raise NotHTTP("a head without end") from None
    except OSError as error:
        raise Cut(str(error)) from None
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    words = first.split(" ", 2)
    if len(words) < 2 or words[0] not in ("HTTP/1.1", "HTTP/1.0") or not words[1].isdigit():
        raise NotHTTP(f"an answer begins with {first[:200]!r}")
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or (name.lower() == "content-length" and "content-length" in headers):
            raise NotHTTP(f"a header line {line[:200]!r}")
        headers[name.lower()] = value.strip()
    return int(words[1]), headers


async def read_chunk(reader: Reader) -> bytes:
    """The next chunk of a body; empty for its end."""
    try:
        line = await reader.readuntil(b"\r\n")
        size = int(line, 16)
        piece = await reader.readexactly(size + 2)
    except asyncio.IncompleteReadError:
        raise Cut("end of the stream within a chunked body") from None
    except (ValueError, asyncio.LimitOverrunError):
        raise NotHTTP("a chunk without a size") from None
    except OSError as error:
        raise Cut(str(error)) from None
    if piece[size:] != b"\r\n":
        raise NotHTTP("a chunk longer than its size")
    return piece[:size]


async def read_answer(reader: Reader, *, bytes_per_s: float = 0.0) -> Answer:
    """The next answer, read at that pace; 0 for as fast as it comes."""
    status, headers = await read_head(reader)
    if headers.get("transfer-encoding", "").lower() == "chunked":
        pieces = []
        while piece := await read_chunk(reader):
            pieces.append(piece)
        return Answer(status, headers, b"".join(pieces))
    left = int(headers.get("content-length", "0"))
    pieces = []
    while left:
        try:
            piece = await reader.read(min(left, 65536))
        except OSError as error:
            raise Cut(str(error)) from None
        if not piece:
            raise Cut(f"end of the stream, {left} bytes before the end of a body")
        pieces.append(piece)
        left -= len(piece)
        if bytes_per_s:
            await asyncio.sleep(len(piece) / bytes_per_s)
    return Answer(status, headers, b"".join(pieces))


async def read_rest(reader: Reader) -> bytes:
    """What comes before the end of the stream; nothing should."""
    try:
        return await reader.read()
    except OSError:
        return b""
