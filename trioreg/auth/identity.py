"""Who asks: a name that something vouched for, or nobody.

Rule: an identity is made by authentication and by nothing else. Anonymous is ``None``, never an `Identity`
with an empty name.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Identity:
    """`name` is unique among all sources, so it can be counted, limited and logged."""

    name: str
    groups: frozenset[str] = frozenset()
