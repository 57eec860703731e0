"""What cannot be served: one message that names file, cause and cure, the exit code, and the user's traceback last."""

import re
import socket
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from onnx import TensorProto, external_data_helper, helper, numpy_helper

import scoring_runtime

LOG_LINE = re.compile(r"^\d{4}-\d\d-\d\d [\d:,]+ [A-Z] \[\d+\] .*\n", re.MULTILINE)
GOOD = "def init(): pass\ndef run(data): return data\n"


class Case(NamedTuple):
    """What lies in the folder, what is asked for, and what must come of it."""

    files: dict[str, str | bytes]
    arguments: tuple[str, ...]
    says: tuple[str, ...]
    """Texts of the message; FOLDER stands for the test's folder."""
    code: int = 3
    last_line: str = ""
    """The last line that is printed: that of the user's traceback."""
    environ: dict[str, str] | None = None


def script_case(text: str, *says: str, last_line: str = "", flags: tuple[str, ...] = ()) -> Case:
    return Case({"score.py": text}, ("score.py", *flags), says, last_line=last_line)


def environ_case(name: str, value: str, *says: str, code: int = 3) -> Case:
    return Case({"score.py": GOOD}, ("score.py",), says, code, environ={name: value})


def flag_case(*flags: str, says: tuple[str, ...], code: int = 1) -> Case:
    return Case({"score.py": GOOD}, ("score.py", *flags), says, code)


CASES = {
    # the target
    "missing file": Case({}, ("no.py",), ("no.py: no such file or folder", "taken from FOLDER")),
    "missing model": Case({}, ("no.onnx",), ("no.onnx: no such file or folder",)),
    "neither Python nor ONNX": Case(
        {"model.pkl": b"\x80\x04"}, ("model.pkl",), ("model.pkl: neither a Python file", "through a score.py")
    ),
    "empty folder": Case({}, (".",), ("FOLDER: holds neither a score.py nor an .onnx file", "Add one")),
    "folder with two models": Case(
        {"a.onnx": b"x", "b.onnx": b"x"}, (".",), ("holds 2 ONNX models", "a.onnx, b.onnx", "Name the one to serve")
    ),
    "nothing named": Case({}, (), ("nothing to serve", "scoring-runtime serve score.py"), 1),
    # scripts
    "no init": script_case("def run(data): pass\n", "FOLDER/score.py does not have a init() function", "Define it"),
    "no run": script_case("def init(): pass\n", "FOLDER/score.py does not have a run() function", "Define it"),
    "syntax error": script_case(
        "def init(: pass\n", "FOLDER/score.py, line 1: SyntaxError", "Correct it", "--python", last_line="SyntaxError: "
    ),
    "import error": script_case(
        "import nonesuch\n" + GOOD,
        "FOLDER/score.py: ModuleNotFoundError: No module named 'nonesuch'",
        "install what is missing",
        "--python",
        last_line="ModuleNotFoundError: No module named 'nonesuch'",
    ),
    "script raises": script_case(
        "1 / 0\n", "FOLDER/score.py: ZeroDivisionError", last_line="ZeroDivisionError: division by zero"
    ),
    "init raises": script_case(
        "def init():\n    raise ValueError('no weights')\ndef run(data): pass\n",
        "User's init function failed",
        "FOLDER/score.py: init() raised ValueError: no weights",
        'File "FOLDER/score.py", line 2, in init',
        last_line="ValueError: no weights",
    ),
    "init calls sys.exit": script_case(
        "import sys\ndef init():\n    sys.exit(0)\ndef run(data): pass\n",
        "FOLDER/score.py: init() raised SystemExit: 0",
        last_line="SystemExit: 0",
    ),
    "init ends its process": script_case(
        "import os\ndef init(): os._exit(7)\ndef run(data): pass\n",
        "FOLDER/score.py: the scorer exited with code 7 while it loaded",
    ),
    "init is killed": script_case(
        "import os\ndef init(): os.kill(os.getpid(), 9)\ndef run(data): pass\n",
        "FOLDER/score.py: the scorer was killed by signal 9 (out of memory?) while it loaded",
    ),
    "init closes what it does not know": script_case(
        "import os, time\ndef init():\n    os.closerange(3, 256)\n    time.sleep(600)\ndef run(data): pass\n",
        "FOLDER/score.py: the scorer closed its channel to the server while it loaded",
        "close or replace descriptors",
    ),
    "init hangs": script_case(
        "import time\ndef init(): time.sleep(600)\ndef run(data): pass\n",
        "FOLDER/score.py: the scorer was not ready after 0.7 s",
        "Raise --start-timeout-s",
        flags=("--start-timeout-s", "0.7"),
    ),
    "init hangs and cannot be interrupted": script_case(
        "def init(): sum(range(10**15))\ndef run(data): pass\n",
        "was not ready after 0.7 s",
        flags=("--start-timeout-s", "0.7"),
    ),
    # settings
    "unknown flag": flag_case("--colour", "red", says=("unrecognized arguments: --colour red", "--help")),
    "flag of the wrong type": flag_case("--scorers", "many", says=("--scorers many: expected a whole number", "--help")),
    "flag out of range": flag_case("--start-timeout-s", "-1", says=("--start-timeout-s -1: expected a number of seconds",)),
    "flag that is cut short": flag_case("--scorer", "2", says=("unrecognized arguments: --scorer 2",)),
    "flag without its value": flag_case("--scorers", says=("argument --scorers: expected one argument",)),
    "no such interpreter": flag_case(
        "--python", "/no/python", says=("--python /no/python: no such executable", "python of your environment"), code=3
    ),
    "interpreter that is none": Case(
        {"score.py": GOOD, "python": "#!/no/such/interpreter\n"},
        ("score.py", "--python", "./python"),
        ("cannot start the interpreter", "--python"),
    ),
    "environment of the wrong type": environ_case(
        "SCORING_PORT", "web", "environment variable SCORING_PORT is 'web'", "a whole number from 1 to 65535", "--port"
    ),
    "environment of the launcher of the wrong type": environ_case(
        "WORKER_COUNT", "many", "environment variable WORKER_COUNT is 'many'", "use --scorers", code=1
    ),
    "scoring timeout of the wrong type": environ_case(
        "SCORING_TIMEOUT_MS", "soon", "environment variable SCORING_TIMEOUT_MS is 'soon'"
    ),
    "missing configuration file": flag_case(
        "--config-file", "no.json", says=("no.json: cannot read the configuration file: No such file",), code=3
    ),
    "configuration file that is no JSON": Case(
        {"score.py": GOOD, "c.json": "{port: 1}"},
        ("score.py", "--config-file", "c.json"),
        ("c.json: the configuration file is not valid JSON",),
    ),
    "configuration file with an unknown key": Case(
        {"score.py": GOOD, "c.json": '{"scorer": 2}'},
        ("score.py", "--config-file", "c.json"),
        ("c.json: 'scorer' is no setting. Did you mean 'scorers'?",),
    ),
}  # fmt: skip


