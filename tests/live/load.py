"""Clients that ask without pause, each answer kept by the number that was asked."""

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import Any

CONNECTIONS = 16
TIMEOUT_S = 120.0


class Load:
    """Asks without pause from many connections until it is told to stop, and keeps every answer by its number."""

    def __init__(self, port: int, connect: Any, encode: Callable[[int], bytes]) -> None:
        self.answers: dict[int, Any] = {}
        self.unanswered: list[int] = []
        self._port = port
        self._connect = connect
        self._encode = encode
        self._numbers = itertools.count(1)
        self._stopping = False

    def run(self, meanwhile: Callable[[], None]) -> None:
        """Until `meanwhile`, which runs in another thread, is done."""
        asyncio.run(self._run(meanwhile))

    def await_more(self, count: int) -> None:
        """Wait until so many more requests have their answers. For `meanwhile`."""
        goal = len(self.answers) + count
        deadline = time.monotonic() + TIMEOUT_S
        while len(self.answers) < goal:
            assert time.monotonic() < deadline, f"{len(self.answers)} answers after {TIMEOUT_S:g} s, not {goal}"
            time.sleep(0.005)

    async def _run(self, meanwhile: Callable[[], None]) -> None:
        clients = [asyncio.create_task(self._ask()) for _ in range(CONNECTIONS)]
        try:
            await asyncio.to_thread(meanwhile)
        finally:
            self._stopping = True
            await asyncio.gather(*clients)

    async def _ask(self) -> None:
        while not self._stopping:
            try:
                async with self._connect(self._port) as client:
                    await self._ask_on(client)
            except ConnectionRefusedError:
                return

    async def _ask_on(self, client: Any) -> None:
        while not self._stopping:
            number = next(self._numbers)
            try:
                answer = await client.post(self._encode(number))
            except (ConnectionError, EOFError):
                self.unanswered.append(number)
                return
            self.answers[number] = answer
            if answer.headers.get("connection") == "close":
                return


def encode_number(number: int) -> bytes:
    return b'{"number": %d}' % number


def encode_row(number: int) -> bytes:
    return b'{"data": [[%d]]}' % number
