"""The OpenAPI documents of a scoring service: Swagger 2.0, OpenAPI 3.0 and 3.1. Pure.

Their texts and the order of their keys are those that clients generators have been fed with for years (contract 5.2).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import ConfigurationError

Document = Any
"""Any JSON value: a user's own file is served as it is."""

ALIASES = {"2": "2", "2.0": "2", "3": "3", "3.0": "3", "3.1": "3.1"}
"""What a client may ask for, and the version that it means."""

_NEEDS = {"2": {"2.0"}, "3": {"3.0"}, "3.1": {"3.1"}}
_USER_FILES = {"2": ("swagger.json", "swagger2.json"), "3": ("swagger3.json",), "3.1": ("swagger3.1.json",)}
_ANYTHING: dict[str, Any] = {"type": "object", "example": {}}


@dataclass(frozen=True)
class Service:
    """What the documents say about the service. `path_prefix` shows in their paths only."""

    name: str
    version: str
    path_prefix: str

    @property
    def prefix(self) -> str:
        """The prefix with one leading slash, or nothing."""
        stripped = self.path_prefix.strip("/")
        return f"/{stripped}" if stripped else ""


class UnknownVersionError(Exception):
    """No such document. The text is for the client."""


def schema(info: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a scorer said of its inputs and outputs when it was ready, as the two schemas of the documents."""
    if "swagger" in info:
        found: Mapping[str, Any] = info["swagger"]
        return found
    example = info.get("sample")
    return {"input": {"type": "object", "example": example}} if example else {}


def read_user_documents(app_root: Path) -> dict[str, Document]:
    """The user's own documents, by version; ConfigurationError when one is no JSON. Empty ones do not count."""
    documents = {}
    for version, names in _USER_FILES.items():
        for name in names:
            path = app_root / name
            if version in documents or not path.is_file():
                continue
            try:
                document = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError) as error:
                raise ConfigurationError(f"{path}: not valid JSON: {error}. Correct it or remove it.") from None
            if document:
                documents[version] = document
    return documents


def documents(service: Service, schema: Mapping[str, Any], own: Mapping[str, Document]) -> dict[str, Document]:
    """Every document that can be had, by version. `schema` is what the script engine found out about run()."""
    able = set(schema.get("versions", ("2.0", "3.0", "3.1")))
    taken: dict[str, Document] = {}
    for version in ("2", "3", "3.1"):
        if version in own:
            taken[version] = own[version]
        elif _NEEDS[version] & able:
            build = _version_2 if version == "2" else _version_3
            taken[version] = build(service, schema.get("input", _ANYTHING), schema.get("output", _ANYTHING))
            if version == "3.1":
                taken[version]["openapi"] = "3.1.0"
    return taken


def select(taken: Mapping[str, Document], asked: str | None) -> Document:
    """The document for `?version=asked`; UnknownVersionError with the contract's text when there is none."""
    text = "2" if asked is None else asked
    supported = f"[{', '.join(taken)}]"
    version = ALIASES.get(text)
    if version is None:
        raise UnknownVersionError(f"Swagger version [{text}] is not valid. Supported versions: {supported}.")
    if version not in taken:
        raise UnknownVersionError(
            f"Swagger version [{text}] is not supported for the scoring script. Supported swagger versions: {supported}."
        )
    return taken[version]


_HEALTHY = "If service is up and running, this response will be returned with the content 'Healthy'"
_SCORED = "The service processed the input correctly and provided a result prediction, if applicable."
_FAILED = "The service failed to execute due to an error."
_PAYLOAD = "The input payload for executing the real-time machine learning service."
_BEARER = {"type": "apiKey", "name": "Authorization", "in": "header", "description": "For example: Bearer abc123"}
_ERROR = {"type": "object", "properties": {"message": {"type": "string"}}}


def _info(service: Service) -> dict[str, Any]:
    about = f"API specification for the Azure Machine Learning service {service.name}"
    return {"title": service.name, "description": about, "version": service.version}


def _version_2(service: Service, given: Any, returned: Any) -> dict[str, Any]:
    def ref(name: str) -> dict[str, Any]:
        return {"$ref": f"#/definitions/{name}"}

    failed = {"description": _FAILED, "schema": ref("ErrorResponse")}
    healthy = {"description": _HEALTHY, "schema": {"type": "string"}, "examples": {"application/json": "Healthy"}}
    document = {"description": "The Swagger specification.", "schema": {"type": "string"}}
    version = {"name": "version", "in": "query", "required": False, "type": "integer", "enum": [2, 3]}
    payload = {
        "name": "serviceInputPayload",
        "in": "body",
        "description": _PAYLOAD,
        "schema": ref("ServiceInput"),
    }
    return {
        "swagger": "2.0",
        "info": _info(service),
        "schemes": ["https"],
        "consumes": ["application/json"],
        "produces": ["application/json"],
        "securityDefinitions": {"Bearer": _BEARER},
        "paths": _paths(
            service,
            {"responses": {"200": healthy, "default": failed}},
            {
                "parameters": [payload],
                "responses": {"200": {"description": _SCORED, "schema": ref("ServiceOutput")}, "default": failed},
            },
            {"parameters": [version], "responses": {"200": document, "default": failed}},
        ),
        "definitions": {"ServiceInput": given, "ServiceOutput": returned, "ErrorResponse": _ERROR},
    }


def _version_3(service: Service, given: Any, returned: Any) -> dict[str, Any]:
    def content(name: str) -> dict[str, Any]:
        return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}

    failed = {"description": _FAILED, "content": content("ErrorResponse")}
    text = {"schema": {"type": "string"}}
    healthy = {"description": _HEALTHY, "content": {"text/plain": {"schema": {"type": "string", "example": "Healthy"}}}}
    document = {"description": "The Swagger specification.", "content": {"text/plain": text}}
    version = {"name": "version", "in": "query", "required": False, "schema": {"type": "integer", "enum": [2, 3]}}
    return {
        "openapi": "3.0.3",
        "info": _info(service),
        "security": [{"Bearer": []}],
        "paths": _paths(
            service,
            {"responses": {"200": healthy, "default": failed}},
            {
                "requestBody": {"description": _PAYLOAD, "content": content("ServiceInput")},
                "responses": {
                    "200": {"description": _SCORED, "content": content("ServiceOutput")},
                    "default": failed,
                },
            },
            {"parameters": [version], "responses": {"200": document, "default": failed}},
        ),
        "components": {
            "schemas": {"ServiceInput": given, "ServiceOutput": returned, "ErrorResponse": _ERROR},
            "securitySchemes": {"Bearer": _BEARER},
        },
    }


def _paths(service: Service, health: dict[str, Any], score: dict[str, Any], swagger: dict[str, Any]) -> dict[str, Any]:
    """The three paths. Each argument is the part of its operation that differs between the versions."""
    return {
        f"{service.prefix}/": {
            "get": {
                "operationId": "ServiceHealthCheck",
                "description": "Simple health check endpoint to ensure the service is up at any given point.",
                **health,
            }
        },
        f"{service.prefix}/score": {
            "post": {
                "operationId": "RunMLService",
                "description": "Run web service's model and get the prediction output",
                "security": [{"Bearer": []}],
                **score,
            }
        },
        f"{service.prefix}/swagger.json": {
            "get": {
                "operationId": "GetSwaggerSpec",
                "description": "Get the Swagger specification.",
                **swagger,
            }
        },
    }
