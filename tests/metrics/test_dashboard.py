"""The Grafana dashboard asks for metrics and labels that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from trioreg.metrics import cells

DASHBOARD = json.loads((Path(__file__).parent.parent.parent / "docs" / "grafana.json").read_text("utf-8"))
EXPRESSIONS: list[str] = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
SERIES = re.compile(r"([a-z_]+)\{([^}]*)\}")
FAMILIES = {family.name: family for family in cells.families}


def family_of(name: str) -> cells.Family:
    """The family of a series: a histogram has three names more."""
    if name in FAMILIES:
        return FAMILIES[name]
    family = FAMILIES[re.sub(r"_(bucket|sum|count)$", "", name)]
    assert family.kind == "histogram"
    return family


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_each_query_is_answered(expression: str) -> None:
    """Every metric exists, every label it is filtered or grouped by is its own, and rates are of counters."""
    series = SERIES.findall(expression)
    assert series
    for name, selector in series:
        family = family_of(name)
        labels = {*family.labels, "job"} | ({"le"} if name.endswith("_bucket") else set())
        assert set(re.findall(r"([a-z_]+)=~?\"", selector)) <= labels
        for grouping in re.findall(r"by \(([^)]*)\)", expression):
            assert set(grouping.split(", ")) <= labels
        is_rate = f"rate({name}{{" in expression
        assert is_rate == (family.kind != "gauge")
