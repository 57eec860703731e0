"""The OpenAPI documents and how they are chosen."""

from pathlib import Path

import pytest

from scoring_runtime import openapi
from scoring_runtime.errors import ConfigurationError

SERVICE = openapi.Service('my "service"', "1.2", "/api/v1/")
SCHEMA = {
    "input": {"type": "object", "example": {"a": 1}},
    "output": {"type": "array"},
    "versions": ["2.0", "3.0", "3.1"],
}


def test_documents_name_service_prefix_and_schemas() -> None:
    two, three, three_one = openapi.documents(SERVICE, SCHEMA, {}).values()
    assert two["swagger"] == "2.0"
    assert two["info"]["title"] == 'my "service"'
    assert two["info"]["version"] == "1.2"
    assert list(two["paths"]) == ["/api/v1/", "/api/v1/score", "/api/v1/swagger.json"]
    assert two["definitions"]["ServiceInput"] == SCHEMA["input"]
    assert three["openapi"] == "3.0.3"
    assert three["components"]["schemas"]["ServiceOutput"] == SCHEMA["output"]
    assert {**three_one, "openapi": "3.0.3"} == three
    assert three_one["openapi"] == "3.1.0"


def test_without_prefix_and_schema() -> None:
    document = openapi.documents(openapi.Service("s", "1", ""), {}, {})["2"]
    assert list(document["paths"]) == ["/", "/score", "/swagger.json"]
    assert document["definitions"]["ServiceInput"] == {"type": "object", "example": {}}


@pytest.mark.parametrize(
    ("asked", "key"), [(None, "2"), ("2", "2"), ("2.0", "2"), ("3", "3"), ("3.0", "3"), ("3.1", "3.1")]
)
def test_versions_and_their_aliases(asked: str | None, key: str) -> None:
    documents = openapi.documents(SERVICE, SCHEMA, {})
    assert openapi.select(documents, asked) is documents[key]


def test_an_unknown_version_is_refused_with_those_that_there_are() -> None:
    documents = openapi.documents(SERVICE, {**SCHEMA, "versions": ["3.0", "3.1"]}, {})
    with pytest.raises(
        openapi.UnknownVersionError, match=r"Swagger version \[7\] is not valid. Supported versions: \[3, 3.1\]."
    ):
        openapi.select(documents, "7")
    with pytest.raises(
        openapi.UnknownVersionError, match=r"\[2.0\] is not supported for the scoring script. Supported swagger"
    ):
        openapi.select(documents, "2.0")


def test_the_users_own_documents_win(tmp_path: Path) -> None:
    (tmp_path / "swagger2.json").write_text('{"mine": 2}')
    (tmp_path / "swagger3.json").write_text("{}")  # empty: does not count
    own = openapi.read_user_documents(tmp_path)
    documents = openapi.documents(SERVICE, SCHEMA, own)
    assert documents["2"] == {"mine": 2}
    assert documents["3"]["openapi"] == "3.0.3"


def test_a_document_that_is_no_json_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "swagger.json").write_text("{")
    with pytest.raises(ConfigurationError, match=r"swagger.json: not valid JSON") as caught:
        openapi.read_user_documents(tmp_path)
    assert caught.value.exit_code == 3


def test_a_document_that_is_nested_too_deep_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "swagger.json").write_text("[" * 100_000)

    with pytest.raises(ConfigurationError, match=r"swagger\.json: not valid JSON"):
        openapi.read_user_documents(tmp_path)


def test_an_onnx_model_shows_its_example() -> None:
    document = openapi.documents(SERVICE, openapi.schema({"sample": {"data": [[0.0]]}}), {})["3"]
    assert document["components"]["schemas"]["ServiceInput"]["example"] == {"data": [[0.0]]}
