"""Patterns of repository names, for whatever is said of many repositories at once.

Rule: ``**`` is anything, ``*`` and ``?`` are nothing that has a slash, all else is itself. Who reads a
pattern checks it, for names come from clients: with three stars the worst one takes 3 ms, with four 200.
"""

from __future__ import annotations

import re
from functools import lru_cache

MOST_STARS = 3

_PATTERN = re.compile(r"[a-z0-9._/*?-]{1,255}")
_WORDS = {"**": ".*", "*": "[^/]*", "?": "[^/]"}


def check_pattern(pattern: str) -> str:
    """The pattern, or ValueError: characters that no name has, or so many stars that matching is slow."""
    if not _PATTERN.fullmatch(pattern):
        raise ValueError(f"{pattern!r} is not a repository pattern")
    if len(re.findall(r"\*+", pattern)) > MOST_STARS:
        raise ValueError(f"{pattern!r} has more than {MOST_STARS} stars")
    return pattern


def matches(pattern: str, name: str) -> bool:
    """Whether a repository name fits a pattern."""
    return _compiled(pattern).fullmatch(name) is not None


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*|\*|\?)", pattern)
    return re.compile("".join(_WORDS.get(part) or re.escape(part) for part in parts))
