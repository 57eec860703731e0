"""The contract's modes and answers, from real scorers in bare environments, one for each Python that was found."""

import json
import re
import shutil
import time
from pathlib import Path

import pytest

from scoring_runtime.scorer import frames
from scoring_runtime.scorer.frames import (
    CANCEL,
    FLAG_ABORT,
    FLAG_EXPIRED,
    FLAG_MORE,
    FLAG_NO_FAILED_HEADER,
    FLAG_RUN_FAILED,
    FLAG_RUN_RETURNED,
    PULL,
    Reply,
)

RESPONSE_FLAGS = FLAG_RUN_RETURNED | FLAG_NO_FAILED_HEADER
FAILED = {"message": "An unexpected error occurred in scoring script. Check the logs for more info."}
INTERNAL = {"message": "An unexpected internal error occurred. Check the logs for more info."}

ECHO = """
    def init():
        pass

    def run(data):
        return data
"""

EVERYTHING = """
    import json, logging, os, sys, time
    import frames, loop, schema, helper   # the user's own modules of these names

    def init():
        global calls
        calls = 0
        print("in", "init", sep="-", end="!")

    def run(text):
        global calls
        calls += 1
        what = json.loads(text)
        return getattr(sys.modules[__name__], "do_" + what["do"])(what)

    def do_echo(what): return what
    def do_ok(what): return {"ok": True, "calls": calls}
    def do_none(what): return None
    def do_text(what): return 'a "text" \\u00e9'
    def do_raise(what): raise ValueError("secret detail")
    def do_exit(what): sys.exit(7)
    def do_interrupt(what): raise KeyboardInterrupt
    def do_timeout(what): raise TimeoutError("my own")
    def do_circle(what): what["self"] = what; return what
    def do_object(what): return object()
    def do_keys(what): return {(1, 2): 3}
    def do_deep(what):
        value = []
        for _ in range(100000): value = [value]
        return value
    def do_surrogate(what): return "\\ud800"
    def do_sleep(what): time.sleep(what["s"]); return "slept"
    def do_spin(what):
        end = time.time() + what["s"]
        while time.time() < end: pass
        return "spun"
    def do_swallow(what):
        try: time.sleep(5)
        except TimeoutError: return "swallowed"
    def do_own_alarm(what):
        import signal
        signal.signal(signal.SIGALRM, signal.SIG_IGN); signal.alarm(0)
        return 1
    def do_big(what): return "x" * what["n"]
    def do_path(what):
        return [sys.path, sorted(n for n in sys.modules if "scoring_runtime" in n), sys.argv, __name__]
    def do_mine(what): return [frames.MINE, loop.MINE, schema.MINE, helper.MINE]
    def do_print(what): print(what["text"]); logging.info("info of the root"); sys.stderr.write("raw\\n")
    def do_pickle(what):
        import pickle
        return pickle.loads(pickle.dumps(Thing())).value

    class Thing:
        value = 5
"""


def body(do: str, **more: object) -> bytes:
    return json.dumps({"do": do, **more}).encode()


def message(reply: Reply) -> object:
    return json.loads(bytes(reply.body))


@pytest.fixture
def everything(ready, tmp_path):
    def start_everything(**how):
        for name in ("frames", "loop", "schema"):
            (tmp_path / f"{name}.py").write_text(f"MINE = {name!r}")
        source = tmp_path / "src"
        source.mkdir()
        (source / "helper.py").write_text("MINE = 'helper'")
        return ready(EVERYTHING, source_dir="src", **how)

    return start_everything


