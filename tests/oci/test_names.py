"""Names, tags and upload ids: what the grammar takes, what it refuses, and that none can climb."""

from __future__ import annotations

import os.path
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioreg.oci.digest import Digest
from trioreg.oci.errors import ErrorCode, RegistryError
from trioreg.oci.names import (
    RepositoryName,
    Tag,
    UploadId,
    new_upload_id,
    parse_name,
    parse_tag,
    parse_upload_id,
)
from trioreg.storage import layout

UPLOAD = "01234567-89ab-4def-8123-456789abcdef"
DIGEST = Digest("sha256", "a" * 64)
ROOT = "/srv/registry"

GOOD_NAMES = [
    "a",
    "0",
    "library/ubuntu",
    "a/b/c/d/e",
    "a.b",
    "a_b",
    "a__b",
    "a-b",
    "a-----b",
    "a.b_c__d-e/0--1",
    "blobs/uploads",
    "tags/list",
    "v2/manifests",
    "a" * 255,
    "a" * 127 + "/" + "b" * 127,
]
BAD_NAMES = [
    "",
    "/",
    "a/",
    "/a",
    "a//b",
    ".",
    "..",
    "a/..",
    "../a",
    "a/../b",
    ".a",
    "a.",
    "_a",
    "a_",
    "-a",
    "a-",
    "a..b",
    "a___b",
    "a._b",
    "a.-b",
    "a_-b",
    "A",
    "aB/c",
    "a b",
    "a\n",
    "\na",
    "a\0",
    "a\\b",
    "a:b",
    "a@b",
    "a%2fb",
    "ä",
    "\u0661",  # a digit in Arabic: no ASCII, no name
    "\uff41",  # a full-width letter
    "a" * 256,
    "_catalog",
]
GOOD_TAGS = ["a", "latest", "_", "_a", "A.B-c_d", "1.0", "a..b", "a" * 128, "v1.2.3-rc.1_x"]
BAD_TAGS = ["", ".", "..", ".a", "-a", "a/b", "a:b", "a+b", "a b", "a\n", "a\0", "ä", "\u0661", "a" * 129]
GOOD_UPLOADS = [UPLOAD, "0" * 8 + "-0000-0000-0000-" + "0" * 12]
BAD_UPLOADS = [
    "",
    "..",
    UPLOAD.upper(),
    UPLOAD + "\n",
    UPLOAD[:-1],
    UPLOAD + "0",
    UPLOAD.replace("-", ""),
    "{" + UPLOAD + "}",
    UPLOAD.replace("0", "\u0660"),
    f"../{UPLOAD}",
]

PARSERS: dict[str, tuple[Callable[[str], str], ErrorCode]] = {
    "name": (parse_name, ErrorCode.NAME_INVALID),
    "tag": (parse_tag, ErrorCode.TAG_INVALID),
    "upload": (parse_upload_id, ErrorCode.BLOB_UPLOAD_INVALID),
}
# Letters that make trouble come up more often than in all of Unicode.
trouble = st.text(st.sampled_from("abzAZ09._-/\\~%:\0\n ä")) | st.text()


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_good_name(name: str) -> None:
    """A name of the grammar is kept as it came."""
    assert parse_name(name) == name


@pytest.mark.parametrize("tag", GOOD_TAGS)
def test_good_tag(tag: str) -> None:
    """A tag of the grammar is kept as it came."""
    assert parse_tag(tag) == tag


@pytest.mark.parametrize("upload", GOOD_UPLOADS)
def test_good_upload_id(upload: str) -> None:
    """An upload id in the form of ours is kept as it came."""
    assert parse_upload_id(upload) == upload


@pytest.mark.parametrize(
    ("kind", "text"),
    [("name", each) for each in BAD_NAMES]
    + [("tag", each) for each in BAD_TAGS]
    + [("upload", each) for each in BAD_UPLOADS],
)
def test_refused(kind: str, text: str) -> None:
    """Anything else is refused with its own code, and the detail is bounded."""
    parse, error = PARSERS[kind]
    with pytest.raises(RegistryError) as refused:
        parse(text)
    assert refused.value.error is error
    assert len(str(refused.value.detail)) < 2000


@pytest.mark.parametrize("kind", PARSERS)
def test_long_refusal_is_short(kind: str) -> None:
    """A megabyte that is no name does not come back in the answer."""
    with pytest.raises(RegistryError) as refused:
        PARSERS[kind][0]("../" * 350_000)
    assert len(str(refused.value.detail)) < 500


def test_new_upload_ids_differ_and_parse() -> None:
    """Ids of ours pass our own grammar and do not repeat."""
    made = {new_upload_id() for _ in range(1000)}
    assert len(made) == 1000
    assert all(parse_upload_id(each) == each for each in made)


def stays_inside(key: str) -> None:
    """`key`, joined to the root, is a path below it, spelt in exactly one way."""
    path = os.path.join(ROOT, key)
    assert os.path.normpath(path) == path
    assert path.startswith(f"{ROOT}/")
    assert "\0" not in path
    assert all(len(part.encode()) <= 255 for part in path.split("/"))


def keys(name: str, tag: str, upload: str) -> list[str]:
    """Every key that `storage.layout` makes of these."""
    repository, version = RepositoryName(name), Tag(tag)
    return [
        layout.layer_link(repository, DIGEST),
        layout.revision_link(repository, DIGEST),
        layout.revision_media_type(repository, DIGEST),
        layout.tag_link(repository, version),
        layout.referrer(repository, DIGEST, DIGEST),
        layout.upload(UploadId(upload)),
        layout.blob(DIGEST),
    ]


@given(text=trouble)
def test_nothing_accepted_leaves_the_root(text: str) -> None:
    """Whatever text is accepted as a name, tag or upload id makes only paths below the root."""
    name, tag, upload = "a", "a", UPLOAD
    try:
        name = parse_name(text)
    except RegistryError:
        pass
    try:
        tag = parse_tag(text)
    except RegistryError:
        pass
    try:
        upload = parse_upload_id(text)
    except RegistryError:
        pass
    for key in keys(name, tag, upload):
        stays_inside(key)


word = st.text(st.sampled_from("ab09"), min_size=1, max_size=60)
component = st.lists(st.tuples(word, st.sampled_from([".", "_", "__", "-", "---"])), max_size=2).flatmap(
    lambda pairs: word.map(lambda last: "".join(a + b for a, b in pairs) + last)
)


@given(
    name=st.lists(component, min_size=1, max_size=5).map("/".join), tag=st.text(st.sampled_from("aZ9_.-/"))
)
def test_names_of_the_grammar(name: str, tag: str) -> None:
    """Every name of the spec's grammar up to 255 characters is taken; all keys of it stay inside."""
    if len(name) > 255:
        with pytest.raises(RegistryError):
            parse_name(name)
        return
    assert parse_name(str(parse_name(name))) == name
    try:
        accepted: str = parse_tag(tag)
    except RegistryError:
        accepted = "latest"
    for key in keys(name, accepted, UPLOAD):
        stays_inside(key)


@given(left=st.lists(component, min_size=1, max_size=3), right=st.lists(component, min_size=1, max_size=3))
def test_no_two_repositories_share_a_key(left: list[str], right: list[str]) -> None:
    """Different repositories have different keys, and none is inside another's entries."""
    one, other = "/".join(left), "/".join(right)
    ours, theirs = (set(keys(each, "a", UPLOAD)[:5]) for each in (one, other))
    assert (ours == theirs) if one == other else not ours & theirs
    if one != other:
        assert not any(b.startswith(f"{a}/") for a in ours for b in theirs)
