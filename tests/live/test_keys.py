"""API keys on a running server: as an operator makes, changes and spoils them."""

import re
import subprocess

import pytest

from .conftest import COMMAND, environment

ECHO = "def init(): pass\ndef run(data): return data\n"


def make_key(name: str) -> tuple[str, str]:
    """A new key, and its line for the file."""
    made = subprocess.run(
        [*COMMAND, "new-key", name], capture_output=True, text=True, check=True, env=environment("none")
    )
    match = re.fullmatch(rf"The key of {name}, shown only now: (\S{{43}})\n", made.stderr)
    assert match
    return match[1], made.stdout


def test_keys_are_needed_changed_and_never_logged(serve, script, wait_until, tmp_path):
    (first, first_line), (second, second_line) = make_key("first"), make_key("second")
    path = tmp_path / "keys.txt"
    path.write_text(first_line)
    with serve(script(ECHO), "--api-keys-file", str(path)) as server:

        def status(key: str | None, target: str = "/score") -> int:
            headers = {} if key is None else {"Authorization": f"Bearer {key}"}
            answer = server.ask("POST" if target == "/score" else "GET", target, b"x", headers)
            return int(answer.status)

        assert [status(None), status(second), status(first)] == [401, 401, 200]
        assert server.get("/metrics").status == 401
        assert server.ask("GET", "/metrics", None, {"Authorization": f"Bearer {first}"}).status == 200
        assert b"scorer" not in server.get("/readyz?verbose").body

        path.with_suffix(".new").write_text(second_line)
        path.with_suffix(".new").replace(path)
        wait_until(lambda: (status(first), status(second)) == (401, 200), "the new keys")

        path.write_text("nonsense")
        wait_until(lambda: "The API keys stay as they were" in server.log, "the complaint")
        assert (status(first), status(second)) == (401, 200)
        path.unlink()
        wait_until(lambda: server.log.count("The API keys stay as they were") == 2, "the second complaint")
        assert (status(first), status(second)) == (401, 200)
        assert first not in server.log
        assert second not in server.log


@pytest.mark.parametrize("text", [None, "", "one sha256:xyz\n"])
def test_a_server_does_not_start_without_the_keys_it_needs(command, script, tmp_path, text):
    path = tmp_path / "keys.txt"
    if text is not None:
        path.write_text(text)
    ended = command("serve", script(ECHO), "--api-keys-file", path)
    assert ended.code == 3
    assert str(path) in ended.last_line


def test_a_name_that_the_file_cannot_hold(command):
    ended = command("new-key", "two words")
    assert ended.code == 1
    assert "is no name" in ended.output