def test_plain_answers_under_every_python(everything, bare_python, version):
    scorer = everything(python=bare_python)

    info = scorer.info
    assert info["python"].startswith(version + ".")
    assert (info["engine"], info["mode"], info["arguments"]) == ("script", "string", ["text"])
    assert (info["headers"], info["methods"], info["idempotent"]) == ("none", ["GET", "POST"], False)
    assert info["swagger"]["input"] == info["swagger"]["output"] == {"type": "object", "example": {}}

    asked = [scorer.request(body("ok")) for _ in range(40)]
    scorer.send(*asked)
    replies = scorer.replies(40)
    assert [reply.id for reply in replies] == [request.id for request in asked]
    assert [message(reply) for reply in replies] == [{"ok": True, "calls": n + 1} for n in range(40)]
    assert {(reply.status, reply.flags, bytes(reply.head)) for reply in replies} == {(200, FLAG_RUN_RETURNED, b"")}
    assert scorer.progress.read() == asked[-1].id

    assert bytes(scorer.ask(body("none")).body) == b"{}"
    assert scorer.json(body("text")) == 'a "text" \u00e9'
    assert scorer.json(body("mine")) == ["frames", "loop", "schema", "helper"]
    assert scorer.json(body("pickle")) == 5
    path, ours, argv, name = scorer.json(body("path"))
    assert name == "entry_module"
    assert not [folder for folder in path if "scoring_runtime" in folder or "scorer" in Path(folder).parts]
    assert all(module.startswith("_scoring_runtime_scorer") for module in ours)
    assert argv == [path[-1] + "/score.py"] or argv[0].endswith("/score.py")

    lines = scorer.log.splitlines()
    texts = [line.partition(" - ")[2] for line in lines]
    assert texts[:6] == [
        "Model directory is not set or does not exist: ",
        f"Found user script at {argv[0]}",
        "run() is not decorated. Server will invoke it with the input in JSON string.",
        "Invoking user's init function",
        "in-init",
        "Users's init has completed successfully",
    ]
    assert scorer.close() == 0


def test_failures_stay_with_their_request_under_every_python(everything, bare_python):
    scorer = everything(python=bare_python)
    expected = {
        "raise": (FAILED, FLAG_RUN_FAILED),
        "exit": (FAILED, FLAG_RUN_FAILED),
        "interrupt": (FAILED, FLAG_RUN_FAILED),
        "timeout": (FAILED, FLAG_RUN_FAILED),
        "absent": (FAILED, FLAG_RUN_FAILED),
        "circle": (INTERNAL, 0),
        "object": (INTERNAL, 0),
        "keys": (INTERNAL, 0),
        "deep": (INTERNAL, 0),
    }
    requests = [scorer.request(body(do)) for do in expected]
    requests.insert(3, scorer.request(body("ok")))

    scorer.send(*requests)
    replies = scorer.replies(len(requests))

    assert message(replies.pop(3)) == {"ok": True, "calls": 4}
    for reply, (text, flags) in zip(replies, expected.values(), strict=True):
        assert (reply.status, message(reply), reply.flags) == (500, text, flags)
        assert b"secret" not in bytes(reply.body)
    assert scorer.json(body("surrogate")) == "\ud800"
    assert "ValueError: secret detail" in scorer.log
    assert " E [" in scorer.log
    assert "Encountered Exception: Traceback (most recent call last):\n  File" in scorer.log
    assert str(Path(frames.__file__).parent) not in scorer.log  # our frames are of no interest


def test_no_bytecode_of_ours_is_written(start, bare_python, tmp_path):
    # A copy that the user's interpreter has certainly never compiled.
    copied = tmp_path / "elsewhere" / "scorer"
    shutil.copytree(Path(frames.__file__).parent, copied, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "mine.py").write_text("x = 1")
    (tmp_path / "score.py").write_text("import mine\ndef init(): pass\ndef run(data): return mine.x\n")

    scorer = start(None, python=bare_python, main=copied / "__main__.py", environ={"PYTHONDONTWRITEBYTECODE": ""})

    assert scorer.json() == 1
    assert list(copied.rglob("*.pyc")) == []
    assert {path.name.partition(".")[0] for path in (tmp_path / "__pycache__").iterdir()} == {"mine", "score"}


