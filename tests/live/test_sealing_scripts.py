"""Scripts that fight the server: it lives, answers probes, and the next good request is answered right.

A request brings the attack as text, so that one server can be put through many.
"""

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil
import pytest

SCRIPT = """
import os
getpid, number = os.getpid, int  # attacks may take them away

def init():
    pass

def run(data):
    if data.isdigit():
        return {"double": 2 * number(data), "pid": getpid()}
    scope = {"__name__": "attack"}
    exec(data, scope)
    return scope["run"]() if "run" in scope else "done"
"""

CHANNELS = """
import os, socket, stat, struct
channels = [fd for fd in range(3, 256) if os.path.exists("/proc/self/fd/%d" % fd) and stat.S_ISSOCK(os.fstat(fd).st_mode)]
def frame(kind, payload, count=0, size=None, magic=b"SR", version=1):
    return struct.pack("<2sBBIIQ", magic, version, kind, count, 7, len(payload) if size is None else size) + payload
def replies(*entries):
    ids, flags, heads, bodies = zip(*entries)
    count = len(entries)
    columns = struct.pack("<%dQ%dI%dI%dI%dH%dH" % ((count,) * 6), *ids, *[0] * count, *map(len, heads), *map(len, bodies),
                          *[200] * count, *flags)
    return frame(5, columns + b"".join(heads) + b"".join(bodies), count)
def send(data):
    for channel in channels:
        socket.socket(fileno=os.dup(channel)).sendall(data)
"""

PATCHES = {
    "socket": """
import socket
for name in ("recv", "recv_into", "send", "sendall", "close", "fileno"):
    setattr(socket.socket, name, lambda *_: b"wrong")
socket.socket = socket.socketpair = None
socket.setdefaulttimeout(0.001)
""",
    "os": """
import os
for name in ("write", "read", "close", "getpid", "getppid", "dup", "set_inheritable", "_exit", "kill", "fspath"):
    setattr(os, name, lambda *_: 0)
""",
    "json": """
import json
json.loads = json.dumps = json.load = json.dump = lambda *_, **__: "wrong"
""",
    "the classes of json": """
import json
json.encoder.c_make_encoder = json.encoder.encode_basestring_ascii = None
json.JSONEncoder.encode = json.JSONEncoder.iterencode = json.JSONDecoder.decode = lambda *_, **__: "wrong"
""",
    "signal": """
import signal
for name in ("signal", "getsignal", "setitimer", "getitimer", "alarm", "default_int_handler"):
    setattr(signal, name, lambda *_: "wrong")
""",
    "time": """
import time
for name in ("time", "monotonic", "perf_counter", "time_ns", "sleep", "gmtime", "localtime", "strftime"):
    setattr(time, name, lambda *_: "wrong")
""",
    "struct": "import struct; struct.Struct = struct.pack = struct.unpack = struct.unpack_from = None",
    "mmap": "import mmap; mmap.mmap = None",
    "threading": "import threading; threading.current_thread = threading.main_thread = threading.local = None",
    "traceback": "import traceback; traceback.format_exception = traceback.format_exc = None",
    "logging": """
import logging
logging.disable(100)
logging.Logger.error = logging.Logger.info = logging.Logger.warning = logging.Logger._log = None
logging.Handler.handleError = logging.raiseExceptions = None
""",
    "builtins": """
import builtins
builtins.print = builtins.open = None
for name in ("isinstance", "hasattr", "callable", "issubclass", "any", "all"):
    setattr(builtins, name, lambda *_: False)
for name in ("len", "min", "max", "sum", "int", "float", "str", "bytes", "zip", "map", "filter", "type", "getattr", "dict"):
    setattr(builtins, name, lambda *_, **__: 3)
""",
    "sys.modules": "import sys; sys.modules.clear()",
    "sys.stdout": "import sys; sys.stdout = sys.stderr = sys.__stdout__ = sys.__stderr__ = sys.stdin = None",
    "sys.exit": "import sys; sys.exit = sys.excepthook = sys.unraisablehook = sys.displayhook = None",
}
"""Left in place, one after the other, in the same process: its answers stay right."""

