"""Both fronts tell access control who asks and from where, and heed what it says."""

from __future__ import annotations

import pytest
from inprocess import FRONTS, serving

from trioreg.auth.authorizer import Action
from trioreg.auth.identity import Identity
from trioreg.oci.errors import ErrorCode, RegistryError
from trioreg.oci.names import RepositoryName
from trioreg.storage.memory import MemoryStorage


class Recording:
    """Knows everyone by the header itself, and forbids to delete."""

    def __init__(self) -> None:
        self.asked: list[tuple[Identity | None, RepositoryName | None, Action]] = []

    async def identify(self, authorization: str | None) -> Identity | None:
        if authorization == "wrong":
            raise RegistryError(ErrorCode.UNAUTHORIZED, headers={"WWW-Authenticate": "Test"})
        return Identity(authorization) if authorization else None

    async def authorize(
        self, identity: Identity | None, repository: RepositoryName | None, action: Action
    ) -> None:
        self.asked.append((identity, repository, action))
        if not self.allows(identity, repository, action):
            raise RegistryError(ErrorCode.DENIED)

    def allows(self, identity: Identity | None, repository: RepositoryName | None, action: Action) -> bool:
        return action != "delete"


@pytest.mark.parametrize("front", FRONTS)
async def test_every_request_is_identified_and_authorized(front: str) -> None:
    """A header becomes an identity, or 401 with the challenge; what is not allowed is 403."""
    recording = Recording()
    async with serving(MemoryStorage(), front, authorizer=recording) as server:
        assert (await server.request("GET", "/v2/")).status == 200
        as_ann = {"Authorization": "ann"}
        assert (await server.request("POST", "/v2/a/b/blobs/uploads/", headers=as_ann)).status == 202
        denied = await server.request("DELETE", "/v2/a/b/manifests/1", headers=as_ann)
        assert denied.status == 403
        unknown = await server.request("GET", "/v2/", headers={"Authorization": "wrong"})
        assert (unknown.status, unknown.headers["www-authenticate"]) == (401, "Test")
    ann, name = Identity("ann"), RepositoryName("a/b")
    assert recording.asked == [(None, None, "list"), (ann, name, "push"), (ann, name, "delete")]
