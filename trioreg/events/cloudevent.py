"""An event as a CloudEvent, and the headers that go with it.

CloudEvents 1.0, JSON format, structured mode (https://github.com/cloudevents/spec, json-format.md and
http-protocol-binding.md 3.2); signed as Standard Webhooks has it
(https://github.com/standard-webhooks/standard-webhooks, "Signature scheme").
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import socket

import msgspec

from trioreg.events.audit import timestamp
from trioreg.events.event import Event

CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"
_PREFIX = "whsec_"


def cloud_event(event: Event) -> bytes:
    """The event in one line of JSON, with an id of its own."""
    data = msgspec.to_builtins(event)
    del data["time"]
    at = f":{event.tag}" if event.tag else f"@{event.digest}" if event.digest else ""
    envelope = {
        "specversion": "1.0",
        "id": secrets.token_hex(16),
        "source": f"//{socket.gethostname()}/v2/",
        "type": f"trioreg.{event.target}.{event.action}",
        "subject": f"{event.repository}{at}",
        "time": timestamp(event.time),
        "datacontenttype": "application/json",
        "data": data,
    }
    return msgspec.json.encode(envelope)


def id_of(body: bytes) -> str:
    """The id in a rendered event."""
    return msgspec.json.decode(body, type=_Identified).id


class _Identified(msgspec.Struct):
    id: str


def read_secret(text: str) -> bytes:
    """The key that a secret stands for: ``whsec_`` and base64, or any text. Raises ValueError."""
    text = text.strip()
    if not text.startswith(_PREFIX):
        return text.encode()
    try:
        return base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        raise ValueError(f"what follows {_PREFIX} is not base64") from None


def signature_headers(body: bytes, secret: bytes, at: int) -> dict[str, str]:
    """``webhook-id``, ``webhook-timestamp`` (seconds) and ``webhook-signature`` over both and the body."""
    identifier = id_of(body)
    signed = f"{identifier}.{at}.".encode() + body
    signature = base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()
    return {
        "webhook-id": identifier,
        "webhook-timestamp": str(at),
        "webhook-signature": f"v1,{signature}",
    }