FATAL_BEFORE_READY = ("os", "the classes of json", "time", "threading", "logging", "builtins")
"""With these the standard library itself does not work any more when the rest of the scorer is set up after init()."""

NUISANCES = {
    "another folder": "import os; os.chdir('/')",
    "umask": "import os; os.umask(0o777)",
    "a group of its own": "import os\ntry: os.setsid()\nexcept OSError: os.setpgid(0, 0)",
    "SIGTERM ignored": "import signal; [signal.signal(n, signal.SIG_IGN) for n in (15, 1, 2, 3, 13, 17)]",
    "an alarm": "import signal; signal.signal(signal.SIGALRM, lambda *_: None); signal.setitimer(signal.ITIMER_REAL, .01, .01)",
    "recursion limit": "import sys; sys.setrecursionlimit(120)",
    "no collector": "import gc; gc.disable(); gc.freeze(); gc.set_threshold(0)",
    "a tracer": "import sys, threading; sys.settrace(lambda *_: None); sys.setprofile(lambda *_: None)",
    "a tracer that raises": "import sys; sys.settrace(lambda *_: 1 / 0)",
    "warnings": "import warnings; warnings.simplefilter('error')",
    "an endless thread": "import threading, time; threading.Thread(target=time.sleep, args=(10000,)).start()",
    "an exit handler that hangs": "import atexit, time; atexit.register(time.sleep, 10000)",
    "100 MB in one line": "import sys; [sys.stdout.write('x' * 1000000) for _ in range(100)]",
    "100 MB in one print": "print('y' * 100000000)",
    "NULs": "import sys; sys.stdout.write('\\0' * 100000); print('\\0\\r\\x1b[2J'); sys.stderr.write('\\0')",
    "a child that holds the pipes": "import subprocess; subprocess.Popen(['sleep', '10000'], close_fds=False)",
    "a child in a session of its own": """
import subprocess
subprocess.Popen(['sleep', '10000'], close_fds=False, start_new_session=True)
""",
    "a daemon": """
import os, time
pid = os.fork()
if not pid:
    os.setsid()
    if os.fork():
        os._exit(0)
    os.closerange(0, 65536)
    time.sleep(10000)
os.waitpid(pid, 0)
""",
    "no more descriptors": "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (0, 4096))",
    "no files": "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, -1))",
    "no stack of its own": "import threading; threading.stack_size(65536)",
    "asyncio.run": "import asyncio; asyncio.run(asyncio.sleep(0))",
    "SystemExit": "raise SystemExit(3)",
    "sys.exit": "import sys; sys.exit()",
    "KeyboardInterrupt": "raise KeyboardInterrupt",
    "GeneratorExit": "raise GeneratorExit",
    "StopIteration": "raise StopIteration",
    "MemoryError": "bytearray(1 << 60)",
    "RecursionError": "def f(): f()\nf()",
    "an error without text": "class E(BaseException):\n def __str__(self): raise self\n __repr__ = __str__\nraise E",
    "an error of no class": "class E(BaseException):\n __class__ = property(lambda s: 1 / 0)\nraise E",
    "a result that raises": "class R:\n __class__ = property(lambda s: 1 / 0)\nrun = R",
    "a result without end": "def run():\n r = []\n r.append(r)\n return r",
    "a result that is deep": "def run():\n r = []\n for _ in range(100000): r = [r]\n return r",
    "a result of another module": "class R: __module__ = 3\nrun = R",
    "a result that exits": "class R:\n def __getattr__(self, n): raise SystemExit\nrun = R",
    "multiprocessing": """
import multiprocessing
for method in ("fork", "forkserver", "spawn"):
    context = multiprocessing.get_context(method)
    pool = context.Pool(1)
    assert pool.map(abs, [-3]) == [3]
    pool.terminate()
    pool.join()
""",
    "packages of the server": """
import sys
for name in ("gunicorn", "flask", "uvloop", "scoring_runtime"):
    try: __import__(name)
    except ImportError: pass
""",
}
"""What a script may do without its process being lost."""