@pytest.mark.parametrize("do", ["sleep", "spin"])
def test_time_limit_under_every_python(everything, bare_python, do):
    scorer = everything(python=bare_python, scoring_timeout_ms=200)
    frame = [scorer.request(body(do, s=s)) for s in (0.15, 0.1, 5.0)]  # each has its own time

    began = time.monotonic()
    scorer.send(*frame)
    first, second, third = scorer.replies(3)
    took = time.monotonic() - began

    assert [reply.status for reply in (first, second, third)] == [200, 200, 500]
    assert message(third) == {"message": "Scoring timeout after 200 ms"}
    assert third.flags == FLAG_RUN_FAILED
    assert 200_000 <= third.run_us < 300_000
    assert 0.45 <= took < 2


def test_time_limit_belongs_to_run_alone(everything):
    scorer = everything(scoring_timeout_ms=100)

    assert scorer.json(body("swallow")) == "swallowed"
    assert scorer.json(body("own_alarm")) == 1
    assert message(scorer.ask(body("sleep", s=5))) == {"message": "Scoring timeout after 100 ms"}
    time.sleep(0.2)  # idle for longer than the limit
    assert scorer.json(body("ok"))["ok"]


def test_no_time_limit(everything):
    scorer = everything(scoring_timeout_ms=0)

    assert scorer.json(body("sleep", s=0.2)) == "slept"


def test_a_request_whose_deadline_passed_before_its_turn_is_not_run(everything, bare_python):
    scorer = everything(python=bare_python)

    scorer.send(
        scorer.request(body("sleep", s=0.2), timeout_ms=60_000),
        scorer.request(body("ok"), timeout_ms=100),
        scorer.request(body("ok")),
    )
    slept, late, ok = scorer.replies(3)

    assert [reply.status for reply in (slept, late, ok)] == [200, 504, 200]
    assert message(late) == {"message": "The deadline of the request passed before it was answered."}
    assert (late.flags, late.run_us) == (FLAG_EXPIRED, 0)
    assert json.loads(bytes(ok.body))["calls"] == 2


def test_a_run_that_has_begun_is_not_interrupted_by_a_deadline_and_the_log_says_that_it_was_late(everything):
    scorer = everything(scoring_timeout_ms=5000)

    reply = scorer.ask(body("sleep", s=0.2), timeout_ms=50)

    assert (reply.status, reply.body) == (200, b'"slept"')
    assert re.search(r"run\(\) ended \d+ ms after the deadline of its request", scorer.log)
    scorer.ask(body("ok"), timeout_ms=60_000)
    assert scorer.log.count("after the deadline") == 1


def test_bodies_of_string_mode(ready):
    scorer = ready(ECHO)

    assert scorer.json(b"") == ""
    assert scorer.json("é".encode()) == "é"
    assert scorer.json(b"a=1&b=2", headers="content-type: application/x-www-form-urlencoded") == "a=1&b=2"
    big = "x" * 300_000
    assert scorer.json(big.encode()) == big
    refused = scorer.ask(b"\xff")
    assert (refused.status, refused.flags) == (400, 0)
    assert message(refused) == {
        "message": "Input cannot be decoded as UTF-8: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"
    }


def test_methods_of_string_mode(ready):
    scorer = ready(ECHO)

    assert scorer.json(method="GET") == "{}"
    assert scorer.json(method="GET", target="/score?a=1&b=%C3%A9&a=x") == '{"a": [1, "x"], "b": "\\u00e9"}'
    assert scorer.json(b"text", target="/score?a=1") == "text"
    head = scorer.ask(method="HEAD")
    assert (head.status, message(head)) == (405, {"message": "Method not allowed"})
    options = scorer.ask(method="OPTIONS")
    assert (options.status, bytes(options.body)) == (200, b"")
    assert options.head == b"Content-Type: text/html; charset=utf-8"


def test_results_of_200_mb(everything):
    scorer = everything()

    requests = [scorer.request(body("big", n=n)) for n in (200_000_000, 1, 2_000_000)]
    scorer.send(*requests)

    assert [len(reply.body) for reply in scorer.replies(3)] == [200_000_002, 3, 2_000_002]