@pytest.fixture
def assert_refused(command, tmp_path):
    def run(case, verb):
        for name, content in case.files.items():
            path = tmp_path / name
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
            path.chmod(0o755)
        port = ("--port", free_port()) if verb == "serve" else ()
        ended = command(verb, *case.arguments, *port, environ=case.environ)
        assert ended.code == case.code, ended.output
        message = LOG_LINE.sub("", ended.output)
        for text in case.says:
            assert text.replace("FOLDER", str(tmp_path)) in message, ended.output
        if case.last_line:
            assert ended.last_line.startswith(case.last_line), ended.output
        else:
            assert "Traceback" not in ended.output
        # The traceback, if there is one, is the user's alone.
        assert str(Path(scoring_runtime.__file__).parent) not in ended.output, ended.output

    return run


@pytest.mark.parametrize("verb", ["serve", "check"])
@pytest.mark.parametrize("name", CASES)
def test_what_cannot_be_served_is_said_in_one_message(name, verb, assert_refused):
    assert_refused(CASES[name], verb)


def with_weights_at(location: str) -> TensorProto:
    tensor = numpy_helper.from_array(np.arange(64, dtype=np.float32), "w")
    external_data_helper.set_external_data(tensor, location=location, offset=0, length=256)
    tensor.ClearField("raw_data")
    return tensor


@pytest.fixture
def broken_model(build, trained):
    """The bytes of a model with this fault."""
    declared = (TensorProto.FLOAT, ["N", 64])

    def make(fault):
        if fault == "truncated":
            return trained.digits_mlp.read_bytes()[:5000]
        if fault == "empty":
            return b""
        if fault == "newer opset":
            relu = helper.make_node("Relu", ["x"], ["y"])
            return build([relu], {"x": declared}, {"y": declared}, opset=99).SerializeToString()
        location = {"data missing": "w.bin", "data outside": "../w.bin", "data at a path": "/etc/hostname"}[fault]
        add = helper.make_node("Add", ["x", "w"], ["y"])
        return build([add], {"x": declared}, {"y": declared}, [with_weights_at(location)]).SerializeToString()

    return make


