"""Requests from files of the user's."""

import json

import pytest

from scoring_runtime.errors import UsageError
from scoring_runtime.tune import bodies


def test_a_file_holds_one_body_or_one_on_each_line(tmp_path):
    lines, whole = tmp_path / "lines.jsonl", tmp_path / "whole.json"
    lines.write_text('{"data": [1]}\n\n{"data": [2]}\n')
    whole.write_text(json.dumps({"data": [3]}, indent=2))

    found = bodies.read([str(lines), str(whole)])
    assert [json.loads(body)["data"] for body in found] == [[1], [2], [3]]


def test_in_a_folder_each_file_is_a_body(tmp_path):
    for name, text in (("b", "2"), ("a", "1"), (".hidden", "3")):
        (tmp_path / name).write_text(text)
    (tmp_path / "below").mkdir()
    assert bodies.read([str(tmp_path)]) == [b"1", b"2"]


def test_no_more_are_read_than_can_be_used(tmp_path):
    (tmp_path / "many").write_text("1\n" * (bodies.MOST + 5))
    assert len(bodies.read([str(tmp_path / "many")])) == bodies.MOST


def test_what_is_not_used_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(bodies, "MOST_BYTES", 3)
    (tmp_path / "a").write_text("1234")
    (tmp_path / "b").symlink_to("/dev/full")  # no file: left out
    (tmp_path / "c").write_text("5")
    (tmp_path / "d").write_bytes(b"6")
    seen = []
    read_bytes = type(tmp_path).read_bytes

    def read(path):
        seen.append(path.name)
        return read_bytes(path)

    monkeypatch.setattr(type(tmp_path), "read_bytes", read)
    assert bodies.read([str(tmp_path)]) == [b"1234"]
    assert seen == ["a", "c"]


@pytest.mark.parametrize(
    ("text", "why"), [("", "holds no request"), ("\n \n", "holds no request"), ("1\n{\n", "line 2 is no JSON")]
)
def test_what_is_no_request_is_named(tmp_path, text, why):
    (tmp_path / "bad").write_text(text)
    with pytest.raises(UsageError, match=why):
        bodies.read([str(tmp_path / "bad")])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        bodies.read([str(tmp_path / "none")])
