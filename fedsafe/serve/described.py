"""What a service takes and answers, as JSON Schema for its OpenAPI document."""

from typing import Any

from fedsafe.data import Categorical, InputSchema, Schema
from fedsafe.data.schema import Column

DECISION: dict[str, Any] = {
    "type": "object",
    "required": ["id", "answered", "label", "value", "confidence", "reasons", "notes", "p_values"],
    "properties": {
        "id": {"type": "string", "description": "As in the log of decisions."},
        "answered": {"type": "boolean", "description": "False: the model abstains, for the reasons given."},
        "label": {"type": ["string", "null"]},
        "value": {"type": ["number", "null"], "description": "Where a number is predicted."},
        "confidence": {"type": ["number", "null"], "description": "Calibrated probability of the label."},
        "reasons": {"type": "array", "items": {"type": "string"}},
        "notes": {"type": "array", "items": {"type": "string"}},
        "p_values": {"type": "object", "additionalProperties": {"type": "number"}},
        "explanation": {"type": "object", "additionalProperties": {"type": "number"}},
    },
}
"""A decision, see `fedsafe.serve.decision.Decision`."""

ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "problems": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "instance": {"type": "integer"},
                            "field": {"type": "string"},
                            "message": {"type": "string"},
                        },
                    },
                },
            },
        }
    },
}
"""Every answer that is no success."""

_REFUSED = {
    400: "The body is no JSON.",
    401: "There is no key, or a wrong one.",
    403: "The Host is none of this service's, or the key is no operator's.",
    408: "The body took too long.",
    413: "The body is too long.",
    415: "The content is not said to be JSON.",
    422: "An instance is not of the schema; the field is named.",
    429: "Too much at once, or more than this key may ask; Retry-After says when.",
}


def row_schema(schema: Schema) -> dict[str, Any]:
    """Of a row of a table, with its raw columns."""
    return {
        "type": "object",
        "required": [column.name for column in schema.columns],
        "additionalProperties": False,
        "properties": {column.name: _column(column) for column in schema.columns},
    }


def array_schema(schema: InputSchema) -> dict[str, Any]:
    """Of nested arrays of numbers."""
    found: dict[str, Any] = {"type": "number"}
    for size in reversed(tuple(schema.shape)):
        found = {"type": "array", "items": found, "minItems": int(size), "maxItems": int(size)}
    return found


def operation(instance: dict[str, Any], batch: int) -> dict[str, Any]:
    """The OpenAPI operation that takes instances and answers decisions.

    Args:
        instance: JSON Schema of an instance.
        batch: Most instances of a request.
    """
    body = {
        "type": "object",
        "required": ["instances"],
        "additionalProperties": False,
        "properties": {"instances": {"type": "array", "items": instance, "minItems": 1, "maxItems": batch}},
    }
    decisions = {
        "type": "object",
        "required": ["decisions"],
        "properties": {"decisions": {"type": "array", "items": DECISION}},
    }
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {
            "200": {
                "description": "A decision for each.",
                "content": {"application/json": {"schema": decisions}},
            },
            **refusals(*_REFUSED),
        },
    }


def refusals(*codes: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses of these codes."""
    content = {"application/json": {"schema": ERROR}}
    return {str(code): {"description": _REFUSED[code], "content": content} for code in codes}


def _column(column: Column) -> dict[str, Any]:
    if isinstance(column, Categorical):
        merged = [value for values in column.merge.values() for value in values]
        return {"enum": [*dict.fromkeys([*column.values, *merged]), None]}
    return {
        "type": ["number", "null"],
        "description": f"Counts as {column.low:g} or {column.high:g} where it is outside of these.",
    }
