"""One client that sends at a constant rate, whatever comes back: every request has a number, and its own connection."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

ANSWER_WITHIN_S = 5.0
BIN_S = 0.5
STEADY_PART = 0.8
"""Good answers flow at the steady rate when a bin has this part of what was sent in its time."""


@dataclass
class Reply:
    """What became of one request: "right", "wrong", "error" or "lost"."""

    number: int
    sent_at: float
    settled_at: float
    outcome: str
    detail: str = ""


@dataclass
class Book:
    """All replies of one run; `guilty` are those to requests that asked for harm."""

    replies: list[Reply] = field(default_factory=list)
    guilty: list[Reply] = field(default_factory=list)


class Client:
    """Asks one server."""

    def __init__(self, port: int, scripted: bool) -> None:
        self.book = Book()
        self._port = port
        self._scripted = scripted
        self._next = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def send_steadily(self, rate: float, stop: asyncio.Event) -> None:
        """Until told to stop; a late turn of the loop is made up for."""
        began = time.monotonic()
        sent = 0
        while not stop.is_set():
            for _ in range(int((time.monotonic() - began) * rate) - sent):
                self.send()
                sent += 1
            await asyncio.sleep(1 / rate)

    def send(self, do: str = "") -> None:
        """One request; one that asks for harm is booked apart."""
        self._next += 1
        task = asyncio.create_task(self._ask(self._next, do))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def leave(self) -> None:
        """Send a request and reset the connection. Nobody is owed an answer."""
        self._next += 1
        number = self._next
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            return
        writer.write(self._encode(number, ""))
        await asyncio.sleep(0)
        writer.transport.abort()

    async def settle(self) -> None:
        """Wait until every request has its answer, or has waited too long for it."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _ask(self, number: int, do: str) -> None:
        sent_at = time.monotonic()
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                outcome, detail = judge(number, await self._exchange(self._encode(number, do)))
        except TimeoutError:
            outcome, detail = "lost", f"no answer within {ANSWER_WITHIN_S:g} s"
        except OSError as error:
            outcome, detail = "lost", type(error).__name__
        replies = self.book.guilty if do else self.book.replies
        replies.append(Reply(number, sent_at, time.monotonic(), outcome, detail))

    async def _exchange(self, data: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(data)
            return await reader.read()
        finally:
            writer.transport.abort()

    def _encode(self, number: int, do: str) -> bytes:
        body = json.dumps({"number": number, "do": do} if self._scripted else {"data": [[number]]}).encode()
        head = f"POST /score HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        return f"{head}\r\nConnection: close\r\n\r\n".encode() + body


def judge(number: int, data: bytes) -> tuple[str, str]:
    """Outcome and detail of a connection that brought these bytes before its end."""
    head, end, body = data.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    words = lines[0].split()
    if not end or len(words) < 2 or not words[1].isdigit():
        return "lost", "connection closed"
    if words[1] != b"200":
        return "error", words[1].decode()
    lengths = [int(line.split(b":")[1]) for line in lines if line.lower().startswith(b"content-length:")]
    if lengths and len(body) < lengths[0]:
        return "lost", "connection closed within the answer"
    try:
        value: Any = json.loads(body)
        value = value.get("outputs", value)
    except (ValueError, AttributeError):
        return "wrong", body[:80].decode("latin-1")
    expected = {"number": number, "twice": 2 * number}
    right = value in (expected, {name: [[number]] for name, number in expected.items()})
    return ("right", "") if right else ("wrong", body[:80].decode("latin-1"))


def recovery_s(replies: Iterable[Reply], struck_at: float, until: float) -> float | None:
    """From the fault to the end of the last bin in which too few right answers came; None when that is the last of all."""
    bins = int((until - struck_at) / BIN_S)
    came: Counter[int] = Counter()
    sent: Counter[int] = Counter()
    for reply in replies:
        sent[int((reply.sent_at - struck_at) // BIN_S)] += 1
        if reply.outcome == "right":
            came[int((reply.settled_at - struck_at) // BIN_S)] += 1
    poor = [index for index in range(bins) if came[index] < STEADY_PART * sent[index]]
    if not poor:
        return 0.0
    return None if poor[-1] == bins - 1 else (poor[-1] + 1) * BIN_S
