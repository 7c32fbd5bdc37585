"""What was measured, in a form that can be kept: a JSON file, and read again."""

import json
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FORMAT = 1


@dataclass(frozen=True)
class Sample:
    """One measurement of one scenario on one loop, or the median of some."""

    value: float
    """In the unit of the scenario's group."""

    cpu: float | None = None
    """Microseconds of CPU time that the server took for an operation."""

    p50: float | None = None
    """Microseconds that half of the operations took at most."""

    p99: float | None = None


@dataclass
class Row:
    """One scenario on all loops."""

    group: str
    name: str
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    """By loop, one for each round."""

    absent: dict[str, str] = field(default_factory=dict)
    """Why there is nothing to be had from a loop."""

    failed: dict[str, str] = field(default_factory=dict)
    """What went wrong, where a measurement failed."""

    def median(self, loop: str) -> Sample | None:
        """Field by field; None without samples."""
        samples = self.samples.get(loop)
        if not samples:
            return None
        columns = {name: [getattr(s, name) for s in samples] for name in Sample.__annotations__}
        return Sample(
            **{
                name: statistics.median(known)
                for name, column in columns.items()
                if (known := [value for value in column if value is not None])
            }
        )


@dataclass
class Results:
    facts: dict[str, str]
    """On what it was measured, and how."""

    loops: list[str]
    """Names; the first is the one that is compared with the others."""

    rows: list[Row] = field(default_factory=list)

    def of(self, group: str) -> list[Row]:
        """The rows of a group for which there is anything to show."""
        return [row for row in self.rows if row.group == group and any(row.samples.values())]

    def missing(self, kind: str) -> list[str]:
        """What is `absent`, or `failed`: a line for each loop and reason, with the scenarios."""
        found: dict[tuple[str, str], list[str]] = {}
        for row in self.rows:
            for loop, why in getattr(row, kind).items():
                found.setdefault((loop, why), []).append(f"{row.group}: {row.name}")
        return [f"{loop}: {why} ({'; '.join(rows)})" for (loop, why), rows in found.items()]

    def write(self, file: Path) -> None:
        """Raises OSError."""
        content = {"format": FORMAT, **asdict(self)}
        for row in content["rows"]:
            for samples in row["samples"].values():
                samples[:] = [{k: v for k, v in s.items() if v is not None} for s in samples]
        file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read(file: Path) -> Results:
    """Raises OSError, or ValueError if that is not a file that `Results.write` wrote."""
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8"))
        if content.pop("format") != FORMAT:
            raise ValueError("another format")
        for row in content["rows"]:
            for loop, samples in row["samples"].items():
                row["samples"][loop] = [Sample(**sample) for sample in samples]
        content["rows"] = [Row(**row) for row in content["rows"]]
        return Results(**content)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{file} has no results of this benchmark: {error}") from None
