"""Storage in a directory of the local filesystem (or one that keeps its rules: atomic rename, flock)."""

from trioreg.storage.filesystem.disk import Disk, SlowDisk
from trioreg.storage.filesystem.store import FilesystemStorage

__all__ = ["Disk", "FilesystemStorage", "SlowDisk"]
