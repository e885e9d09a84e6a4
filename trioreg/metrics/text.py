"""Metrics as Prometheus reads them: text format 0.0.4.

https://prometheus.io/docs/instrumenting/exposition_formats/. A combination of two labels that never
occurred is left out, for an operation has a handful of the statuses there are; and so is a labelled
histogram without an observation.
"""

from __future__ import annotations

from collections.abc import Iterator

from trioreg.metrics.cells import Family, Histogram, families

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def exposition() -> str:
    """Every metric, summed over the workers."""
    return "".join(line + "\n" for family in families for line in _lines(family))


def _lines(family: Family) -> Iterator[str]:
    yield f"# HELP {family.name} {family.text}"
    yield f"# TYPE {family.name} {family.kind}"
    for place, values in enumerate(family.values):
        if isinstance(family, Histogram):
            yield from _histogram(family, place, values)
            continue
        value = family.total(place)
        if value or len(family.labels) < 2:
            yield f"{family.name}{_labels(family, values)} {_number(value, family.unit)}"


def _histogram(family: Histogram, place: int, values: tuple[str, ...]) -> Iterator[str]:
    first, count = place * family.width, 0
    counts = [family.total(first + index) for index in range(family.width - 1)]
    if family.labels and not any(counts):
        return
    for each, bound in zip(counts, (*family.bounds, "+Inf"), strict=True):
        count += each
        yield f"{family.name}_bucket{_labels(family, values, le=str(bound))} {count}"
    total = family.total(first + family.width - 1)
    yield f"{family.name}_sum{_labels(family, values)} {_number(total, family.unit)}"
    yield f"{family.name}_count{_labels(family, values)} {count}"


def _labels(family: Family, values: tuple[str, ...], **more: str) -> str:
    """Values are words of ours: none needs escaping."""
    pairs = [*zip(family.labels, values, strict=True), *more.items()]
    return "{" + ",".join(f'{name}="{value}"' for name, value in pairs) + "}" if pairs else ""


def _number(value: int, unit: int) -> str:
    return str(value) if unit == 1 else repr(value / unit)


def table_as_markdown() -> str:
    """The table of metrics as docs/observability.md shows it."""
    rows = ["| metric | kind | labels | what it is |", "| --- | --- | --- | --- |"]
    for family in families:
        labels = ", ".join(f"`{label}`" for label in family.labels) or "–"
        rows.append(f"| `{family.name}` | {family.kind} | {labels} | {family.text} |")
    return "\n".join(rows) + "\n"