ATTACKS = {
    "os._exit": "import os; os._exit(0)",
    "os._exit with the code of a failed boot": "import os; os._exit(3)",
    "os._exit with the code of a failed load": "import os; os._exit(4)",
    "SIGKILL": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "its group": "import os, signal; os.kill(0, signal.SIGKILL)",
    "segmentation fault": "import ctypes; ctypes.string_at(0)",
    "abort": "import os; os.abort()",
    "every descriptor closed": "import os; os.closerange(0, 65536)",
    "every descriptor closed but the first": "import os; os.closerange(3, 65536)",
    "every descriptor replaced": """
import os
null = os.open("/dev/null", os.O_RDWR)
for fd in range(256):
    if fd != null and os.path.exists("/proc/self/fd/%d" % fd): os.dup2(null, fd)
""",
    "garbage on every descriptor": """
import os
for fd in range(256):
    try: os.write(fd, b"garbage" * 1000)
    except OSError: pass
""",
    "every descriptor truncated": """
import os
for fd in range(256):
    try: os.ftruncate(fd, 0)
    except OSError: pass
os._exit(1)
""",
    "a frame of 2 GiB": CHANNELS + "send(frame(5, b'', 1, 1 << 31)); os._exit(1)",
    "a frame over every limit": CHANNELS + "send(frame(5, b'', 1, 1 << 63))",
    "frames of every kind": CHANNELS + "[send(frame(kind, b'{}')) for kind in range(256)]",
    "READY a second time": CHANNELS + 'send(frame(2, b\'{"headers": 7, "methods": 7, "swagger": 7}\'))',
    "FATAL without end": CHANNELS + "[send(frame(3, b'{}')) for _ in range(100000)]",
    "replies to all ids": CHANNELS + "send(replies(*[(n, 0, b'', b'forged') for n in range(60000)]))",
    "no replies": CHANNELS + "send(frame(5, b'', 0))",
    "replies that lie about their size": CHANNELS + "send(frame(5, b'\\xff' * 24000, 1000))",
    "pieces that nobody pulled": CHANNELS
    + """
import struct
with open("/proc/self/maps") as maps:
    pass
[send(replies((n, 8, b'', b'forged'))) for n in range(10000)]
""",
    "a child that returns": "import os; os.fork()",
    "many children that return": "import os; [os.fork() for _ in range(3)]",
    "a daemon that returns": "import os\nif os.fork(): os._exit(0)\nos.setsid()",
    "no memory": "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 20, 1 << 20)); x = bytearray(1 << 24)",
    "no time": "import resource; resource.setrlimit(resource.RLIMIT_CPU, (1, 1))\nwhile True: pass",
    "a default alarm": "import signal, time; signal.signal(14, signal.SIG_DFL); signal.alarm(1); time.sleep(9)",
    "interrupted later": """
import _thread, threading
threading.Timer(0.05, _thread.interrupt_main).start()
""",
    "a handler that raises later": """
import signal
def ring(*_): raise RuntimeError("ring")
signal.signal(signal.SIGALRM, ring)
signal.setitimer(signal.ITIMER_REAL, 0.05)
""",
    "a main thread that dies beside an endless one": """
import sys, threading, time
threading.Thread(target=time.sleep, args=(10000,)).start()
sys.modules["_scoring_runtime_scorer.loop"].Channel.receive = None
""",
}
"""What may cost the process: another one answers the next request."""


LAST = """
import os, signal
front = os.getppid()
os.kill(front, signal.{0})
"""

EARLY = """
import os
number = int
for_later = {attacks!r}

def attack_all():
    for name, text in for_later:
        try:
            exec(text, {{"__name__": "attack"}})
        except Exception as error:
            os.write(2, b"attack failed: " + name.encode() + b"\\n")

{where}

def run(data):
    return {{"double": 2 * number(data), "pid": 0}}
"""

FORGED = (
    CHANNELS
    + """
def init():
    {attack}
    os.kill(os.getpid(), 19)

def run(data): pass
"""
)

