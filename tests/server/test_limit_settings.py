"""Settings become limits: derived where they are 0, divided among workers, in force at once."""

from __future__ import annotations

import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from blackbox import Server

from trioreg.config import Config
from trioreg.server.limits import admission_limits, most_connections

CONFIG = Config()


def raised(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))


@pytest.mark.parametrize(
    ("settings", "descriptors", "places", "queue"),
    [
        ({}, 20_000, 1280, 1024),
        ({}, resource.RLIM_INFINITY, 1280, 1024),
        ({}, 1024, 113, 1024),
        ({"admission_places": 5}, 1024, 5, 1024),
        ({"admission_places": 9, "http_workers": 2}, 1024, 4, 512),
        ({"admission_places": 1, "admission_queue": 0, "http_workers": 4}, 1024, 1, 0),
    ],
)
def test_places(
    settings: dict[str, Any], descriptors: int, places: int, queue: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One for each 32 KiB of the worker's blocks, as far as descriptors reach; what is set is divided."""
    raised(monkeypatch, descriptors)
    limits = admission_limits(replace(CONFIG, **settings), 40 * 2**20)
    assert (limits.places, limits.queue) == (places, queue)


@pytest.mark.parametrize(
    ("most", "workers", "descriptors", "expected"),
    [(16_384, 1, 10**6, 16_384), (16_384, 1, 20_000, 13_333), (16_384, 4, 10**6, 4096), (16, 1, 3, 2)],
)
def test_connections(
    most: int, workers: int, descriptors: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A third of the descriptors is left for files."""
    raised(monkeypatch, descriptors)
    assert most_connections(replace(CONFIG, http_max_connections=most, http_workers=workers)) == expected


def test_a_server_has_the_limits_of_its_settings(tmp_path: Path) -> None:
    """As a process, from the environment, and over two workers."""
    settings = {
        "http.workers": "2",
        "admission.places": "2",
        "admission.wait": "0",
        "blob.max_bytes": "1KiB",
        "quota.tags": "**=0",
        "rate.requests": "0.001",
        "rate.burst": "20",
    }
    with Server(tmp_path, settings=settings) as server:
        uploads = "/v2/some/name/blobs/uploads/"
        # Each worker has one place; four tries find a worker twice.
        statuses = [server.request("POST", uploads).status for _ in range(4)]
        assert statuses[0] == 202 and 429 in statuses
        body = bytes(1025)
        digest = "sha256:" + "0" * 64
        statuses = [server.request("POST", f"{uploads}?digest={digest}", body).status for _ in range(4)]
        assert set(statuses) <= {413, 429}
        statuses = [server.request("GET", "/v2/").status for _ in range(60)]
        # Each worker lets twenty through.
        assert statuses[0] == 200 and 429 in statuses
