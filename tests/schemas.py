"""The JSON schemas of docs/schemas/, to hold documents against."""

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry, Resource

import aws_io_async

FOLDER = Path(aws_io_async.__file__).parent.parent / "docs" / "schemas"
SCHEMAS = {path.name: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
REGISTRY: Any = Registry().with_resources(
    [(name, Resource.from_contents(schema)) for name, schema in SCHEMAS.items()]
)


def validate(document: Any, name: str) -> None:
    """Raise if the document is not as docs/schemas/NAME.json has it."""
    schema = SCHEMAS[f"{name}.json"]
    Draft202012Validator.check_schema(schema)
    checker = FormatChecker()
    Draft202012Validator(schema, registry=REGISTRY, format_checker=checker).validate(document)
