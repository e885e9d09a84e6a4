"""The limits that the settings ask for, as the values that the lower layers take.

Rule: what bounds a sum over all clients is divided among the workers, as memory is; what bounds one client
holds in each worker, because a worker does not know what the others see.
"""

from __future__ import annotations

import resource

from trioreg.api import Service
from trioreg.api.rates import RateLimits
from trioreg.config import Config
from trioreg.pipeline.admission import AdmissionLimits, places_for
from trioreg.registry.limits import Limits


def admission_limits(config: Config, blocks: int) -> AdmissionLimits:
    """`blocks`: how many this worker's budget has."""
    places = _part(config, config.admission_places) if config.admission_places else places_for(blocks)
    queue = _part(config, config.admission_queue)
    return AdmissionLimits(places, queue, config.admission_wait, config.admission_uploads_per_client)


def storage_limits(config: Config) -> Limits:
    return Limits(config.blob_max_bytes, config.storage_reserve, config.quota_bytes, config.quota_tags)


def most_connections(config: Config) -> int:
    """As many as the settings say; but a third of the descriptors is left for files of blobs and uploads."""
    most = config.http_max_connections // config.http_workers
    return max(1, min(most, resource.getrlimit(resource.RLIMIT_NOFILE)[0] * 2 // 3))


def apply_limits(service: Service, config: Config) -> None:
    """Put the limits of the settings in force, at the start and whenever they are reloaded."""
    registry = service.registry
    service.admission.limits = admission_limits(config, registry.pump.budget.statistics().total)
    registry.guard.limits = storage_limits(config)
    service.rates.limits = RateLimits(config.rate_requests, config.rate_burst)


def _part(config: Config, total: int) -> int:
    return max(1, total // config.http_workers) if total else 0