def test_request_headers(ready):
    scorer = ready("""
        def init(): pass
        def run(request_headers, data, other=3): return [request_headers, data, other]
    """)

    assert scorer.info["headers"] == "all"
    got = scorer.json(b"d", headers="test-header: a\ntest-header: b\nhid_den: 1\nhost: h")
    assert got == [{"Test-Header": "a,b", "Host": "h"}, "d", 3]


def test_async_run_and_init(ready, bare_python):
    scorer = ready(
        """
        import asyncio, time
        async def init():
            global lock, loop
            lock = asyncio.Lock()
            loop = asyncio.get_event_loop()
        async def run(data):
            async with lock:
                if data == "hang":
                    try: await asyncio.sleep(60)
                    finally: global hung; hung = "cleaned up"
                if data == "raise": raise RuntimeError
                await asyncio.sleep(0.001)
                return [data, loop is asyncio.get_event_loop(), globals().get("hung")]
        """,
        python=bare_python,
        scoring_timeout_ms=300,
    )

    assert scorer.json(b"a") == ["a", True, None]
    assert message(scorer.ask(b"hang")) == {"message": "Scoring timeout after 300 ms"}
    assert message(scorer.ask(b"raise")) == FAILED
    assert scorer.json(b"b") == ["b", True, "cleaned up"]


def test_driver_module(ready, tmp_path):
    (tmp_path / "inner.py").write_text("def init(): raise SystemError\ndef run(data): return 'inner ' + data\n")

    scorer = ready("import inner as driver_module\ndef init(): pass\ndef run(data): return 'outer'\n")

    assert scorer.json(b"x") == "inner x"


def test_the_body_of_a_spawned_process_is_not_a_scorer(ready, tmp_path):
    (tmp_path / "work.py").write_text("def double(x): return 2 * x")
    scorer = ready("""
        import multiprocessing
        import work
        def init():
            global pool
            pool = multiprocessing.get_context("spawn").Pool(1)
        def run(data): return pool.apply_async(work.double, (int(data),)).get(20)
    """)

    assert scorer.json(b"21") == 42


RAW = """
    from {services}.aml_request import AMLRequest, rawhttp
    from {services}.aml_response import AMLResponse

    def init(): pass

    @rawhttp
    def run(request: AMLRequest):
        do = request.args.get("do")
        if do == "seen":
            return [request.method, request.path, request.remote_addr, request.headers.get("X-Y"), ":scheme:" in request.headers,
                    request.get_data().decode("latin-1"), request.url]
        if do == "bytes": return AMLResponse(request.data[::-1], 201, {{"Content-Type": "image/png", "X-List": "a, b"}})
        if do == "text": return AMLResponse("caf\\u00e9", 200)
        if do == "json": return AMLResponse({{"a": 1}}, 200, json_str=True)
        if do == "none": return AMLResponse(None, 200)
        if do == "failed": return AMLResponse("no", 503)
        if do == "said": return AMLResponse("no", 400, run_function_failed=True)
        if do == "crlf": return AMLResponse("", 200, {{"X-A": "1\\r\\nset-cookie: x"}})
        if do == "nul": return AMLResponse("", 200, {{"X-A": "\\0"}})
        if do == "greek": return AMLResponse("", 200, {{"X-A": "\\u03b1"}})
        if do == "name": return AMLResponse("", 200, {{"X A": "1"}})
        if do == "status": return AMLResponse("", 99)
        if do == "number": return AMLResponse(5, 200)
        if do == "framing": return AMLResponse("ok", 200, {{"Content-Length": "1", "Transfer-Encoding": "chunked"}})
        if do == "304": return AMLResponse("dropped", 304)
        if do == "plain": return {{"form": request.form, "size": len(request.files["f"].read())}}
        if do == "stream": return AMLResponse(pieces(), 200, {{"X-A": "1"}})
        if do == "empty": return AMLResponse(iter(()), 200)
        if do == "early": return AMLResponse(failing(0), 200)
        if do == "late": return AMLResponse(failing(1), 200)
        if do == "async": return AMLResponse(apieces(), 200)

    def pieces():
        try:
            for n in range(4): yield "piece %d" % n; yield ""
        finally:
            print("closed")

    def failing(count):
        for n in range(count): yield b"good"
        raise ValueError("in the middle")

    async def apieces():
        yield "a"
        yield "b"
"""
OURS, THEIRS = "azureml_inference_server_http.api", "azureml.contrib.services"