BROKEN_STARTS = {
    "READY of 100 MB": ("send(frame(2, b'\"%s\"' % (b'x' * 100000000)))", "is over the limit"),
    "READY that is no JSON": ("send(frame(2, b'{'))", "holds no JSON"),
    "READY that is deep": ("send(frame(2, b'[' * 1000000))", "holds no JSON"),
    "READY with numbers for headers": ("send(frame(2, b'{\"headers\": 7}'))", "READY has 'headers': 7"),
    "READY with a text for methods": ('send(frame(2, b\'{"methods": "GET"}\'))', "READY has 'methods': 'GET'"),
    "READY with a list of lists": ("send(frame(2, b'{\"headers\": [[]]}'))", "READY has 'headers': [[]]"),
    "READY with a name of a number": ("send(frame(2, b'{\"name\": 7}'))", "READY has 'name': 7"),
    "READY with swagger that is none": ("send(frame(2, b'{\"swagger\": []}'))", "READY has 'swagger': []"),
    "READY with versions of numbers": ('send(frame(2, b\'{"swagger": {"versions": [2]}}\'))', "READY has 'swagger': "),
    "replies before READY": ("send(replies((1, 0, b'', b'x')))", "frame of kind 5 where READY was due"),
    "HTTP": ("send(b'GET / HTTP/1.1\\r\\nHost: here\\r\\n\\r\\n')", "stream out of step"),
}


@contextmanager
def probed(server: Any, least: int = 1) -> Iterator[None]:
    """Meanwhile /livez is asked again and again; each time it answers within a second."""
    done = threading.Event()
    took: list[float] = []
    failures: list[BaseException] = []

    def ask() -> None:
        while not done.is_set() or len(took) < least:
            began = time.monotonic()
            try:
                assert server.get("/livez").status == 200
            except Exception as error:
                failures.append(error)
                return
            took.append(time.monotonic() - began)
            done.wait(0.02)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    assert not failures
    assert max(took) < 1.0


def assert_answers(server: Any) -> int:
    """Good requests are answered right; the process that did it last."""
    for number in range(5):
        answer = server.score(b"%d" % number)
        assert answer.status == 200, answer.body
        assert answer.json["double"] == 2 * number
    return int(answer.json["pid"])


@pytest.fixture(scope="module")
def module_script(tmp_path_factory):
    path = tmp_path_factory.mktemp("hostile") / "score.py"
    path.write_text(SCRIPT)
    return path


@pytest.fixture(scope="module")
def one(serve, module_script):
    """One scorer: what is done to it lasts."""
    with serve(module_script) as server:
        yield server


@pytest.fixture(scope="module")
def several(serve, module_script):
    """Several scorers, so that each has been ended a few times at most, and no test waits for the back-off."""
    with serve(module_script, "--scorers", "6") as server:
        yield server


@pytest.mark.parametrize("name", PATCHES)
def test_patched(name, one):
    pid = assert_answers(one)
    with probed(one):
        assert one.score(PATCHES[name].encode()).status in (200, 500)
        assert one.score(b"raise ValueError('of a bad request')").status == 500
        assert assert_answers(one) == pid


@pytest.mark.parametrize("name", NUISANCES)
def test_nuisance(name, several):
    pid = assert_answers(several)
    with probed(several):
        assert several.score(NUISANCES[name].encode()).status in (200, 500)
        assert assert_answers(several) == pid


@pytest.mark.parametrize("name", ATTACKS)
def test_attack(name, several):
    assert_answers(several)
    front = several.front.pid
    with probed(several):
        answer = several.score(ATTACKS[name].encode())
        assert answer.status in (200, 500)
        assert_answers(several)
    assert several.front.pid == front


@pytest.mark.parametrize("signal_name", ["SIGKILL", "SIGTERM", "SIGINT", "SIGQUIT"])
def test_a_script_that_ends_the_front(signal_name, serve, module_script):
    """The arbiter starts another front. That user code may do so at all is a limit of running under the same user."""
    with serve(module_script) as server:
        front = server.front.pid
        with suppress(OSError, http.client.HTTPException):
            server.score(LAST.format(signal_name).encode())
        until_ready(server, front)
        assert_answers(server)


