"""The JSON schemas of docs/schemas/, to hold documents against."""

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker

import aws_io_async

FOLDER = Path(aws_io_async.__file__).parent.parent / "docs" / "schemas"


def validate(document: Any, name: str) -> None:
    """Raise if the document is not as docs/schemas/NAME.json has it."""
    schema = json.loads((FOLDER / f"{name}.json").read_text())
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema, format_checker=FormatChecker()).validate(document)
