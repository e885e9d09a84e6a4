"""Both fronts tell access control who asks, and heed what it says."""

from __future__ import annotations

import pytest
from inprocess import FRONTS, serving

from trioreg.auth.authorizer import Action, AllowAll, BadCredentials
from trioreg.auth.identity import Identity
from trioreg.auth.policy import Decision
from trioreg.oci.names import RepositoryName
from trioreg.storage.memory import MemoryStorage


class Recording(AllowAll):
    """Knows everyone by the header itself, and forbids to delete."""

    def __init__(self) -> None:
        self.asked: list[tuple[str | None, RepositoryName | None, Action]] = []

    async def identify(self, authorization: str | None, certificate: str | None) -> Identity | None:
        if authorization == "wrong":
            raise BadCredentials
        return Identity(authorization) if authorization else None

    def decide(
        self, identity: Identity | None, repository: RepositoryName | None, action: Action
    ) -> Decision:
        self.asked.append((identity.name if identity else None, repository, action))
        return Decision(action != "delete", "as it is")

    def challenge(
        self, host: str, repository: RepositoryName | None, action: Action, error: str | None
    ) -> str | None:
        return f"Test {host} {repository} {action} {error}"


@pytest.mark.parametrize("front", FRONTS)
async def test_every_request_is_identified_and_authorized(front: str) -> None:
    """A header becomes an identity, or 401 with the challenge; what is not allowed is 403."""
    recording = Recording()
    async with serving(MemoryStorage(), front, authorizer=recording) as server:
        ann = {"Authorization": "ann"}
        assert (await server.request("GET", "/v2/", headers=ann)).status == 200
        assert (await server.request("POST", "/v2/a/b/blobs/uploads/", headers=ann)).status == 202
        assert (await server.request("DELETE", "/v2/a/b/manifests/1", headers=ann)).status == 403
        wrong = await server.request("GET", "/v2/a/b/tags/list", headers={"Authorization": "wrong"})
        assert wrong.status == 401
        assert wrong.headers["www-authenticate"] == "Test registry.example.com a/b pull invalid_token"
        nobody = await server.request("DELETE", "/v2/a/b/manifests/1")
        assert nobody.status == 401
        assert nobody.headers["www-authenticate"] == "Test registry.example.com a/b delete None"
    name = RepositoryName("a/b")
    expected = [("ann", None, "list"), ("ann", name, "push"), ("ann", name, "delete"), (None, name, "delete")]
    assert recording.asked == expected


@pytest.mark.parametrize("front", FRONTS)
async def test_who_may_log_in_is_challenged_at_the_door(front: str) -> None:
    """GET /v2/ without credentials is 401, whatever anonymous clients may do: docker asks only there."""
    async with serving(MemoryStorage(), front, authorizer=Recording()) as server:
        assert (await server.request("GET", "/v2/")).status == 401
        assert (await server.request("GET", "/v2/_catalog")).status == 200
