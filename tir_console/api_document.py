"""What the OpenAPI document says beyond what the routes say themselves."""

from __future__ import annotations

from typing import Any

from endpoints.spec import LIMITS
from tir_console import api_examples

DESCRIPTION = """
Everything the console's pages do with endpoints, models and service accounts, for programs. Send an API key with
the scope `manage` (to ask for a token: `inference`) as `Authorization: Bearer tir_…`; a call acts in the key's
project. Every problem has the shape `{"error": {"code", "message", "fields"}}`; `code` is stable, `fields` names
what to mend.
""".strip()

REPEATABLE = {
    "in": "header",
    "name": "Idempotency-Key",
    "required": False,
    "schema": {"type": "string", "maxLength": 200},
    "description": "The same call with the same key does its work once, however often it is sent.",
}


def with_spec(document: Any, spec: dict[str, Any]) -> Any:
    """The document with the body of `POST /endpoints`, its ranges and the header that makes a call repeatable."""
    parts = dict(spec.get("$defs", {}))
    whole = {name: value for name, value in spec.items() if name != "$defs"}
    for schema in parts.values():
        for name, rules in schema.get("properties", {}).items():
            if name in LIMITS:
                lowest, highest, default = LIMITS[name]
                rules |= {"minimum": lowest, "maximum": highest, "default": default}
    document["components"]["schemas"] |= parts | {"Spec": whole}
    create = document["paths"]["/api/v1/endpoints"]["post"]
    body = {"schema": {"$ref": "#/components/schemas/Spec"}, "examples": api_examples.document()}
    create["requestBody"]["content"]["application/json"] = body
    for route in (create, document["paths"]["/api/v1/models/{name}/imports"]["post"]):
        route.setdefault("parameters", []).append(REPEATABLE)
    return document
