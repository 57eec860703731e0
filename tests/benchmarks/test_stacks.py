"""Stacks: what two samplers write, counted and drawn."""

import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import report, stacks
from benchmarks.flames import flame_graph

RAW = """\
0x7f12 (libc.so.6);_run_module_as_main (<frozen runpy>:198);run (front/worker.py:49);Py_DECREF (object.h:537);a (a.py:1) 3
_run_module_as_main (<frozen runpy>:198);run (front/worker.py:49);a (a.py:2);a (a.py:9);write (libc.so.6) 2
_run_module_as_main (<frozen runpy>:198);run (front/worker.py:49);b (b.py:7);0x7f99 (orjson/orjson.so);0x7f9a (orjson/orjson.so) 1
"""
MAIN, RUN = "_run_module_as_main (<frozen runpy>)", "run (front/worker.py)"

PERF = """\
    ffff81 tcp_sendmsg ([kernel.kallsyms])
    ffff82 ksys_write ([kernel.kallsyms])
    7f10 __write (/usr/lib/libc.so.6)

    7f20 _PyEval_EvalFrameDefault (/usr/lib/libpython3.11.so.1.0)
    7f10 [unknown] ([unknown])

    ffff83 sysvec_apic_timer_interrupt ([kernel.kallsyms])

    ffff84 do_epoll_wait ([kernel.kallsyms])
    ffff85 __x64_sys_epoll_pwait ([kernel.kallsyms])

"""


def test_frames_are_functions_without_lines_addresses_and_inlined_headers():
    assert stacks.parse(RAW.splitlines()) == {
        (MAIN, RUN, "a (a.py)"): 3,
        (MAIN, RUN, "a (a.py)", "write (libc.so.6)"): 2,
        (MAIN, RUN, "b (b.py)", "(orjson.so)"): 1,
    }


def test_what_was_sampled_in_a_system_call_may_have_waited_and_is_left_out():
    assert (MAIN, RUN, "a (a.py)", "write (libc.so.6)") not in stacks.own(stacks.parse(RAW.splitlines()))
    assert stacks.own({("memmove (libc.so.6)",): 1}) == {("memmove (libc.so.6)",): 1}


def test_own_time_is_of_the_innermost_function_and_names_the_python_around_it():
    first, *_, last = stacks.own_time(stacks.parse(RAW.splitlines()), most=9)
    assert first == stacks.Row("a (a.py)", "", 0.5)
    assert last == stacks.Row("(orjson.so)", "b (b.py)", 1 / 6)


def test_what_all_stacks_share_is_cut_down_to_its_last_frame():
    found = stacks.without_trunk(stacks.parse(RAW.splitlines()))
    assert set(found) == {(RUN, "a (a.py)"), (RUN, "a (a.py)", "write (libc.so.6)"), (RUN, "b (b.py)", "(orjson.so)")}


def test_one_stack_is_its_own_trunk():
    assert stacks.without_trunk({("a", "b", "c"): 4}) == {("c",): 4}
    assert stacks.without_trunk({}) == {}


def test_perf_tells_libraries_and_system_calls():
    assert stacks.places(PERF) == {
        "kernel: write": 1, "libpython3.11.so.1.0": 1, "kernel: all else": 1, "kernel: epoll_pwait": 1,
    }  # fmt: skip


FRAMES = st.builds("{} ({}.py)".format, st.sampled_from(["a", "f.<locals>.<x>"]), st.sampled_from(["m", "p/q"]))
STACKS = st.dictionaries(st.lists(FRAMES, min_size=1, max_size=6).map(tuple), st.integers(1, 99), min_size=1)


def without_repetition(stack: stacks.Stack) -> stacks.Stack:
    return tuple(frame for place, frame in enumerate(stack) if place == 0 or stack[place - 1] != frame)


@given(STACKS)
def test_what_is_written_is_read_again_and_no_sample_is_lost(found):
    read = stacks.parse(stacks.written({without_repetition(stack): count for stack, count in found.items()}))
    assert stacks.parse(stacks.written(read)) == read
    assert sum(stacks.without_trunk(read).values()) == read.total()
    assert sum(row.share for row in stacks.own_time(read, most=10**6)) == pytest.approx(1)


@given(STACKS)
def test_boxes_are_within_their_callers(found):
    drawn = ET.fromstring(flame_graph("a < b", found))
    boxes = [box.attrib for box in drawn.iterfind("{*}g/{*}rect")]
    first = min(float(box["y"]) for box in boxes)
    assert sum(float(box["width"]) for box in boxes if float(box["y"]) == first) <= 1200
    assert all(float(box["x"]) + float(box["width"]) <= 1201 for box in boxes)
    assert flame_graph("a < b", found) == flame_graph("a < b", dict(reversed(found.items())))


def test_profiles_are_on_the_page():
    profile = {
        "engine": "ONNX engine",
        "scenario": "small",
        "load": "32 connections",
        "split": [{"process": "front", "user_us": 6.0, "kernel_us": 2.0}],
        "places": {"engine": {"libpython": 3, "kernel: read": 1}},
        "stacks": {"engine": ["run (a.py);<lambda> (b.py) 4"]},
    }
    page, plots = report.render({}, {"onnx": profile}, {})
    assert "| front, small | 6 | 2 | 25% |" in page
    assert "| libpython | 75.0% |" in page
    assert "| `<lambda> (b.py)` |  | 100.0% |" in page
    assert "![Flame graph](benchmarks/flames-onnx-engine.svg)" in page
    assert set(plots) == {"flames-onnx-engine.svg"}
