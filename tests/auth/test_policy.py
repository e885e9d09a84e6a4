"""Rules, patterns and scopes: tables of who may do what, and why."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from trioreg.auth.access_file import parse_access_file
from trioreg.auth.identity import Action, Identity
from trioreg.auth.policy import OPEN_MAY_ALL, SIGNED_IN_MAY_ALL, Policy
from trioreg.auth.scopes import Scope, parse_scope, parse_scopes
from trioreg.oci.names import RepositoryName
from trioreg.oci.patterns import check_pattern, matches

FILE = b"""
[groups]
team = ["ann", "robot+ci*"]
ops = ["root"]

[[rule]]
repositories = ["team/**"]
who = ["@team"]
may = ["pull", "push"]

[[rule]]
repositories = ["public/*", "library/**"]
excluding = ["library/secret/**"]
who = ["*"]
may = ["pull"]

[[rule]]
who = ["@ops"]
may = ["pull", "push", "delete", "admin"]

[[rule]]
repositories = ["shared/**"]
who = ["@users", "cloud/job-*", "@cloud/staff"]
may = ["pull"]
"""
POLICY = parse_access_file(FILE).policy
ANN, ROOT, EVE = Identity("ann"), Identity("root"), Identity("eve")
CI = Identity("robot+ci-1", rights=())
ROBOT = Identity("robot+x", rights=(Scope("repository", "x/**", frozenset({"push"})),))
JOB = Identity("cloud/job-7", rights=())
STAFF = Identity("cloud/kim", groups=frozenset({"cloud/staff"}), rights=())


@pytest.mark.parametrize(
    ("identity", "repository", "action", "allowed"),
    [
        (ANN, "team/a", "push", True),
        (ANN, "team/a/b", "pull", True),
        (ANN, "team/a", "delete", False),
        (ANN, "team", "pull", False),
        (ANN, "teams/a", "pull", False),
        (EVE, "team/a", "pull", False),
        (None, "team/a", "pull", False),
        (None, "public/a", "pull", True),
        (None, "public/a/b", "pull", False),
        (None, "library/a/b", "pull", True),
        (None, "library/secret/b", "pull", False),
        (None, "public/a", "push", False),
        (ANN, "public/a", "push", False),
        (ROOT, "library/secret/b", "delete", True),
        (ROOT, None, "admin", True),
        (ANN, None, "admin", False),
        (None, None, "admin", False),
        (CI, "team/a", "push", True),
        (CI, "shared/a", "pull", False),
        (EVE, "shared/a", "pull", True),
        (None, "shared/a", "pull", False),
        (JOB, "shared/a", "pull", True),
        (STAFF, "shared/a", "pull", True),
        (ROBOT, "x/a", "push", True),
        (ROBOT, "x/a", "pull", False),
        (ROBOT, "y/a", "push", False),
        (ROBOT, "public/a", "pull", True),
        (ROBOT, None, "admin", False),
        (EVE, None, "catalog", True),
        (None, None, "catalog", True),
    ],
)
def test_rules(identity: Identity | None, repository: str | None, action: Action, allowed: bool) -> None:
    """Rules only grant; groups, robots' own scopes and everyone's rules add up."""
    name = RepositoryName(repository) if repository else None
    decision = POLICY.decide(identity, name, action)
    assert decision.allowed is allowed
    assert decision.why


def test_a_decision_names_its_rule() -> None:
    """`explain` shows what the server goes by."""
    why = POLICY.decide(ANN, RepositoryName("team/a"), "push").why
    assert why == "rule 1: @team may pull, push in team/**"
    assert POLICY.decide(EVE, RepositoryName("team/a"), "push").why == "no rule grants push"


def test_read_only_denies_changes_to_everybody() -> None:
    """Whatever a rule says; pulling goes on."""
    closed = Policy(OPEN_MAY_ALL.rules, read_only=True)
    name = RepositoryName("a")
    assert closed.decide(ROOT, name, "push").closed and not closed.decide(ROOT, name, "push").allowed
    assert not closed.decide(None, name, "delete").allowed
    assert closed.decide(None, name, "pull").allowed


def test_without_rules_who_is_signed_in_may_all_but_administer() -> None:
    """The policy of a registry that has only a password file."""
    name = RepositoryName("a/b")
    assert all(SIGNED_IN_MAY_ALL.decide(ANN, name, each).allowed for each in ("pull", "push", "delete"))
    assert not SIGNED_IN_MAY_ALL.decide(ANN, None, "admin").allowed
    assert not SIGNED_IN_MAY_ALL.decide(None, name, "pull").allowed
    assert not SIGNED_IN_MAY_ALL.decide(None, None, "list").allowed


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        (["repository:team/a:pull,push,delete"], ["repository:team/a:pull,push"]),
        (["repository:team/a:*"], ["repository:team/a:pull,push"]),
        (["repository:team/a:pull repository:other/b:pull"], ["repository:team/a:pull"]),
        (["repository:team/**:pull"], []),
        (["repository:team/a:fly"], []),
        (["registry:catalog:*"], ["registry:catalog:*"]),
        (["registry:catalog:pull", "registry:other:*", "nonsense", ""], []),
        (["repository:TEAM:pull"], []),
    ],
)
def test_a_token_grants_what_is_asked_for_and_allowed(asked: list[str], granted: list[str]) -> None:
    """The intersection, and nothing for what is not understood."""
    assert [str(each) for each in POLICY.intersection(ANN, parse_scopes(asked))] == granted


def test_a_token_is_good_for_its_scopes_only() -> None:
    """What the holder may besides needs another token: that is 401, not 403."""
    scope = Scope("repository", "team/a", frozenset({"pull"}))
    holder = Identity("ann", scopes=(scope,))
    assert POLICY.decide(holder, RepositoryName("team/a"), "pull").allowed
    narrow = POLICY.decide(holder, RepositoryName("team/a"), "push")
    assert (narrow.allowed, narrow.narrow) == (False, True)
    never = POLICY.decide(holder, RepositoryName("other/a"), "push")
    assert (never.allowed, never.narrow) == (False, False)
    assert POLICY.decide(holder, None, "list").allowed
    assert POLICY.decide(holder, None, "catalog").narrow


@pytest.mark.parametrize(
    ("text", "scope"),
    [
        ("repository:a/b:pull,push", Scope("repository", "a/b", frozenset({"pull", "push"}))),
        ("repository(plugin):a:pull", Scope("repository", "a", frozenset({"pull"}))),
        ("repository:host:5000/a:pull", Scope("repository", "host:5000/a", frozenset({"pull"}))),
        ("repository:a:", None),
        ("repository::pull", None),
        (":a:pull", None),
        ("a:pull", None),
        ("", None),
    ],
)
def test_scopes(text: str, scope: Scope | None) -> None:
    """The grammar of the distribution project."""
    assert parse_scope(text) == scope


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("a/*", "a/b", True),
        ("a/*", "a/b/c", False),
        ("a/**", "a/b/c", True),
        ("a/**", "a", False),
        ("**", "a/b", True),
        ("*", "a/b", False),
        ("a?", "ab", True),
        ("a?", "a/", False),
        ("a.b", "axb", False),
        ("**/x", "a/b/x", True),
    ],
)
def test_patterns(pattern: str, name: str, fits: bool) -> None:
    """A star stays within a component, two do not."""
    assert matches(pattern, name) is fits


@pytest.mark.parametrize("pattern", ["", "A/*", "a b", "a[b]", "*/*/*/*/*"])
def test_patterns_that_are_none(pattern: str) -> None:
    """Characters that no name has, and so many stars that matching would be slow."""
    with pytest.raises(ValueError, match=r"pattern|stars"):
        check_pattern(pattern)


ISSUER = '[[issuer]]\nname = "x"\nissuer = "i"\naudience = "a"\nkeys = "/k"\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[rule]]\nwho = ['*']\nmay = ['read']", "Invalid enum value 'read'"),
        ("[[rule]]\nwho = ['*']\nmay = ['pull']\nrepository = ['a']", "unknown field `repository`"),
        ("[[rule]]\nwho = []\nmay = ['pull']", "rule 1: who, may and repositories must not be empty"),
        ("[[rule]]\nwho = ['@none']\nmay = ['pull']", "rule 1: there is no group none"),
        ("[[rule]]\nwho = ['*']\nmay = ['pull']\nrepositories = ['A']", "rule 1: 'A' is not a repository"),
        ("[groups]\nusers = ['a']", "the group users is everybody"),
        ("[groups]\na = ['@b']", "'@b' is not a member"),
        ("rules = 1", "unknown field `rules`"),
        ("[[rule", "access file: "),
        (ISSUER + ISSUER, "two issuers have one name"),
        (ISSUER + 'algorithms = ["none"]', "algorithm 'none' is none of"),
        (ISSUER + 'algorithms = ["HS256"]', "algorithm 'HS256' is none of"),
        (ISSUER.replace('"/k"', '"http://example.com/k"'), "keys are fetched over https"),
        (ISSUER.replace('"x"', '"cert"'), "cannot be named cert"),
        (ISSUER.replace('"x"', '"a/b"'), "issuer name 'a/b'"),
    ],
)
def test_an_access_file_that_is_not_understood_is_refused(text: str, says: str) -> None:
    """Whole, with the place: a typing error opens no door."""
    with pytest.raises(ValueError, match=r"access file|issuer") as refused:
        parse_access_file(text.encode())
    assert says in str(refused.value)


def test_the_access_files_of_the_documentation_are_understood() -> None:
    """What people copy works."""
    page = (Path(__file__).parents[2] / "docs" / "access.md").read_text(encoding="utf-8")
    rules, issuers = re.findall(r"```\n(\[.*?)```", page, re.DOTALL)
    assert len(parse_access_file(rules.encode()).policy.rules) == 3
    assert [each.name for each in parse_access_file(issuers.encode()).issuers] == ["cloud"]
