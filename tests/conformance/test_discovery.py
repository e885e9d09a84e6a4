"""end-8, end-12 and the catalogue: what is there, page by page."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator

import pytest
from blackbox import OCI_INDEX, Registry, digest_of

from .content import Content
from .steps import ALGORITHMS, check_error, push_content, put_manifest

# As ASCII sorts them: the case of a letter matters.
TAGS = ["1.10", "1.9", "A", "Z", "_under", "a", "a-b", "a.b", "latest", "z"]


def push_tags(server: Registry, repository: str) -> None:
    content = Content()
    manifest = content.image(layers=0)
    push_content(server, repository, content)
    for tag in reversed(TAGS):
        assert put_manifest(server, repository, manifest, tag).status == 201


def pages(server: Registry, path: str, field: str) -> Iterator[list[str]]:
    """Each page of a list, walking its `Link` as a client does."""
    while path:
        answer = server.request("GET", path)
        assert answer.status == 200, answer.body
        yield json.loads(answer.body)[field]
        link = answer.headers.get("Link", "")
        found = re.fullmatch(r'<([^>]+)>;\s*rel="?next"?', link) if link else None
        assert bool(link) == bool(found), link
        path = found[1] if found else ""


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", TAGS),
        ("?n=3", TAGS[:3]),
        (f"?n={len(TAGS)}", TAGS),
        ("?n=1000", TAGS),
        ("?last=a", TAGS[6:]),
        ("?last=aa", TAGS[8:]),
        ("?n=2&last=A", TAGS[3:5]),
        ("?last=z", []),
        ("?last=0", TAGS),
        ("?n=0", []),
        ("?n=0&last=a", []),
    ],
)
def test_tags(server: Registry, repository: str, query: str, expected: list[str]) -> None:
    """`n` is how many, `last` is after which, and the order is that of ASCII."""
    push_tags(server, repository)
    answer = server.request("GET", f"/v2/{repository}/tags/list{query}")
    assert answer.status == 200
    assert answer.headers.get_content_type() == "application/json"
    assert answer.json() == {"name": repository, "tags": expected}
    if not expected or expected[-1] == TAGS[-1]:
        assert "Link" not in answer.headers


@pytest.mark.parametrize("n", [1, 2, 3, 5, 9, 10, 11])
def test_tags_page_by_page(server: Registry, repository: str, n: int) -> None:
    """Following `Link` gives every tag once, in full pages, and ends."""
    push_tags(server, repository)
    walked = list(pages(server, f"/v2/{repository}/tags/list?n={n}", "tags"))
    assert walked == [TAGS[at : at + n] for at in range(0, len(TAGS), n)]


def test_repository_without_tags(server: Registry, repository: str) -> None:
    """A repository with an untagged manifest has an empty list, not none."""
    content = Content()
    content.image()
    push_content(server, repository, content)
    answer = server.request("GET", f"/v2/{repository}/tags/list")
    assert (answer.status, answer.json()) == (200, {"name": repository, "tags": []})


BAD_NUMBERS = ["-1", "x", "1.5", "1e3", "0x10", "%EF%BC%91", "9" * 400]


@pytest.mark.parametrize("n", BAD_NUMBERS)
def test_bad_number_of_tags(server: Registry, repository: str, n: str) -> None:
    """A number that is none is an error, not a guess."""
    push_tags(server, repository)
    answer = server.request("GET", f"/v2/{repository}/tags/list?n={n}")
    check_error(answer, 400, "PAGINATION_NUMBER_INVALID")


@pytest.mark.parametrize("n", BAD_NUMBERS)
def test_bad_number_of_repositories(server: Registry, n: str) -> None:
    """So in the catalogue."""
    check_error(server.request("GET", f"/v2/_catalog?n={n}"), 400, "PAGINATION_NUMBER_INVALID")


def test_catalog(server: Registry) -> None:
    """Repositories in order, with `n`, `last` and `Link`, nested ones too."""
    # Sorts after the repositories of other tests, so that `last` leaves just ours.
    base = f"zz-{secrets.token_hex(6)}"
    names = [f"{base}/a", f"{base}/a/b", f"{base}/b", f"{base}/c/d/e"]
    content = Content()
    content.image(tag="t")
    for name in reversed(names):
        push_content(server, name, content)
    everything = server.request("GET", "/v2/_catalog")
    assert everything.headers.get_content_type() == "application/json"
    assert [name for name in everything.json()["repositories"] if name.startswith(base)] == names
    for n in (1, 2, 3, 4, 5):
        walked = list(pages(server, f"/v2/_catalog?n={n}&last={base}", "repositories"))
        mine = [name for page in walked for name in page if name.startswith(base)]
        assert mine == names
        assert all(len(page) == n for page in walked[:-1])
    none = server.request("GET", "/v2/_catalog?n=0")
    assert none.json() == {"repositories": []}
    assert "Link" not in none.headers
    after = server.request("GET", f"/v2/_catalog?n=1&last={base}/a/b").json()
    assert after == {"repositories": [f"{base}/b"]}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("exists", [False, True], ids=["no-repository", "repository"])
@pytest.mark.parametrize("query", ["", "?artifactType=application/vnd.example"])
def test_no_referrers(server: Registry, repository: str, algorithm: str, exists: bool, query: str) -> None:
    """No referrers is an index without manifests, never 404."""
    if exists:
        push_tags(server, repository)
    subject = digest_of(secrets.token_bytes(8), algorithm)
    answer = server.request("GET", f"/v2/{repository}/referrers/{subject}{query}")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == OCI_INDEX
    assert answer.json() == {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
    if query:
        assert answer.headers["OCI-Filters-Applied"] == "artifactType"


@pytest.mark.parametrize("digest", ["sha256:short", "nothing", "md5:" + "0" * 32])
def test_referrers_of_no_digest(server: Registry, repository: str, digest: str) -> None:
    """A subject that is no digest is 400."""
    answer = server.request("GET", f"/v2/{repository}/referrers/{digest}")
    check_error(answer, 400, "DIGEST_INVALID")


def test_referrers_in_any_order(server: Registry, repository: str) -> None:
    """A referrer pushed before its subject is listed, and stays so when the subject comes."""
    content = Content()
    subject = content.image()
    referrer = content.artifact(subject=subject.descriptor)
    push_content(server, repository, Content(blobs=content.blobs))
    for manifest in (referrer, subject, referrer):
        assert put_manifest(server, repository, manifest).status == 201
        listed = server.request("GET", f"/v2/{repository}/referrers/{subject.digest}").json()
        assert listed["manifests"] == content.referrers[subject.digest]


def test_referrers_belong_to_their_repository(server: Registry, repository: str) -> None:
    """What refers to the same subject elsewhere is not listed here."""
    content = Content()
    subject = content.image()
    content.artifact(subject=subject.descriptor)
    push_content(server, repository, content)
    answer = server.request("GET", f"/v2/{repository}/other/referrers/{subject.digest}")
    assert answer.json()["manifests"] == []
