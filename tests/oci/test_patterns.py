"""Patterns of repository names."""

from __future__ import annotations

import pytest

from trioreg.config import ConfigError, load
from trioreg.oci.patterns import check_pattern, matches


@pytest.mark.parametrize(
    ("pattern", "fits", "other"),
    [
        ("a", ["a"], ["b", "a/b", "aa"]),
        ("a/b", ["a/b"], ["a", "a/b/c"]),
        ("*", ["a", "some-name"], ["a/b"]),
        ("**", ["a", "a/b", "a/b/c"], []),
        ("a/*", ["a/b"], ["a", "a/b/c", "b/a"]),
        ("a/**", ["a/b", "a/b/c"], ["a", "ab/c"]),
        ("**/cache", ["a/cache", "a/b/cache"], ["cache", "a/cached"]),
        ("a-?", ["a-1"], ["a-", "a-12", "a-/"]),
        ("a.b", ["a.b"], ["axb"]),
        ("a/*/c", ["a/b/c"], ["a/c", "a/b/b/c"]),
    ],
)
def test_what_fits(pattern: str, fits: list[str], other: list[str]) -> None:
    """Stars stop at a slash unless there are two of them; a dot is a dot."""
    assert [name for name in fits + other if matches(pattern, name)] == fits


def test_the_slowest_pattern_is_fast_enough() -> None:
    """Three stars, as many as the settings take, against the longest name: the work is bounded."""
    assert not matches("**a**a**b", "a" * 255)


@pytest.mark.parametrize("pattern", ["a", "a/b.c_d-e", "**", "*/**/*", "a?"])
def test_patterns(pattern: str) -> None:
    """As many as three stars, two beside each other being one; the settings take them too."""
    assert check_pattern(pattern) == pattern
    assert load({"quota.tags": f"{pattern}=1"}, {}, None).quota_tags == ((pattern, 1),)


@pytest.mark.parametrize("pattern", ["", "A", "a b", "a[b]", "*/*/*/*", "a" * 256])
def test_no_patterns(pattern: str) -> None:
    """Characters that no name has, or so many stars that one name could hold up everybody."""
    with pytest.raises(ValueError, match=r"pattern|stars"):
        check_pattern(pattern)
    with pytest.raises(ConfigError):
        load({"quota.tags": f"{pattern}=1"}, {}, None)
