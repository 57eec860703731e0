"""What is asked, and what the right answer to it is."""

import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any
from urllib.parse import quote

from .wire import Answer, encode

Check = Callable[[Answer], str]
"""What is wrong with an answer of status 200; empty when it is right."""


@dataclass(frozen=True)
class Order:
    """A request with its number, and how its answer is judged."""

    number: int
    body: bytes
    check: Check
    headers: Sequence[str] = ()
    identity: str = ""
    """The value of x-ms-client-request-id, which the answer must repeat."""

    streamed: bool = False

    @property
    def post(self) -> bytes:
        """Its bytes."""
        return encode("POST", "/score", self.body, self.headers)

    def get(self, method: str) -> bytes:
        """Its bytes, with the body in the target."""
        return encode(method, f"/score?order={quote(self.body)}", headers=self.headers)

    def judge(self, answer: Answer) -> str:
        """What is wrong with an answer; empty when it is right, or a refusal that belongs to this request."""
        echoed = answer.headers.get("x-ms-client-request-id", "")
        if self.identity and echoed != self.identity and (echoed or answer.status == 200):
            return f"it carries the id {echoed!r} and not {self.identity!r}"
        return self.check(answer) if answer.status == 200 else ""


def script_order(number: int, random: Random, do: str = "echo", **more: Any) -> Order:
    """For a script. Some say their number in a header, too; the others share a head, which the server remembers."""
    body = json.dumps({"number": number, "do": do, **more}).encode()
    identity = f"chaos-{number}" if random.random() < 0.5 else ""
    headers = [f"x-ms-client-request-id: {identity}"] if identity else []
    if do == "stream":
        expected = b"".join(b"%d:%d;" % (number, index) * 50 for index in range(more["count"]))
        return Order(number, body, _is_body(expected), headers, identity, streamed=True)
    value: dict[str, Any] = {"number": number, "crc": zlib.crc32(body)}
    if do == "reply":
        value["text"] = f"{number}," * more["count"]
    return Order(number, body, _is_json(value), headers, identity)


def model_order(number: int, random: Random, rows: int = 1) -> Order:
    """For the model: the first row is the number."""
    values = [number, *(random.randrange(1 << 40) for _ in range(rows - 1))]
    outputs = {"number": [[value] for value in values], "value": [[3 * value + 7] for value in values]}
    body = json.dumps({"data": [[value] for value in values]}).encode()
    return Order(number, body, _is_outputs(outputs), ["Content-Type: application/json"])


def _is_body(expected: bytes) -> Check:
    return lambda answer: "" if answer.body == expected else f"{answer.body[:200]!r} is not {expected[:200]!r}"


def _is_json(expected: Any) -> Check:
    def check(answer: Answer) -> str:
        try:
            value = json.loads(answer.body)
        except ValueError:
            return f"no JSON: {answer.body[:200]!r}"
        return "" if value == expected else f"{str(value)[:200]} is not {str(expected)[:200]}"

    return check


def _is_outputs(expected: dict[str, Any]) -> Check:
    def check(answer: Answer) -> str:
        try:
            value = json.loads(answer.body)["outputs"]
        except (ValueError, KeyError, TypeError):
            return f"no outputs: {answer.body[:200]!r}"
        return "" if value == expected else f"{str(value)[:200]} is not {str(expected)[:200]}"

    return check
