"""The JSON Schema of a policy file, for editors. The models are strict where a schema cannot be: `policy check` decides."""

from __future__ import annotations

from typing import Any

from broker_crypto.policy.sections import File

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12)."""
    return {"$schema": DIALECT, "title": "broker_crypto policy", **{k: v for k, v in File.model_json_schema().items() if k != "title"}}
