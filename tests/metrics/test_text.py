"""The exposition is what Prometheus takes, and its names are what Prometheus advises."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from trioreg.metrics import cells, count_request, table
from trioreg.metrics.text import exposition


@pytest.fixture(autouse=True)
def everything_counted() -> Iterator[None]:
    """Every cell has a number of its own, so that none can stand in for another."""
    cells.open_slots(1)
    for place in range(len(cells.current)):
        cells.current[place] = place + 1
    yield
    cells.open_slots(1)


def parsed() -> dict[str, Metric]:
    return {found.name: found for found in text_string_to_metric_families(exposition())}


def plain_name(family: cells.Family) -> str:
    """As the parser calls it: a counter without its ending."""
    return family.name.removesuffix("_total") if family.kind == "counter" else family.name


def test_a_parser_finds_every_family() -> None:
    """Name, type, help and number of samples are those of the table."""
    found = parsed()
    assert set(found) == {plain_name(family) for family in cells.families}
    for family in cells.families:
        metric = found[plain_name(family)]
        assert (metric.type, metric.documentation) == (family.kind, family.text)
        lines = family.width + 1 if isinstance(family, cells.Histogram) else 1
        assert len(metric.samples) == len(family.values) * lines


def test_values_are_those_of_the_cells() -> None:
    """A value is its cell over its unit; buckets add up to the count."""
    found = parsed()
    for family in cells.families:
        for sample in found[plain_name(family)].samples:
            place = family.values.index(tuple(sample.labels[label] for label in family.labels))
            if not isinstance(family, cells.Histogram):
                assert sample.value == (family.first + place + 1) / family.unit
            elif sample.name.endswith("_count"):
                first = family.first + place * family.width
                assert sample.value == sum(range(first + 1, first + family.width))


def test_names_follow_the_conventions() -> None:
    """https://prometheus.io/docs/practices/naming/, as `promtool check metrics` asks for it."""
    for family in cells.families:
        name = family.name
        assert re.fullmatch(r"(trioreg|process|python)_[a-z_]+", name), name
        assert name.endswith("_total") == (family.kind == "counter"), name
        assert not re.search(r"_(count|sum|bucket|info)$", name), name
        assert not re.search(r"(milli|micro|nano)seconds|_ms|minutes|hours|kilobytes|_kb|_mb", name), name
        assert (family.unit == cells.NANOSECONDS) == ("_seconds" in name), name
        assert not set(re.findall(r"counter|gauge|histogram", name)), name
        assert not {"le", "quantile", "job", "instance"} & set(family.labels), name
        assert family.text.endswith("."), name
        assert "\n" not in family.text
        assert "\\" not in family.text
        for value in (value for values in family.values for value in values):
            assert re.fullmatch(r"[a-zA-Z0-9_.]+", value), value


def test_what_never_happened_is_left_out() -> None:
    """Of two labels most combinations never occur; a family with one label or none is always whole."""
    cells.open_slots(1)
    count_request(table.OPERATIONS.index("ping"), 200, 0.001, 0, 2)
    found = parsed()
    [requests] = found["trioreg_http_requests"].samples
    assert (requests.labels, requests.value) == ({"operation": "ping", "code": "200"}, 1)
    durations = found["trioreg_http_request_duration_seconds"].samples
    assert {sample.labels["operation"] for sample in durations} == {"ping"}
    assert len(found["trioreg_uploads"].samples) == len(table.WAITS)
