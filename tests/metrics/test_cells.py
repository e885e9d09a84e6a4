"""Counters are integers in slots: sums are right over workers, and never go back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from trioreg import metrics
from trioreg.metrics import cells, table
from trioreg.metrics.text import exposition, table_as_markdown

TOP = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def fresh_slots() -> Iterator[None]:
    """Slots of this test's own."""
    cells.open_slots(1)
    yield
    cells.open_slots(1)


def value(name: str) -> float:
    """What the exposition says of one line."""
    [found] = [line for line in exposition().splitlines() if line.rpartition(" ")[0] == name]
    return float(found.rpartition(" ")[2])


def test_a_request_is_counted_once() -> None:
    """Operation and status, one bucket, its seconds and its bytes."""
    get = table.OPERATIONS.index("get_manifest")
    metrics.count_request(get, 200, 0.003, 0, 500)
    metrics.count_request(get, 200, 0.03, 7, 0)
    metrics.count_request(get, 299, 400.0, 0, 0)
    assert value('trioreg_http_requests_total{operation="get_manifest",code="200"}') == 2
    assert value('trioreg_http_requests_total{operation="get_manifest",code="other"}') == 1
    seconds = "trioreg_http_request_duration_seconds"
    assert value(seconds + '_bucket{operation="get_manifest",le="0.0025"}') == 0
    assert value(seconds + '_bucket{operation="get_manifest",le="0.005"}') == 1
    assert value(seconds + '_bucket{operation="get_manifest",le="300"}') == 2
    assert value(seconds + '_bucket{operation="get_manifest",le="+Inf"}') == 3
    assert value(seconds + '_count{operation="get_manifest"}') == 3
    assert value(seconds + '_sum{operation="get_manifest"}') == pytest.approx(400.033)
    assert value("trioreg_http_received_bytes_total") == 7
    assert value("trioreg_http_sent_bytes_total") == 500


def test_slots_are_added_up() -> None:
    """Counters and gauges are sums over the workers; what they share is there once."""
    cells.open_slots(3)
    for number in range(3):
        cells.use_slot(number)
        table.SENT.add(10 + number)
        table.BUDGET_HELD.set(2)
        table.BLOCK_BYTES.set(4096)
        table.CACHE_HITS.follow(5, table.CACHE_HITS.at("contents"))
    assert value("trioreg_http_sent_bytes_total") == 33
    assert value("trioreg_budget_held_blocks") == 6
    assert value("trioreg_budget_block_size_bytes") == 4096
    assert value('trioreg_cache_hits_total{cache="contents"}') == 15


def test_a_replaced_worker_goes_on_counting() -> None:
    """Counters never go back, those that follow somebody else's count included; gauges end with a worker."""
    cells.open_slots(2)
    cells.use_slot(1)
    table.SENT.add(10)
    table.CPU_SECONDS.follow(3 * cells.NANOSECONDS)
    table.ENGINE_BATCHES.follow([1, 2, 0, 0, 0, 0, 0], 5)
    table.BUDGET_HELD.set(2)
    cells.forget_gauges(1)
    assert value("trioreg_budget_held_blocks") == 0
    cells.use_slot(1)
    table.SENT.add(1)
    table.CPU_SECONDS.follow(2 * cells.NANOSECONDS)
    table.ENGINE_BATCHES.follow([1, 0, 0, 0, 0, 0, 0], 1)
    assert value("trioreg_http_sent_bytes_total") == 11
    assert value("process_cpu_seconds_total") == 5
    assert value('trioreg_engine_batch_jobs_bucket{le="1"}') == 2
    assert value("trioreg_engine_batch_jobs_sum") == 6


def test_no_two_families_share_a_cell() -> None:
    """Each has its own run of cells, one behind the other."""
    end = 0
    for family in cells.families:
        assert family.first == end
        end += family.width * len(family.values)


def test_the_page_has_the_table_of_the_code() -> None:
    """docs/observability.md shows what `table_as_markdown` prints."""
    assert table_as_markdown() in (TOP / "docs" / "observability.md").read_text(encoding="utf-8")
