"""Where everything lives: the one place that knows keys and paths.

::

    <root>/
      blobs/<algorithm>/<first two hex>/<hex>                                bytes, immutable
      repositories/<name>/_layers/<algorithm>/<hex>/link                     may see that blob
      repositories/<name>/_manifests/revisions/<algorithm>/<hex>/link        … that manifest
      repositories/<name>/_manifests/revisions/<algorithm>/<hex>/media-type  as it was pushed
      repositories/<name>/_manifests/tags/<tag>/current/link                 digest of the tag
      repositories/<name>/_referrers/<algorithm>/<subject hex>/<algorithm>/<hex>   descriptor (JSON)
      repositories/<name>/_pulled/<algorithm>/<hex>                          when it was last pulled
      rotten/<algorithm>/<hex>                                               a blob that failed its digest
      uploads/<id>/data, state                                               bytes so far; record
      upkeep/<work>                                                          where it was, what was agreed
      quarantine/<algorithm>/<hex>                                           a blob that collection set aside
      webhooks/<hash>/…                                                      queues of `events.spool`
      locks/<kind>-<number>                                                  empty; held while links change
      locks/removals                                                         marks: `filesystem.removals`

Rule: arguments are values of `oci`, whose grammar has no ``..`` and no component that begins with ``_``
or ``.``; so no key leaves the root, and ours never collide with a repository's. Link files hold just the
digest.
"""

from __future__ import annotations

from trioreg.oci.digest import Digest
from trioreg.oci.names import RepositoryName, Tag, UploadId

REPOSITORIES = "repositories"
BLOBS = "blobs"
UPLOADS = "uploads"
QUARANTINE = "quarantine"
LOCKS = "locks"
UPKEEP = "upkeep"
MANIFESTS = "_manifests"
LAYERS = "_layers"


def blob(digest: Digest) -> str:
    return f"{BLOBS}/{digest.algorithm}/{digest.hex[:2]}/{digest.hex}"


def rotten(digest: Digest) -> str:
    return f"rotten/{digest.algorithm}/{digest.hex}"


def upkeep(work: str) -> str:
    return f"{UPKEEP}/{work}"


def blob_aside(digest: Digest) -> str:
    return f"{QUARANTINE}/{digest.algorithm}/{digest.hex}"


def aside(key: str) -> str:
    """Where a link waits that collection has set aside: beside its place, and in no listing."""
    directory, _, name = key.rpartition("/")
    return f"{directory}/.aside-{name}"


def upload(upload_id: UploadId) -> str:
    return f"{UPLOADS}/{upload_id}"


def layers(name: RepositoryName) -> str:
    return f"{REPOSITORIES}/{name}/{LAYERS}"


def layer_link(name: RepositoryName, digest: Digest) -> str:
    return f"{layers(name)}/{digest.algorithm}/{digest.hex}/link"


def revisions(name: RepositoryName) -> str:
    return f"{REPOSITORIES}/{name}/{MANIFESTS}/revisions"


def revision_link(name: RepositoryName, digest: Digest) -> str:
    return f"{revisions(name)}/{digest.algorithm}/{digest.hex}/link"


def revision_media_type(name: RepositoryName, digest: Digest) -> str:
    return f"{revisions(name)}/{digest.algorithm}/{digest.hex}/media-type"


def pulls(name: RepositoryName) -> str:
    return f"{REPOSITORIES}/{name}/_pulled"


def pulled(name: RepositoryName, digest: Digest) -> str:
    return f"{pulls(name)}/{digest.algorithm}/{digest.hex}"


def tags(name: RepositoryName) -> str:
    return f"{REPOSITORIES}/{name}/{MANIFESTS}/tags"


def tag_link(name: RepositoryName, tag: Tag) -> str:
    return f"{tags(name)}/{tag}/current/link"


def referrers(name: RepositoryName, subject: Digest) -> str:
    return f"{REPOSITORIES}/{name}/_referrers/{subject.algorithm}/{subject.hex}"


def referrer(name: RepositoryName, subject: Digest, digest: Digest) -> str:
    return f"{referrers(name, subject)}/{digest.algorithm}/{digest.hex}"
