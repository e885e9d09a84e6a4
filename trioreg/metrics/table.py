"""The one table of metrics: name, help, labels. docs/observability.md shows it.

Names follow https://prometheus.io/docs/practices/naming/: base units, a counter ends in ``_total``.
"""

from __future__ import annotations

from trioreg.metrics.cells import NANOSECONDS, Counter, Gauge, Histogram, open_slots

# Requests.

# What is asked for; `other` are those that never became an operation, and pages.
OPERATIONS = (
    "other",
    "ping",
    "get_blob",
    "head_blob",
    "delete_blob",
    "start_upload",
    "append_upload",
    "finish_upload",
    "upload_status",
    "cancel_upload",
    "get_manifest",
    "head_manifest",
    "put_manifest",
    "delete_manifest",
    "list_tags",
    "list_repositories",
    "list_referrers",
)
_DONE = (200, 201, 202, 204, 206, 304, 307)
_REFUSED = (400, 401, 403, 404, 405, 408, 409, 411, 412, 413, 414, 415, 416, 422, 429, 431, 499)
_FAILED = (500, 501, 502, 503, 504, 505, 507)
CODES = _DONE + _REFUSED + _FAILED
_CODE_NAMES = (*map(str, CODES), "other")

# From a manifest out of the cache (a fifth of a millisecond) to a blob of 100 GB.
_REQUEST_BOUNDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 15, 60, 300)
_SYNC_BOUNDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_LAG_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)

REQUESTS = Counter(
    "trioreg_http_requests_total",
    "Requests that are over, by operation and status; 499: the client left before it had an answer.",
    operation=OPERATIONS,
    code=_CODE_NAMES,
)
REQUEST_SECONDS = Histogram(
    "trioreg_http_request_duration_seconds",
    "From the head of a request to the end of its answer.",
    _REQUEST_BOUNDS,
    unit=NANOSECONDS,
    operation=OPERATIONS,
)
RECEIVED = Counter("trioreg_http_received_bytes_total", "Content of requests that was read.")
SENT = Counter("trioreg_http_sent_bytes_total", "Content of answers that was sent.")
CONNECTIONS = Gauge(
    "trioreg_http_connections", "Open connections, by what serves them.", front=("direct", "hypercorn")
)

# Limits.

PLACES = Gauge("trioreg_admission_places", "Uploads that there may be at once.")
PLACES_HELD = Gauge(
    "trioreg_admission_held_places",
    "Places that uploads have: for a body that is received, or kept between two requests.",
    use=("body", "kept"),
)
ADMISSION_WAITING = Gauge("trioreg_admission_waiting", "Uploads that wait for a place.")
LIMITS = ("admission", "rate", "connections")
REFUSED = Counter(
    "trioreg_limits_refused_total",
    "Requests without a place (429), too many requests (429), connections that were turned away (503).",
    limit=LIMITS,
)

# Uploads, blocks and the digest engine.

WAITS = ("lease", "client", "block", "digest", "disk", "verify", "publish", "link")
UPLOADS = Gauge(
    "trioreg_uploads",
    "Requests that append to or finish an upload now, by what they wait for.",
    waits_for=WAITS,
)
BUDGET_BLOCKS = Gauge("trioreg_budget_blocks", "Blocks that the budget allows.")
BUDGET_HELD = Gauge("trioreg_budget_held_blocks", "Blocks that transfers hold.")
BUDGET_WARM = Gauge(
    "trioreg_budget_warm_blocks", "Blocks that have their pages: held, or free and not trimmed."
)
BUDGET_WAITING = Gauge("trioreg_budget_waiting", "Transfers that wait for a block.")
BLOCK_BYTES = Gauge("trioreg_budget_block_size_bytes", "Size of one block.", highest=True)
STAGES = ("receive", "digest", "write")
STAGE_BLOCKS = Gauge(
    "trioreg_pipeline_blocks",
    "Blocks in each stage: being filled or full, waiting for or in the digest, being written.",
    stage=STAGES,
)

