"""Under which name an operation is counted (`metrics.table.OPERATIONS`)."""

from __future__ import annotations

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
_PLACES = {kind: OPERATIONS.index(name) for kind, name in _NAMES.items()}
_OF_HEAD = {op.GetBlob: OPERATIONS.index("head_blob"), op.GetManifest: OPERATIONS.index("head_manifest")}


def counted_as(operation: op.Operation, method: str) -> int:
    """The index of an operation; HEAD of a blob or manifest has its own."""
    kind = type(operation)
    if method == "HEAD" and kind in _OF_HEAD:
        return _OF_HEAD[kind]
    return _PLACES[kind]
