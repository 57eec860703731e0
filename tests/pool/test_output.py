"""What scorers print is passed on in whole lines."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from scoring_runtime.pool.output import MAX_LINE_BYTES, LineCutter

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