SPENT_SECONDS = Counter(
    "trioreg_upload_stage_seconds_total",
    "What the time of uploads that are over went into. Stages run side by side: their sum is no age.",
    unit=NANOSECONDS,
    stage=("lease", "client", "block", "digest", "write", "engine", "sync", "verify", "publish", "link"),
)
ENGINE_BATCHES = Histogram(
    "trioreg_engine_batch_jobs",
    "How many blocks, each of another upload, the digest engine took at once.",
    (1, 2, 4, 8, 16, 32),
)
ENGINE_BYTES = Counter("trioreg_engine_digested_bytes_total", "What the digest engine has hashed.")
ENGINE_SHA_BLOCKS = Counter(
    "trioreg_engine_sha_blocks_total",
    "Blocks of SHA-256 (64 bytes), by how: several streams side by side, or one by itself.",
    way=("lanes", "single"),
)
ENGINE_LANE_PLACES = Counter(
    "trioreg_engine_lane_places_total",
    "Places for SHA-256 blocks in the lanes that ran, idle ones included.",
)

# Caches.

CACHES = ("replies", "contents", "values", "listings")
CACHE_HITS = Counter("trioreg_cache_hits_total", "Look-ups that found it.", cache=CACHES)
CACHE_MISSES = Counter("trioreg_cache_misses_total", "Look-ups that did not.", cache=CACHES)
CACHE_BYTES = Gauge("trioreg_cache_bytes", "What the entries cost, as it is bounded.", cache=CACHES)
CACHE_ENTRIES = Gauge("trioreg_cache_entries", "Entries.", cache=CACHES)

# The disk.

SYNC_KINDS = ("data", "directory")
SYNC_SECONDS = Histogram(
    "trioreg_storage_sync_duration_seconds",
    "Calls that wait until the disk has it.",
    _SYNC_BOUNDS,
    unit=NANOSECONDS,
    kind=SYNC_KINDS,
)
# The bounds of `storage.filesystem.census`, in words.
SIZES = ("4KiB", "64KiB", "1MiB", "16MiB", "256MiB", "4GiB", "larger")
STORED_BLOBS = Gauge(
    "trioreg_storage_blobs",
    "Blobs at the last census, by the size up to which they are (manifests are blobs too).",
    highest=True,
    up_to=SIZES,
)
STORED_BYTES = Gauge("trioreg_storage_blob_bytes", "Bytes of these blobs.", highest=True)
LINKED_BYTES = Gauge(
    "trioreg_storage_linked_bytes",
    "The same with each blob as often as a repository links it.",
    highest=True,
)
DEDUP_RATIO = Gauge(
    "trioreg_storage_dedup_ratio",
    "Linked bytes over bytes of blobs: above 1 is saved by sharing, below 1 is not linked.",
    unit=10**6,
    highest=True,
)
COUNTED_AT = Gauge(
    "trioreg_storage_census_timestamp_seconds",
    "When the last census ended; 0 before the first.",
    unit=NANOSECONDS,
    highest=True,
)
FREE_BYTES = Gauge(
    "trioreg_storage_free_bytes", "What the file system of the storage has left for us.", highest=True
)
SCRUBBED = Counter(
    "trioreg_scrub_blobs_total",
    "Blobs that scrubs of the server looked at, and of these what was not right.",
    result=("read", "rotten", "unreadable"),
)

# Notices.

WEBHOOK_EVENTS = Counter(
    "trioreg_webhook_events_total",
    "Events for receivers: queued, delivered, tried again, given up, and lost because the queue was full.",
    result=("queued", "delivered", "retried", "dead", "lost"),
)
AUDIT_LINES = Counter(
    "trioreg_audit_lines_total",
    "Lines for the audit log: in the file, and lost because too many waited for the disk.",
    result=("written", "lost"),
)
AUDIT_FAILURES = Counter(
    "trioreg_audit_failed_writes_total", "Writes of the audit log that the disk refused; the lines wait."
)

# The process.

LOOP_LAG = Histogram(
    "trioreg_loop_lag_seconds",
    "How late the event loop came to a task that was due.",
    _LAG_BOUNDS,
    unit=NANOSECONDS,
)
LOOP_LAG_HIGHEST = Gauge(
    "trioreg_loop_lag_highest_seconds",
    "The highest such lag in the last full second.",
    unit=NANOSECONDS,
    highest=True,
)
DROPPED_LINES = Counter("trioreg_log_dropped_lines_total", "Lines of the access log that were given up.")
WORKERS = Gauge("trioreg_workers", "Workers that serve.")
RESIDENT_BYTES = Gauge("process_resident_memory_bytes", "Resident memory, all workers together.")
CPU_SECONDS = Counter("process_cpu_seconds_total", "Processor time, user and system.", unit=NANOSECONDS)
OPEN_FDS = Gauge("process_open_fds", "Open descriptors.")
GARBAGE = Counter("python_gc_collections_total", "Runs of the garbage collector.", generation=("0", "1", "2"))

open_slots(1)
