"""The HTTP API's description, as OpenAPI 3.1 has it: made of the operations that are served."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

import unbrick
from unbrick.server.edge.shapes import ErrorShape

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from starlette.requests import Request
    from starlette.responses import Response

    from unbrick.server.records.access import AccessRole

_PARAMETER = re.compile(r"\{(\w+):(\w+)\}")
_SCHEMAS = {"int": {"type": "integer", "minimum": 0}, "path": {"type": "string", "minLength": 1}}
"""What Starlette's kinds of parameters take."""

JSON = "application/json"
IMAGE_TYPES = ("application/octet-stream", "multipart/form-data")
"""How an image can be sent: as the body, or as the one file of a form."""


@dataclass(frozen=True)
class Operation:
    """Something that the API does.

    Attributes:
        method: of HTTP.
        path: as Starlette has it.
        handler: does it; its docstring says what.
        role: who asks has at least this one; None: anybody may.
        answer: the type of the answer; None: text that is no JSON.
        status: of an answer that is no error.
        body: the type of the JSON body; ``bytes``: an image; None: there is none.
        query: the schemas of parameters that may be behind the path, by their names.
    """

    method: str
    path: str
    handler: Callable[[Request], Awaitable[Response]]
    role: AccessRole | None
    answer: Any
    status: int = 200
    body: Any = None
    query: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def plain_path(self) -> str:
        """The path without kinds of parameters, as OpenAPI has it."""
        return _PARAMETER.sub(r"{\1}", self.path)

    @property
    def about(self) -> str:
        """What it does."""
        return " ".join((self.handler.__doc__ or "").split())


def describe_api(operations: Sequence[Operation]) -> dict[str, Any]:
    """The description of all of them."""
    types = [operation.answer for operation in operations if operation.answer is not None]
    bodies = [operation.body for operation in operations if operation.body not in (None, bytes)]
    schemas, components = msgspec.json.schema_components(
        [*types, *bodies, ErrorShape], ref_template="#/components/schemas/{name}"
    )
    *found, error = schemas
    of = dict(zip(map(str, [*types, *bodies]), found, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        described = _describe(operation, of, error)
        paths.setdefault(operation.plain_path, {})[operation.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Unbrick software management server",
            "version": unbrick.__version__,
            "description": "Publishes software, and updates terminals over the air.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _describe(operation: Operation, of: dict[str, Any], error: Any) -> dict[str, Any]:
    answer = (
        {"text/plain": {"schema": {"type": "string"}}}
        if operation.answer is None
        else {JSON: {"schema": of[str(operation.answer)]}}
    )
    made: dict[str, Any] = {
        "operationId": operation.handler.__name__,
        "summary": operation.about,
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": _SCHEMAS[kind]}
            for name, kind in _PARAMETER.findall(operation.path)
        ]
        + [
            {"name": name, "in": "query", "required": False, "schema": schema}
            for name, schema in operation.query.items()
        ],
        "responses": {
            str(operation.status): {"description": "It is done.", "content": answer},
            "default": {
                "description": "What is wrong, and what to do.",
                "content": {JSON: {"schema": error}},
            },
        },
        "security": [] if operation.role is None else [{"token": []}],
    }
    if operation.role is not None:
        made["x-role"] = operation.role.value
    if operation.body is bytes:
        body, form = IMAGE_TYPES
        file = {"type": "object", "properties": {"file": {"type": "string", "format": "binary"}}}
        content = {body: {"schema": {}}, form: {"schema": {**file, "required": ["file"]}}}
        made["requestBody"] = {"required": True, "content": content}
    elif operation.body is not None:
        content = {JSON: {"schema": of[str(operation.body)]}}
        made["requestBody"] = {"required": True, "content": content}
    return made
