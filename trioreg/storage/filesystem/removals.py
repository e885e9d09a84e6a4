"""Which directories may have been removed, by any process on this storage, since one looked.

A process remembers that a directory is durable in the one above it. When another removes it and makes it
anew, the new one is not: so before a directory is removed a mark in a file that all share is changed, and
what was remembered counts only while its mark is the same.

Rule: look at the mark while something of one's own is in the directory, for then nobody can remove it. Marks
are random, need no lock and need not outlive a loss of power, as no memory does.
"""

from __future__ import annotations

import mmap
import os
import zlib
from contextlib import suppress
from pathlib import Path

# Directories share marks, by a hash of their paths: a removal makes us look anew at one in so many.
_MARKS = 512
_BYTES = 8


class Removals:
    """In this process alone, until it is shared."""

    def __init__(self) -> None:
        self._root = 0
        self._file: Path | None = None
        self._marks: bytearray | mmap.mmap = bytearray(_MARKS * _BYTES)

    def share(self, root: Path, file: Path) -> None:
        """With all who use the storage below `root`. Where `file` cannot be made nothing is remembered."""
        self._root, self._file = len(str(root)), file
        with suppress(OSError):
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                os.ftruncate(descriptor, _MARKS * _BYTES)  # whoever comes first: it changes no byte
                self._marks = mmap.mmap(descriptor, _MARKS * _BYTES, prot=mmap.PROT_READ)
                return
            finally:
                os.close(descriptor)
        self._marks = bytearray()

    def mark(self, directory: Path | str) -> bytes:
        """Another one when the directory may have been removed; b"" if that cannot be known."""
        place = self._place(directory)
        return bytes(self._marks[place : place + _BYTES])

    def announce(self, directory: Path) -> None:
        """It is about to be removed. OSError if that cannot be said; it must stay then."""
        mark, place = os.urandom(_BYTES), self._place(directory)
        if self._file is None:
            self._marks[place : place + _BYTES] = mark
            return
        descriptor = os.open(self._file, os.O_WRONLY)
        try:
            os.pwrite(descriptor, mark, place)
        finally:
            os.close(descriptor)

    def _place(self, directory: Path | str) -> int:
        """Processes may know the root by different names."""
        return zlib.crc32(os.fsencode(str(directory)[self._root :])) % _MARKS * _BYTES
