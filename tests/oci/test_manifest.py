"""Manifests: every kind is read, and hostile ones cost an error and nothing more."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioreg.oci.digest import digest_of
from trioreg.oci.errors import ErrorCode, RegistryError
from trioreg.oci.manifest import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    MAX_REFERENCES,
    OCI_INDEX,
    OCI_MANIFEST,
    Manifest,
    Reference,
    descriptor_artifact_type,
    parse_manifest,
    referrer_descriptor,
    referrers_index,
)

LAYER = "application/vnd.oci.image.layer.v1.tar"
CONFIG = "application/vnd.oci.image.config.v1+json"
Json = dict[str, Any]


def descriptor(content: bytes, media_type: str = LAYER, **members: Any) -> Json:
    return {"mediaType": media_type, "digest": str(digest_of(content)), "size": len(content), **members}


def image(**members: Any) -> Json:
    """An image manifest of a config and two layers; a member that is None is left out."""
    document: Json = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(b"{}", CONFIG),
        "layers": [descriptor(b"one"), descriptor(b"three")],
        **members,
    }
    return {key: value for key, value in document.items() if value is not None}


def index(**members: Any) -> Json:
    children = [descriptor(b"m1", OCI_MANIFEST), descriptor(b"m22", OCI_MANIFEST, platform={"os": "linux"})]
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children, **members}
    return {key: value for key, value in document.items() if value is not None}


def parse(document: Any, content_type: str | None = None) -> Manifest:
    return parse_manifest(json.dumps(document).encode(), content_type)


def refused(body: bytes, content_type: str | None = None) -> str:
    """The reason for which a manifest is refused."""
    with pytest.raises(RegistryError) as error:
        parse_manifest(body, content_type)
    assert error.value.error is ErrorCode.MANIFEST_INVALID
    reason: str = error.value.detail["reason"]
    assert reason and len(reason) < 1000
    return reason


def references(*contents: bytes) -> tuple[Reference, ...]:
    return tuple(Reference(digest_of(each), len(each)) for each in contents)


@pytest.mark.parametrize("kind", [OCI_MANIFEST, DOCKER_MANIFEST])
@pytest.mark.parametrize("stated", ["both", "header", "document"])
def test_image(kind: str, stated: str) -> None:
    """An image manifest needs its config and layers; its type is in the header, the document, or both."""
    document = image(mediaType=None if stated == "header" else kind)
    found = parse(document, None if stated == "document" else kind)
    assert found == Manifest(
        kind, len(json.dumps(document)), references(b"{}", b"one", b"three"), (), (), None, CONFIG, None
    )


@pytest.mark.parametrize("kind", [OCI_INDEX, DOCKER_LIST])
def test_index(kind: str) -> None:
    """An index needs the manifests it lists and no blob."""
    found = parse(index(mediaType=kind), kind)
    assert (found.media_type, found.blobs, found.manifests) == (kind, (), references(b"m1", b"m22"))
    assert found.artifact_type is None
    assert parse(index(manifests=[])).manifests == ()


def test_untyped() -> None:
    """OCI lets `mediaType` be absent: without a header too, the members tell an index from an image."""
    assert parse(image(mediaType=None)).media_type == OCI_MANIFEST
    assert parse(index(mediaType=None)).media_type == OCI_INDEX


def test_artifact() -> None:
    """An artifact keeps its type, annotations and subject, which need not be here."""
    members = {"artifactType": "a/b", "annotations": {"k": "v"}, "subject": descriptor(b"s", OCI_MANIFEST)}
    for document in (image(**members), index(**members)):
        found = parse(document)
        assert (found.artifact_type, found.annotations) == ("a/b", {"k": "v"})
        assert found.subject == digest_of(b"s")
        assert digest_of(b"s") not in [need.digest for need in (*found.blobs, *found.manifests)]


@pytest.mark.parametrize(
    ("members", "foreign"),
    [
        ({"urls": ["https://example.com/layer"]}, True),
        ({"urls": []}, False),
        ({"media_type": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"}, True),
        ({"media_type": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"}, True),
        ({"media_type": "application/vnd.docker.image.rootfs.diff.tar.gzip"}, False),
    ],
)
def test_foreign_layer(members: Json, foreign: bool) -> None:
    """A layer that lives elsewhere is not needed here."""
    found = parse(image(layers=[descriptor(b"far", **members), descriptor(b"near")]))
    assert found.blobs == references(b"{}", *([] if foreign else [b"far"]), b"near")


@pytest.mark.parametrize(
    ("document", "header"),
    [
        (OCI_MANIFEST, DOCKER_MANIFEST),
        (DOCKER_MANIFEST, OCI_MANIFEST),
        (OCI_MANIFEST, OCI_INDEX),
        (OCI_MANIFEST, "application/json"),
        ("application/json", OCI_MANIFEST),
    ],
)
def test_types_disagree(document: str, header: str) -> None:
    """spec.md, "Pushing Manifests": Content-Type and `mediaType` MUST agree."""
    assert header in refused(json.dumps(image(mediaType=document)).encode(), header)


def test_header_with_parameters() -> None:
    """Parameters of Content-Type are no part of the type."""
    assert parse(image(), f"{OCI_MANIFEST}; charset=utf-8").media_type == OCI_MANIFEST
    assert parse(image(), "").media_type == OCI_MANIFEST


WRONG: list[tuple[str, Any]] = [
    ("a list", []),
    ("a number", 2),
    ("a string", "manifest"),
    ("null", None),
    ("nothing in it", {}),
    ("no version", image(schemaVersion=None)),
    ("version 1", image(schemaVersion=1)),
    ("version as text", image(schemaVersion="2")),
    ("version true", image(schemaVersion=True)),
    ("version 2.5", image(schemaVersion=2.5)),
    ("no config", image(config=None)),
    ("no layers", image(layers=None)),
    ("image with manifests", image(manifests=[])),
    ("index with layers", index(layers=[])),
    ("index without manifests", index(manifests=None)),
    ("image typed as index", image(mediaType=OCI_INDEX)),
    ("index typed as image", index(mediaType=OCI_MANIFEST)),
    ("a media type of something else", image(mediaType="application/json")),
    ("schema 1", image(mediaType="application/vnd.docker.distribution.manifest.v1+json")),
    ("media type as number", image(mediaType=7)),
    ("a long media type", image(mediaType="a" * 5000)),
    ("config is a list", image(config=[])),
    ("config without size", image(config={"mediaType": CONFIG, "digest": str(digest_of(b""))})),
    ("layers is an object", image(layers={})),
    ("layers holds null", image(layers=[None])),
    ("layers holds text", image(layers=["sha256:"])),
    ("a negative size", image(layers=[descriptor(b"x", size=-1)])),
    ("a size as text", image(layers=[descriptor(b"x", size="1")])),
    ("a size as fraction", image(layers=[descriptor(b"x", size=1.5)])),
    ("an enormous size", image(layers=[descriptor(b"x", size=10**40)])),
    ("a bad digest", image(layers=[descriptor(b"x", digest="sha256:x")])),
    ("a digest that climbs", image(layers=[descriptor(b"x", digest="../../etc/passwd")])),
    ("a digest of another algorithm", image(layers=[descriptor(b"x", digest=f"md5:{'a' * 32}")])),
    ("a long digest", image(layers=[descriptor(b"x", digest="a" * 10**5)])),
    ("a bad subject", image(subject={"mediaType": "", "digest": "x", "size": 1})),
    ("subject as text", image(subject=str(digest_of(b"")))),
    ("annotations that are no text", image(annotations={"k": 1})),
    ("annotations as list", image(annotations=["k"])),
    ("urls as text", image(layers=[descriptor(b"x", urls="https://example.com")])),
    ("artifactType as number", image(artifactType=3)),
]


@pytest.mark.parametrize("document", [each[1] for each in WRONG], ids=[each[0] for each in WRONG])
def test_wrong(document: Any) -> None:
    """JSON that is no manifest is refused, with a reason of bounded length."""
    refused(json.dumps(document).encode())


BROKEN = [
    b"",
    b" ",
    b"\0",
    b"not json",
    b"{",
    b'{"schemaVersion": 2',
    b"{'schemaVersion': 2}",
    b'\xef\xbb\xbf{"schemaVersion": 2}',
    b"\x1f\x8b\x08\x00",
    json.dumps(image()).encode() + b"x",
    json.dumps(image()).encode() * 2,
    json.dumps(image()).encode("utf-16"),
    json.dumps(image(artifactType="@")).encode().replace(b"@", b"\xff"),
    json.dumps(image(artifactType="@")).encode().replace(b"@", b"\\ud800"),
    json.dumps(image(schemaVersion="@")).encode().replace(b'"@"', b"NaN"),
    json.dumps(image(schemaVersion="@")).encode().replace(b'"@"', b"9" * 10_000),
]


@pytest.mark.parametrize("body", BROKEN, ids=range(len(BROKEN)))
def test_broken(body: bytes) -> None:
    """What is not JSON, or not UTF-8, is refused."""
    refused(body)


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
@pytest.mark.parametrize("known", [b"layers", b"annotations", b"unknown"])
@pytest.mark.parametrize("closed", [True, False])
def test_too_deep(opening: bytes, known: bytes, closed: bool) -> None:
    """100,000 levels are refused, wherever they stand, and do not overflow the stack."""
    depth = 100_000
    closing = (b"]" if opening == b"[" else b"}") * depth if closed else b""
    body = b'{"schemaVersion":2,"%s":%s%s}' % (known, opening * depth + b"1", closing)
    refused(body)


def test_most_references() -> None:
    """The largest manifest that is taken, and one layer more."""
    layers = [descriptor(b"")] * MAX_REFERENCES
    assert len(parse(image(layers=layers)).blobs) == MAX_REFERENCES + 1
    refused(json.dumps(image(layers=[*layers, descriptor(b"")])).encode())
    refused(json.dumps(index(manifests=[*layers, descriptor(b"")])).encode())


def test_a_million_layers() -> None:
    """A million layers are refused."""
    layer = b'{"mediaType":"","digest":"","size":0}'
    body = b'{"schemaVersion":2,"config":%s,"layers":[%s]}' % (layer, b",".join([layer] * 1_000_000))
    refused(body)


def test_memory_of_a_hostile_manifest() -> None:
    """A document at the default limit of 4 MiB costs less than sixteen times its text."""
    layer = b'{"mediaType":"","digest":"","size":0}'
    count = 4 * 2**20 // (len(layer) + 1) - 2
    hostile = [
        b'{"schemaVersion":2,"config":%s,"layers":[%s]}' % (layer, b",".join([layer] * count)),
        b'{"schemaVersion":2,"unknown":[%s]}' % b",".join([b"{}"] * (4 * 2**20 // 3 - 20)),
        b'{"schemaVersion":2,"annotations":{%s}}' % b",".join(b'"%x":""' % at for at in range(400_000)),
    ]
    for body in hostile:
        tracemalloc.start()
        try:
            with pytest.raises(RegistryError):
                parse_manifest(body, OCI_MANIFEST)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 16 * len(body), (body[:60], peak)


@given(
    document=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["schemaVersion", "config", "layers", "manifests", "subject", "size"]), inner
            )
        ),
    )
)
def test_any_json(document: Any) -> None:
    """No JSON raises anything but MANIFEST_INVALID."""
    try:
        parse(document)
    except RegistryError as error:
        if error.error is not ErrorCode.MANIFEST_INVALID:
            raise


@given(at=st.integers(0, 600), what=st.binary(max_size=3))
def test_mangled(at: int, what: bytes) -> None:
    """A manifest with bytes changed is a manifest or MANIFEST_INVALID."""
    body = json.dumps(image(subject=descriptor(b"s"))).encode()
    try:
        parse_manifest(body[:at] + what + body[at + 1 :], OCI_MANIFEST)
    except RegistryError as error:
        if error.error is not ErrorCode.MANIFEST_INVALID:
            raise


def test_referrers() -> None:
    """A referrer is listed with its own type, artifact type and annotations, in an index."""
    manifest = parse(image(artifactType="a/b", annotations={"ä": "v"}, subject=descriptor(b"s")))
    digest = digest_of(b"itself")
    line = referrer_descriptor(manifest, digest)
    assert json.loads(line) == {
        "mediaType": OCI_MANIFEST,
        "digest": str(digest),
        "size": manifest.size,
        "artifactType": "a/b",
        "annotations": {"ä": "v"},
    }
    assert descriptor_artifact_type(line, digest) == "a/b"
    other = line.replace(digest.hex.encode(), b"0" * 64)
    for torn in (b"", line[:-1], bytes(len(line)), b"[]", other, line[:-1] + b',"x":"\xff"}'):
        with pytest.raises(ValueError):  # noqa: PT011 (that it raises is all that matters)
            descriptor_artifact_type(torn, digest)
    listed = json.loads(referrers_index([line, line]))
    assert listed == {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [json.loads(line)] * 2}
    assert json.loads(referrers_index([]))["manifests"] == []


def test_referrer_without_artifact_type() -> None:
    """Where there is no type it is left out of the descriptor, and matches no filter."""
    line = referrer_descriptor(parse(index(subject=descriptor(b"s"))), digest_of(b"itself"))
    assert "artifactType" not in json.loads(line)
    assert descriptor_artifact_type(line, digest_of(b"itself")) is None