def raw(scorer, do: str, content: bytes = b"", **how) -> Reply:
    reply: Reply = scorer.ask(content, target=f"/score?do={do}", **how)
    return reply


def test_raw_mode_under_every_python(ready, bare_python):
    scorer = ready(RAW.format(services=THEIRS), python=bare_python)

    assert (scorer.info["mode"], scorer.info["headers"]) == ("raw", "all")
    assert scorer.info["methods"] == ["GET", "POST", "OPTIONS", "HEAD"]
    for method in scorer.info["methods"]:
        seen = message(raw(scorer, "seen", b"\xff", method=method, headers="x-y: 1\nhost: h"))
        assert seen == [method, "/score", "1.2.3.4", "1", False, "\xff", "http://h/score?do=seen"]

    reply = raw(scorer, "bytes", b"\x00\xff")
    assert (reply.status, bytes(reply.body), reply.flags) == (201, b"\xff\x00", RESPONSE_FLAGS)
    assert reply.head.split(b"\n") == [
        b"x-ms-run-function-failed: False",
        b"Content-Type: image/png",
        b"X-List: a",
        b"X-List: b",
    ]
    upload = (
        b'--B\r\nContent-Disposition: form-data; name="t"\r\n\r\nx\r\n'
        b'--B\r\nContent-Disposition: form-data; name="f"; filename="n"\r\n\r\n12345\r\n--B--\r\n'
    )
    reply = raw(scorer, "plain", upload, headers="content-type: multipart/form-data; boundary=B")
    assert message(reply) == {"form": {"t": "x"}, "size": 5}


def test_responses(ready):
    scorer = ready(RAW.format(services=OURS))
    html, as_json = b"Content-Type: text/html; charset=utf-8", b"Content-Type: application/json"
    good, bad = b"x-ms-run-function-failed: False", b"x-ms-run-function-failed: True"

    def summary(do: str) -> tuple[int, bytes, set[bytes]]:
        reply = raw(scorer, do)
        assert reply.flags == RESPONSE_FLAGS
        return reply.status, bytes(reply.body), set(reply.head.split(b"\n"))

    assert summary("text") == (200, "café".encode(), {html, good})
    assert summary("json") == (200, b'{"a": 1}', {as_json, good})
    assert summary("none") == (200, b"{}", {as_json, good})
    assert summary("failed") == (503, b"no", {html, bad})
    assert summary("said") == (400, b"no", {html, bad})
    assert summary("framing") == (200, b"ok", {html, good})
    assert summary("304") == (304, b"", {good})
    assert summary("empty") == (200, b"", {html, good})
    assert "run() output is HTTP Response" in scorer.log


@pytest.mark.parametrize(
    ("do", "why"),
    [
        ("nul", "the value of header X-A must be text without line breaks"),
        ("greek", "is not latin-1 text"),
        ("name", "'X A' is not the name of a header"),
        ("status", "99 is not the status of a response"),
    ],
)
def test_responses_that_cannot_be_sent(ready, do, why):
    scorer = ready(RAW.format(services=OURS))

    reply = raw(scorer, do)

    assert (reply.status, message(reply), reply.flags) == (500, INTERNAL, 0)
    assert why in scorer.log
    broken = raw(scorer, "crlf")
    assert (broken.status, message(broken), broken.flags) == (500, FAILED, FLAG_RUN_FAILED)
    assert "the value of header X-A must be text without line breaks, not '1\\r\\nset-cookie: x'" in scorer.log