@pytest.mark.parametrize("verb", ["serve", "check"])
@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("truncated", ("no ONNX model, or a damaged one", "copy or export it again")),
        ("empty", ("the file is empty: copy the model again",)),
        ("newer opset", ("the model uses opset 99 of ai.onnx", "knows up to opset", "update onnxruntime")),
        ("data missing", ("tensor 'w' has its data in 'w.bin', but there is no such file", "put it into FOLDER")),
        ("data outside", ("tensor 'w'", "'../w.bin'", "points out of the model's folder")),
        ("data at a path", ("tensor 'w'", "'/etc/hostname'", "an absolute path")),
    ],
)
def test_a_model_that_cannot_be_served_is_said_in_one_message(fault, says, verb, broken_model, assert_refused):
    files: dict[str, str | bytes] = {"m.onnx": broken_model(fault)}
    assert_refused(Case(files, ("m.onnx",), ("FOLDER/m.onnx: ", *says)), verb)


def test_a_port_in_use(command, script):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        ended = command("serve", script(GOOD), "--port", port)
    assert ended.code == 1
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in ended.last_line
    assert "choose another one with --port" in ended.last_line


def test_the_port_of_a_running_server_is_refused_and_the_server_unharmed(command, script, serve):
    with serve(script(GOOD)) as server:
        ended = command("serve", script(GOOD), "--port", server.port)
        assert (ended.code, server.score(b"x").json) == (1, "x")


def test_an_address_that_is_not_ours(command, script):
    ended = command("serve", script(GOOD), "--host", "203.0.113.1", "--port", 50999)
    assert ended.code == 1
    assert "cannot listen on 203.0.113.1 port 50999: Cannot assign requested address" in ended.last_line


def test_help_and_version(command):
    for arguments, text in ((("--help",), "serve"), (("serve", "--help"), "--scorers"), (("--version",), "scoring")):
        ended = command(*arguments)
        assert ended.code == 0
        assert text in ended.output


def test_no_command(command):
    ended = command()
    assert ended.code == 1
    assert "scoring-runtime: error: the following arguments are required: COMMAND" in ended.last_line


def test_one_of_several_scorers_fails_to_load(script, command, tmp_path):
    """The first failure ends the start, and is told once."""
    text = "import os\ndef init():\n    os.mkdir('taken')\ndef run(data): pass\n"
    ended = command("serve", script(text), "--scorers", "3", "--port", free_port())
    assert ended.code == 3
    assert ended.last_line.startswith("FileExistsError: ")
    assert ended.output.count("User's init function failed") == 1
    assert "Master" not in ended.output.partition("User's init function failed")[2]


def test_what_was_printed_before_the_failure_comes_before_the_traceback(script, command):
    text = "import sys\ndef init():\n    print('out', flush=True)\n    print('err', file=sys.stderr)\n    raise OSError('disk')\ndef run(d): pass\n"
    ended = command("serve", script(text), "--port", free_port())
    assert ended.code == 3
    assert ended.last_line == "OSError: disk"
    assert "out" in ended.output.partition("Traceback")[0]
    assert "\nerr\n" in ended.output.partition("Traceback")[0]


def test_an_init_that_fails_after_a_restart_does_not_end_the_server(script, serve, tmp_path, wait_until):
    """Only the first start ends in an exit: later the server stays, not ready, and says why."""
    text = "import os\ndef init(): os.mkdir('once')\ndef run(data): os._exit(1)\n"
    with serve(script(text), folder=tmp_path) as server:
        assert server.score(b"").status == 500
        wait_until(lambda: server.log.count("init() raised FileExistsError") >= 2)
        reply = server.get("/readyz?verbose")
        assert reply.status == 503
        assert b"init() raised FileExistsError" in reply.body
        assert server.get("/").body == b"Healthy"
        (tmp_path / "once").rmdir()
        server.wait_ready()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_the_interpreter_of_the_server_is_named_where_none_was_chosen(script, command):
    ended = command("check", script("import nonesuch\n" + GOOD))
    assert f"({sys.executable})" in ended.output
