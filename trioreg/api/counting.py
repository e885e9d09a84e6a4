"""What is noted of a request: under which name it is counted, and that it is over."""

from __future__ import annotations

from trioreg import metrics
from trioreg.api.exchange import Exchange
from trioreg.api.service import Service
from trioreg.metrics.table import OPERATIONS
from trioreg.oci import operations as op

_NAMES: dict[type, str] = {
    op.Ping: "ping",
    op.GetBlob: "get_blob",
    op.DeleteBlob: "delete_blob",
    op.StartUpload: "start_upload",
    op.AppendUpload: "append_upload",
    op.FinishUpload: "finish_upload",
    op.UploadStatus: "upload_status",
    op.CancelUpload: "cancel_upload",
    op.GetManifest: "get_manifest",
    op.PutManifest: "put_manifest",
    op.DeleteManifest: "delete_manifest",
    op.ListTags: "list_tags",
    op.ListRepositories: "list_repositories",
    op.ListReferrers: "list_referrers",
}
# By type; HEAD of a blob or manifest has a place of its own.
COUNTED: dict[type, int] = {kind: OPERATIONS.index(name) for kind, name in _NAMES.items()}
_OF_HEAD: dict[type, int] = {
    op.GetBlob: OPERATIONS.index("head_blob"),
    op.GetManifest: OPERATIONS.index("head_manifest"),
}
COUNTED_HEAD: dict[type, int] = {**COUNTED, **_OF_HEAD}


def count_request(
    service: Service, exchange: Exchange | None, status: int, seconds: float, received: int, sent: int
) -> None:
    """A request is over, answered or not (499); None is one that never became an exchange."""
    metrics.count_request(exchange.operation if exchange else 0, status, seconds, received, sent)
    if service.tracing is not None and exchange is not None:
        service.tracing.end(exchange, status, received, sent)
