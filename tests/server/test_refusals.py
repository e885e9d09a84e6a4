"""Refusals in the audit log: who was kept out of what, without noise."""

from __future__ import annotations

import pytest
from inprocess import FRONTS, serving

from trioreg.auth.authorizer import AllowAll
from trioreg.auth.identity import Action, Identity
from trioreg.auth.policy import Decision
from trioreg.events.event import Event
from trioreg.oci.errors import ErrorCode, RegistryError
from trioreg.oci.names import RepositoryName
from trioreg.storage.memory import MemoryStorage


class Guarded(AllowAll):
    """Knows "Basic good" as one name, and lets nobody delete."""

    async def identify(self, authorization: str | None, certificate: str | None) -> Identity | None:
        if authorization is None:
            raise RegistryError(ErrorCode.UNAUTHORIZED)
        if authorization != "Basic good":
            raise RegistryError(ErrorCode.UNAUTHORIZED)
        return Identity("alice")

    def decide(
        self, identity: Identity | None, repository: RepositoryName | None, action: Action
    ) -> Decision:
        return Decision(action != "delete", "nobody deletes")


class Recorded:
    def __init__(self) -> None:
        self.events: list[Event] = []

    async def record(self, event: Event) -> None:
        self.events.append(event)


@pytest.mark.parametrize("front", FRONTS)
async def test_refusals_are_recorded(front: str) -> None:
    """Wrong credentials and missing rights are; a client that has not shown any yet is not."""
    recorded = Recorded()
    async with serving(MemoryStorage(), front) as server:
        server.service.authorizer = Guarded()
        server.service.events = recorded
        path = "/v2/some/name/manifests/v1"
        assert (await server.request("GET", "/v2/")).status == 401
        assert recorded.events == []
        wrong = {"Authorization": "Basic secret"}
        assert (await server.request("GET", "/v2/", headers=wrong)).status == 401
        good = {"Authorization": "Basic good", "User-Agent": "a client"}
        assert (await server.request("DELETE", path, headers=good)).status == 403
        assert (await server.request("GET", path, headers=good)).status == 404
    first, second = recorded.events
    assert (first.action, first.code, first.identity) == ("denied", "UNAUTHORIZED", "")
    assert (second.action, second.code, second.identity) == ("denied", "DENIED", "alice")
    assert second.detail == f"DELETE {path}"
    assert (second.peer, second.agent) == ("127.0.0.1", "a client")
    assert "secret" not in repr(recorded.events), "credentials are nobody's business"
