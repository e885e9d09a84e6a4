"""One function per OCI operation: (service, operation, exchange) → Reply.

Knows HTTP's words, not its server: any front that can make an `Exchange` and send a `Reply` serves it.
"""

from trioreg.api.answer import answer
from trioreg.api.exchange import BlobSlice, Exchange, Reply, Stream
from trioreg.api.service import Service

__all__ = ["BlobSlice", "Exchange", "Reply", "Service", "Stream", "answer"]