def until_ready(server: Any, ended: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with suppress(ValueError, psutil.Error):  # there is none just now
            if server.front.pid != ended and server.status("/readyz") == 200:
                return
        time.sleep(0.02)
    pytest.fail("no other front came")


@pytest.mark.parametrize(
    "where", ["attack_all()\ndef init(): pass", "def init(): attack_all()"], ids=["at import", "in init"]
)
@pytest.mark.parametrize("preload", ["false", "true"])
def test_everything_patched_before_the_first_request(where, preload, serve, script):
    # Without sys.modules everything is imported again, and meets what the other patches have left.
    survived = {name: text for name, text in PATCHES.items() if name not in (*FATAL_BEFORE_READY, "sys.modules")}
    text = EARLY.format(attacks=list(survived.items()), where=where)
    with serve(script(text), "--preload", preload) as server:
        assert_answers(server)
        assert "attack failed" not in server.log
        assert server.score(b"not a number").status == 500
        assert_answers(server)


@pytest.mark.parametrize("name", BROKEN_STARTS)
def test_a_broken_start_is_said_and_ends_the_server(name, command, script):
    attack, says = BROKEN_STARTS[name]
    path = script(FORGED.format(attack=attack))
    ended = command("check", path)
    assert ended.code == 3
    assert "sent what is no frame: " in ended.last_line
    assert says in ended.last_line


def test_a_broken_start_of_the_server(command, script):
    """As above, seen by the front itself."""
    path = script(FORGED.format(attack=BROKEN_STARTS["READY with numbers for headers"][0]))
    ended = command("serve", path, "--port", str(free_port()))
    assert ended.code == 3
    assert "sent what is no frame: READY has 'headers': 7; expected " in ended.last_line


@pytest.mark.parametrize("name", FATAL_BEFORE_READY)
def test_a_library_that_is_broken_before_the_server_is_ready(name, command, script):
    text = EARLY.format(attacks=[(name, PATCHES[name])], where="def init(): attack_all()")
    assert command("check", script(text)).code == 3


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_traceback_of_100_mb_is_cut(command, script):
    ended = command("check", script("def init(): raise ValueError('x' * 100_000_000)\ndef run(data): pass"))
    assert ended.code == 3
    assert "User's init function failed" in ended.output
    assert len(ended.output) < 2_000_000


def test_a_daemon_of_a_script_does_not_outlive_check(command, script):
    """`command` waits until no process is left."""
    daemon = NUISANCES["a daemon"].replace("\n", "\n    ")
    ended = command("check", script(f"def init():\n    {daemon}\ndef run(data): pass"))
    assert ended.code == 0


HEADS = """
from azureml_inference_server_http.api.aml_response import AMLResponse
from azureml_inference_server_http.api.aml_request import rawhttp

def init(): pass

@rawhttp
def run(request):
    data = request.get_data(as_text=True)
    if data.isdigit():
        return {"double": 2 * int(data), "pid": 0}
    status, headers = eval(data)
    response = AMLResponse("body", 200)
    response.status_code = status
    for name, value in headers:
        response.headers.add(name, value)
    return response
"""

REPLIES = {
    "split": (200, [("X-A", "b\r\nX-Evil: c")], 500),
    "split by a bare line feed": (200, [("X-A", "b\nX-Evil: c")], 500),
    "split by a bare return": (200, [("X-A", "b\rX-Evil: c")], 500),
    "split in a name": (200, [("X-A: b\r\nX-Evil", "c")], 500),
    "NUL": (200, [("X-A", "b\0X-Evil: c")], 500),
    "control characters": (200, [("X-A", "b\x1b\x07"), ("X-B", "b\x7f")], 200),
    "an empty name": (200, [("", "X-Evil")], 500),
    "not latin-1": (200, [("X-A", "\u20ac")], 500),
    "no text": (200, [("X-A", 7)], 500),
    "chunked": (200, [("Transfer-Encoding", "chunked")], 200),
    "a length that lies": (200, [("Content-Length", "1"), ("content-length", "100")], 200),
    "close": (200, [("Connection", "close"), ("Keep-Alive", "0"), ("Upgrade", "websocket"), ("Trailer", "X-A")], 200),
    "another server": (200, [("Server", "evil"), ("Date", "never")], 200),
    "many cookies": (200, [("Set-Cookie", f"c{number}=1") for number in range(90)], 200),
    "status 0": (0, [], 500),
    "status 100": (100, [], 500),
    "status 101": (101, [("Upgrade", "websocket")], 500),
    "status 199": (199, [], 500),
    "status 299": (299, [], 299),
    "status 999": (999, [], 999),
    "status 1000": (1000, [], 500),
    "status 9999": (9999, [], 500),
    "status -1": (-1, [], 500),
    "status that is none": ("200 OK\r\nX-Evil: 1", [], 200),
    "status 204": (204, [("Content-Length", "5")], 204),
    "status 304": (304, [], 304),
}


@pytest.fixture(scope="module")
def answering(serve, tmp_path_factory):
    path = tmp_path_factory.mktemp("heads") / "score.py"
    path.write_text(HEADS)
    with serve(path) as server:
        yield server


@pytest.mark.parametrize("name", REPLIES)
def test_a_reply_that_would_break_the_connection(name, answering):
    """The next answer on the very same connection is the right one."""
    status, headers, expected = REPLIES[name]
    connection = http.client.HTTPConnection("127.0.0.1", answering.port, timeout=30)
    try:
        connection.request("POST", "/score", repr((status, headers)).encode())
        response = connection.getresponse()
        body = response.read()
        assert response.status == expected
        assert response.headers.get("X-Evil") is None
        if expected not in (204, 304):
            assert len(body) == int(response.headers["Content-Length"])
        if expected == 200:
            assert body == b"body"
            assert response.headers.get_all("Server") == ["scoring-runtime"]
            assert len(response.headers.get_all("Date", [])) == 1
        kept = connection.sock
        connection.request("POST", "/score", b"21")
        assert connection.getresponse().read() == b'{"double": 42, "pid": 0}'
        assert connection.sock is kept
    finally:
        connection.close()
    assert_answers(answering)


def test_a_header_of_a_megabyte(answering):
    with socket.create_connection(("127.0.0.1", answering.port), 30) as client:
        body = b"(200, [('X-A', 'x' * 1000000)])"
        client.sendall(
            b"POST /score HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        client.sendall(body)
        answer = b"".join(iter(lambda: client.recv(1 << 20), b""))
    assert b"\r\nX-A: " + b"x" * 1_000_000 + b"\r\n" in answer
    assert answer.endswith(b"\r\n\r\nbody")
    assert_answers(answering)


FORKED_IN_INIT = """
import os

def init():
    os.fork()

def run(data):
    if data == "fork":
        os.fork()
    return {"double": 2 * int(data) if data.isdigit() else 0, "pid": os.getpid()}
"""


@pytest.mark.parametrize("preload", ["false", "true"])
def test_a_child_that_comes_back_ends_and_the_forks_of_a_preload_process_do_not(preload, serve, script, wait_until):
    with serve(script(FORKED_IN_INIT), "--scorers", "2", "--preload", preload) as server:
        assert_answers(server)
        for _ in range(3):
            assert server.score(b"fork").status == 200
            assert_answers(server)
        wait_until(lambda: "came back from the script: it is ended" in server.log)
        assert "restart in" not in server.log


KEPT = """
import gc, os, struct
from azureml_inference_server_http.api.aml_response import AMLResponse
from azureml_inference_server_http.api.aml_request import rawhttp

def init(): pass

def pieces():
    yield b"one"
    (progress,) = [each for each in gc.get_objects() if type(each).__name__ == "Progress"]
    (begun,) = struct.unpack("<Q", progress._map[:8])
    for number in range(begun + 100):
        progress.keep(number, 200, 0, 0, b"x-a: forged", b"forged")
    yield b"two"
    os._exit(1)

@rawhttp
def run(request):
    data = request.get_data(as_text=True)
    return AMLResponse(pieces(), 200) if data == "attack" else {"double": 2 * int(data), "pid": os.getpid()}
"""


def test_replies_forged_in_the_progress_file_settle_nothing_that_was_begun_in_pieces(serve, script):
    with serve(script(KEPT)) as server, socket.create_connection(("127.0.0.1", server.port), 30) as client:
        client.sendall(b"POST /score HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\nattack")
        answer = b"".join(iter(lambda: client.recv(1 << 20), b""))
        assert answer.endswith(b"\r\n\r\n3\r\none\r\n3\r\ntwo\r\n")
        assert b"forged" not in answer
        assert_answers(server)
