"""AZUREML_DEBUG_PORT: the scorer waits for a debugger before it loads the script."""

from pathlib import Path

DEBUGPY = """
def connect(port):
    print("connect", repr(port), flush=True)
    if port == 9:
        raise ConnectionRefusedError(111, "Connection refused")

def wait_for_client():
    print("wait_for_client", flush=True)
"""

SCRIPT = """
print("loaded")
def init(): pass
def run(data): return data
"""


def with_debugpy(folder: Path) -> dict[str, str]:
    (folder / "packages").mkdir()
    (folder / "packages" / "debugpy.py").write_text(DEBUGPY)
    return {"PYTHONPATH": str(folder / "packages")}


def test_it_connects_and_waits_before_the_script_is_loaded(ready, tmp_path):
    scorer = ready(SCRIPT, environ=with_debugpy(tmp_path), debug_port=5678)

    assert scorer.json(b"x") == "x"
    lines = [line.rpartition(" - ")[2] for line in scorer.log.splitlines()]
    assert lines[:5] == [
        "!! Starting the inference server in DEBUGGING mode because AZUREML_DEBUG_PORT is set.",
        "!! This environment variable should not be set in a production environment.",
        "** Connecting to debugger at port 5678...",
        "connect 5678",
        "wait_for_client",
    ]
    assert "loaded" in lines[5:]


def test_debugpy_that_is_missing_is_said(fails):
    message, traceback = fails(SCRIPT, debug_port=5678)

    assert message.startswith("** Cannot connect to a debugger because debugpy is not installed.\n")
    assert "No module named 'debugpy'" in message
    assert traceback == ""


def test_a_debugger_that_does_not_listen_is_said(fails, tmp_path):
    message, traceback = fails(SCRIPT, environ=with_debugpy(tmp_path), debug_port=9)

    assert "AZUREML_DEBUG_PORT is 9, and no debugger can be reached there: ConnectionRefusedError" in message
    assert "Connection refused" in traceback


def test_without_a_port_there_is_no_debugger(ready, tmp_path):
    scorer = ready(SCRIPT, environ=with_debugpy(tmp_path), debug_port=None)

    assert "!!" not in scorer.log
    assert "connect" not in scorer.log
