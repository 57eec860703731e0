"""The front's end of the socket."""

import asyncio
import socket

import uvloop

from scoring_runtime.pool.channel import Channel


def test_a_frame_for_a_scorer_whose_channel_has_just_closed_goes_nowhere():
    """Its exit is heard of a little later, and until then it counts as idle: the frame comes back when it is."""

    async def send_after_the_end() -> None:
        ours, theirs = socket.socketpair()
        closed = asyncio.Event()
        channel = Channel(lambda frame: None, closed.set)
        await asyncio.get_running_loop().create_unix_connection(lambda: channel, sock=ours)
        theirs.close()
        await closed.wait()
        await asyncio.sleep(0)
        channel.send([b"frame"])
        channel.close()
        channel.abort()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(send_after_the_end())
