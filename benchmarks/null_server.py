"""The least that an HTTP server in Python can do: the floor that other servers are measured against.

uvloop and httptools, keep-alive, any method on any path: the body is read to its end and thrown away, and the answer is
always the same small JSON. It checks nothing, limits nothing and never calls a model.
"""

import argparse
import asyncio
from typing import cast

import httptools
import uvloop

BODY = b'{"label":[0],"probabilities":[[0.9816,0.0184,0.0]]}'
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)


class NullProtocol(asyncio.Protocol):
    """One connection. The methods `on_*` are called by the parser."""

    __slots__ = ("body", "parser", "transport")

    def __init__(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.transport: asyncio.Transport | None = None
        self.body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            assert self.transport is not None
            self.transport.close()

    def on_body(self, chunk: bytes) -> None:
        self.body.append(chunk)

    def on_message_complete(self) -> None:
        b"".join(self.body)
        self.body.clear()
        assert self.transport is not None
        self.transport.write(RESPONSE)
        if not self.parser.should_keep_alive():
            self.transport.close()


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(NullProtocol, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--port", type=int, required=True)
    uvloop.run(serve(arguments.parse_args().port))


if __name__ == "__main__":
    main()