def test_a_stream_comes_piece_by_piece(ready, bare_python):
    scorer = ready(RAW.format(services=OURS), python=bare_python)
    request = scorer.request(target="/score?do=stream")
    after = scorer.request(target="/score?do=text")

    scorer.send(request, after)
    (first,) = scorer.replies(1)
    assert (first.id, first.status, bytes(first.body)) == (request.id, 200, b"piece 0")
    assert first.flags == RESPONSE_FLAGS | FLAG_MORE
    assert set(first.head.split(b"\n")) >= {b"X-A: 1", b"Content-Type: text/html; charset=utf-8"}
    pieces = []
    while True:
        scorer.control(PULL, request.id)
        reply = scorer.replies(1)[0]
        if not reply.flags & FLAG_MORE:
            break
        pieces.append(bytes(reply.body))

    assert pieces == [b"piece 1", b"piece 2", b"piece 3"]
    assert (reply.id, bytes(reply.body), reply.flags) == (request.id, b"", 0)
    assert scorer.replies(1)[0].id == after.id
    assert "closed" in scorer.log


def test_a_stream_that_nobody_reads_is_closed(ready):
    scorer = ready(RAW.format(services=OURS))
    request = scorer.request(target="/score?do=stream")
    scorer.send(request)
    scorer.replies(1)
    waiting = scorer.request(target="/score?do=text")

    scorer.send(waiting)  # a frame that comes meanwhile keeps its turn
    scorer.control(PULL, request.id + 77)  # of another request: ignored
    scorer.control(CANCEL, request.id)
    last = scorer.replies(1)[0]
    scorer.control(CANCEL, request.id)  # too late: ignored

    assert (last.id, bytes(last.body), last.flags) == (request.id, b"", 0)
    assert scorer.replies(1)[0].id == waiting.id
    assert raw(scorer, "text").status == 200
    assert scorer.log.count("closed") == 1


def test_a_stream_that_fails(ready):
    scorer = ready(RAW.format(services=OURS))

    early = raw(scorer, "early")
    number = scorer.request(target="/score?do=number")
    scorer.send(number)
    (unsendable,) = scorer.replies(1)
    late = scorer.request(target="/score?do=late")
    scorer.send(late)
    (first,) = scorer.replies(1)
    scorer.control(PULL, late.id)
    (last,) = scorer.replies(1)

    assert (early.status, message(early), early.flags) == (500, FAILED, FLAG_RUN_FAILED)
    assert unsendable.status == 500
    assert (bytes(first.body), first.flags) == (b"good", RESPONSE_FLAGS | FLAG_MORE)
    assert (bytes(last.body), last.flags) == (b"", FLAG_ABORT)
    assert raw(scorer, "text").status == 200
    assert scorer.log.count("ValueError: in the middle") == 2


def test_an_async_stream(ready, bare_python):
    scorer = ready(RAW.format(services=OURS), python=bare_python)
    request = scorer.request(target="/score?do=async")

    scorer.send(request)
    got = [scorer.replies(1)[0]]
    while got[-1].flags & FLAG_MORE:
        scorer.control(PULL, request.id)
        got += scorer.replies(1)

    assert [bytes(reply.body) for reply in got] == [b"a", b"b", b""]


def test_a_scorer_ends_when_the_front_hangs_up_in_a_stream(ready):
    scorer = ready(RAW.format(services=OURS))
    scorer.send(scorer.request(target="/score?do=stream"))
    scorer.replies(1)

    assert scorer.close() == 0


def test_installed_parts_of_azureml_go_on_working(ready, tmp_path):
    installed = tmp_path / "installed"
    (installed / "azureml" / "ai" / "monitoring").mkdir(parents=True)
    (installed / "azureml" / "ai" / "monitoring" / "__init__.py").write_text("class Collector: installed = True\n")
    (installed / "azureml_inference_server_http").mkdir()
    (installed / "azureml_inference_server_http" / "__init__.py").write_text("raise ImportError('another server')\n")

    scorer = ready(
        """
        from azureml.contrib.services.aml_request import rawhttp
        import azureml.contrib.services.aml_response as theirs
        from azureml.ai.monitoring import Collector
        import azureml_inference_server_http.api.aml_response as ours
        import azureml_inference_server_http.api.aml_request as request
        def init(): pass
        def run(data): return [Collector.installed, theirs is ours, request.rawhttp is rawhttp]
        """,
        environ={"PYTHONPATH": str(installed)},
    )

    assert scorer.json() == [True, True, True]


