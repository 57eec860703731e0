"""What scorers print is passed on in whole lines."""

import asyncio
import itertools
import os
import select

from hypothesis import given, settings
from hypothesis import strategies as st

from scoring_runtime.pool.output import MAX_LINE_BYTES, LineCutter, OutputPipe
from scoring_runtime.telemetry import sink as sinks

texts = st.lists(st.sampled_from([b"a", b"line", b"\n", b"\n\n", b"\r\n", b"\xff", b"\0"]), max_size=20).map(b"".join)


@settings(deadline=None)
@given(texts, st.lists(st.integers(0, 100), max_size=6))
def test_nothing_is_lost_and_only_whole_lines_come_out_however_the_stream_is_cut(text, cuts):
    cutter = LineCutter()
    edges = sorted({0, len(text), *(at % (len(text) + 1) for at in cuts)})
    pieces = [cutter.feed(text[begin:end]) for begin, end in itertools.pairwise(edges)]
    assert all(piece.endswith(b"\n") for piece in pieces if piece)
    ended = text if text.endswith(b"\n") or not text else text + b"\n"
    assert b"".join(pieces) + cutter.finish() == ended
    assert cutter.finish() == b""


def test_a_line_without_an_end_is_not_kept_for_ever():
    cutter = LineCutter()
    passed_on = b"".join(cutter.feed(b"x" * 65536) for _ in range(40))
    assert len(passed_on) > MAX_LINE_BYTES
    assert len(passed_on) + len(cutter.finish()) == 40 * 65536 + 1


def test_a_scorer_that_prints_faster_than_the_log_is_read_waits_and_loses_nothing(monkeypatch):
    monkeypatch.setattr(sinks, "PATIENCE_S", 1e9)
    printed = b"".join(b"%07d %b\n" % (number, b"x" * 991) for number in range(4000))

    async def copy() -> bytes:
        loop = asyncio.get_running_loop()
        source, writer = os.pipe()
        reader, target = os.pipe()
        sink = sinks.Sink(target)
        pipe = OutputPipe(loop, source, sink)
        with os.fdopen(writer, "wb", buffering=0) as scorer:
            printing = loop.run_in_executor(None, scorer.write, printed)
            while not sink.crowded:  # noqa: ASYNC110 - until the loop has copied so much
                await asyncio.sleep(0.001)
            assert not printing.done()
            read = b""
            while len(read) < len(printed):
                while select.select([reader], [], [], 0)[0]:
                    read += os.read(reader, 65536)
                    sink.flush()
                await asyncio.sleep(0.001)
            await printing
        pipe.close()
        assert sink.dropped == 0
        os.close(reader)
        os.close(target)
        return read

    assert asyncio.run(copy()) == printed


def test_a_scorer_goes_on_printing_when_nobody_reads_the_log(monkeypatch):
    monkeypatch.setattr(sinks, "PATIENCE_S", 0.05)

    async def copy() -> int:
        loop = asyncio.get_running_loop()
        source, writer = os.pipe()
        reader, target = os.pipe()
        sink = sinks.Sink(target)
        pipe = OutputPipe(loop, source, sink)
        with os.fdopen(writer, "wb", buffering=0) as scorer:
            await loop.run_in_executor(None, scorer.write, (b"x" * 999 + b"\n") * 4000)
        pipe.close()
        os.close(reader)
        os.close(target)
        return sink.dropped

    assert asyncio.run(copy()) > 2000
