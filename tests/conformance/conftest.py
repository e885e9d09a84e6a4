"""Fixtures of the conformance tests."""

from __future__ import annotations

import pytest

from .steps import new_repository


@pytest.fixture
def repository() -> str:
    """A repository of the test's own, because one server serves the whole session."""
    return new_repository()