def test_prints_and_logging(ready, bare_python):
    scorer = ready(
        """
        import contextlib, io, logging, sys
        print("at import")
        def init():
            logging.getLogger("mine").info("mine at info")
            logging.getLogger("mine").debug("mine at debug")
        def run(data):
            print("one", 2, sep=", ", end="", flush=True)
            print("to stdout", file=sys.stdout)
            print("to stderr", file=sys.stderr)
            print("\\u00e9\\ud800")
            print("a\\nb")
            with contextlib.redirect_stdout(io.StringIO()) as out: print("captured")
            logging.info("root at info")
            return out.getvalue()
        """,
        python=bare_python,
        environ={"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    )

    assert scorer.json() == "captured\n"
    pid = scorer.process.pid
    log = scorer.log
    for line in (
        f" I [{pid}] azmlinfsrv.print - at import\n",
        f" I [{pid}] mine - mine at info\n",
        f" I [{pid}] azmlinfsrv.print - one, 2\n",
        f" I [{pid}] azmlinfsrv.print - to stdout\n",
        f" I [{pid}] azmlinfsrv.print - é\\ud800\n",
        f" I [{pid}] azmlinfsrv.print - a\nb\n",
        f" I [{pid}] root - root at info\n",
    ):
        assert log.count(line) == 1, line
    assert "\nto stderr\n" in log
    assert log.count("captured") == 0
    assert "at debug" not in log


def test_log_level(ready):
    scorer = ready(
        "import logging\ndef init(): logging.debug('seen')\nprint('unseen')\ndef run(d): pass", log_level="warning"
    )
    assert "seen" not in scorer.log
    scorer = ready("import logging\ndef init(): logging.debug('seen')\ndef run(d): pass", log_level="debug")
    assert "D [" in scorer.log


def test_a_users_logging_json(ready, tmp_path):
    handler = {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "f", "filters": ["probe"]}
    (tmp_path / "logging.json").write_text(
        json.dumps(
            {
                "version": 1,
                "formatters": {"f": {"class": "azureml_inference_server_http.log_config.AMLLogFormatter"}},
                "filters": {"probe": {"()": "azureml_inference_server_http.log_config.RootAccessFilter"}},
                "handlers": {"h": handler},
                "loggers": {"azmlinfsrv": {"level": "INFO", "handlers": ["h"]}},
            }
        )
    )
    scorer = ready("def init(): print('shown')\ndef run(d): print('GET / HTTP/1.1')")

    scorer.ask()
    assert f"azmlinfsrv - Loaded logging config from {tmp_path}/logging.json\n" in scorer.log
    assert scorer.log.count("azmlinfsrv.print - shown\n") == 1
    assert "GET /" not in scorer.log


def test_lines_of_several_processes_are_not_torn(ready):
    scorer = ready("""
        import os
        def init(): pass
        def run(data):
            log, end, mine = os.dup(1), *os.pipe()
            os.dup2(mine, 1)  # the log is a pipe now
            os.close(mine)
            children = []
            for letter in "abc":
                children.append(os.fork())
                if not children[-1]:
                    for _ in range(100): print("\\n".join([letter * 3000] * 5))
                    os._exit(0)
            os.dup2(log, 1)
            with open(end) as lines: got = [line.split()[-1] for line in lines]
            for pid in children: os.waitpid(pid, 0)
            return [len(got), sorted({(len(line), "".join(sorted(set(line)))) for line in got})]
    """)

    assert scorer.json() == [1500, [[3000, "a"], [3000, "b"], [3000, "c"]]]


def test_a_scorer_ends_when_the_front_hangs_up_while_it_runs(ready):
    scorer = ready("import time\ndef init(): pass\ndef run(d): time.sleep(0.1); return 1")
    scorer.send(scorer.request())

    assert scorer.close() == 0
