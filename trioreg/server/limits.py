"""The limits that the settings ask for, as the values that the lower layers take.

Rule: what bounds a sum over all clients is divided among the workers, as memory is; what bounds one client
holds in each worker, because a worker does not know what the others see.
"""

from __future__ import annotations

import resource

from trioreg.api import Service
from trioreg.api.rates import RateLimits
from trioreg.config import Config
from trioreg.metrics import table
from trioreg.pipeline.admission import AdmissionLimits, places_for
from trioreg.registry.limits import Limits
from trioreg.registry.pulls import ask_for_pulls
from trioreg.server.connections import Connections

# An upload has its lease, its record's directory and its data open, and a third of all is for files.
_DESCRIPTORS_PER_PLACE = 9


def admission_limits(config: Config, budget: int) -> AdmissionLimits:
    """`budget`: bytes of this worker's blocks."""
    places = _part(config, config.admission_places)
    if not places:
        places = max(1, min(places_for(budget), _descriptors() // _DESCRIPTORS_PER_PLACE))
    queue = _part(config, config.admission_queue)
    return AdmissionLimits(places, queue, config.admission_wait, config.admission_uploads_per_client)


def storage_limits(config: Config) -> Limits:
    return Limits(config.blob_max_bytes, config.storage_reserve, config.quota_bytes, config.quota_tags)


def most_connections(config: Config) -> int:
    """As many as the settings say; but a third of the descriptors is left for files of blobs and uploads."""
    most = config.http_max_connections // config.http_workers
    return max(1, min(most, _descriptors() * 2 // 3))


def apply_limits(service: Service, config: Config) -> None:
    """Put the limits of the settings in force, at the start and whenever they are reloaded."""
    registry = service.registry
    service.admission.limits = admission_limits(config, registry.pump.budget.size)
    registry.guard.limits = storage_limits(config)
    registry.manifests.immutable = config.tags_immutable
    registry.manifests.pulls = registry.pulls if ask_for_pulls(config.retention_rules) else None
    service.rates.limits = RateLimits(config.rate_requests, config.rate_burst)


def show_limits(service: Service, connections: Connections) -> None:
    """Put what the limits hold and refuse into the metrics."""
    look = service.admission.statistics()
    table.PLACES.set(look.places)
    table.PLACES_HELD.set(look.held - look.kept, 0)
    table.PLACES_HELD.set(look.kept, 1)
    table.ADMISSION_WAITING.set(look.waiting)
    refused = (look.refused, service.rates.statistics().refused, connections.crowd.refused)
    for place, count in enumerate(refused):
        table.REFUSED.follow(count, place)


def _descriptors() -> int:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 2**31 if limit == resource.RLIM_INFINITY else limit


def _part(config: Config, total: int) -> int:
    return max(1, total // config.http_workers) if total else 0
