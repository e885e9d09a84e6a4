"""The chunked transfer coding, taken off (RFC 9112, 7.1).

::

    chunked-body = *( chunk-size [ chunk-ext ] CRLF chunk-data CRLF ) "0" [ chunk-ext ] CRLF trailers CRLF

Rule: strict as the heads (exact CRLF, hexadecimal digits only), extensions and trailers are bounded and
dropped. Synchronous: bytes are fed, content is taken out; what was fed is kept as it is, without a copy.
"""

from __future__ import annotations

import re

# A chunk of more than 2**60 bytes is no chunk. RFC 9112, 7.1.1: a recipient MUST ignore extensions.
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?\r\n")

# A trailer is a field line (RFC 9112, 7.1.2); one that a lenient reader could take for the end is refused.
_TRAILER = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*)?\r\n")

# Longer size lines and trailers are an attack, not a message.
_LINE_LIMIT = 4096

# A CRLF, fifteen digits and a CRLF: what a size line takes without extensions, looked at first.
_USUAL_LINE = 19

# Chunks that one call takes apart, about 3 µs each: a client that sends single bytes must not stop others.
_CHUNKS_AT_ONCE = 256

_TRAILER_LIMIT = 16 * 1024


class BadChunk(Exception):
    """The coding is broken; where the body ends cannot be known any more."""


class ChunkDecoder:
    """Feed what arrives, take what it carries. `left` is None once the body has ended: bytes after it."""

    def __init__(self) -> None:
        self._fed = memoryview(b"")
        self._chunk = 0
        self._in_trailers = False
        self._trailers = 0
        self._first = True
        self.ended = False
        self._broken = ""

    @property
    def available(self) -> int:
        """Bytes of content that `take` would give now, in one piece."""
        return min(self._chunk, len(self._fed))

    def check(self) -> None:
        """Raises BadChunk if what follows the content that was taken is none."""
        if self._broken:
            raise BadChunk(self._broken)

    def feed(self, data: bytes) -> None:
        """Add bytes from the wire and read on to the next content. Raises BadChunk, for good."""
        self.check()
        self._fed = memoryview(bytes(self._fed) + data if self._fed else data)
        try:
            self._advance()
        except BadChunk as broken:
            self._broken = str(broken)
            raise

    def take(self, view: memoryview) -> int:
        """Move content into `view`; how many bytes."""
        moved = 0
        for _ in range(_CHUNKS_AT_ONCE):
            if moved == len(view) or not self.available:
                break
            count = min(len(view) - moved, self.available)
            view[moved : moved + count] = self._fed[:count]
            self._fed = self._fed[count:]
            self._chunk -= count
            moved += count
            if not self._chunk:
                try:
                    self._advance()
                except BadChunk as broken:
                    self._broken = str(broken)  # What came before it counts.
        return moved

    def rest(self) -> bytes:
        """What was fed beyond the end of the body: the next request."""
        return bytes(self._fed)

    def _advance(self) -> None:
        """Read size lines and trailers as far as they have arrived."""
        while not self._chunk and not self.ended:
            if self._in_trailers:
                if not self._skip_trailer():
                    return
            elif not self._read_size():
                return

    def _read_size(self) -> bool:
        head = bytes(self._fed[:_USUAL_LINE])
        if b"\n" not in head[2:]:
            head = bytes(self._fed[:_LINE_LIMIT])
        start = 0
        if not self._first:
            # The CRLF that ends the data of the chunk before.
            if not b"\r\n".startswith(head[:2]):
                raise BadChunk("no CRLF after a chunk")
            start = 2
        end = head.find(b"\n", start)
        if end < 0:
            if len(head) == _LINE_LIMIT:
                raise BadChunk("a chunk size of that length")
            return False
        line = _SIZE_LINE.fullmatch(head, start, end + 1)
        if line is None:
            raise BadChunk("not a chunk size")
        self._fed = self._fed[end + 1 :]
        self._chunk = int(line[1], 16)
        self._first = False
        self._in_trailers = self._chunk == 0
        return True

    def _skip_trailer(self) -> bool:
        head = bytes(self._fed[:_LINE_LIMIT])
        end = head.find(b"\n")
        if end < 0:
            if len(head) == _LINE_LIMIT:
                raise BadChunk("a trailer of that length")
            return False
        if _TRAILER.fullmatch(head, 0, end + 1) is None:
            raise BadChunk("not a trailer")
        self._fed = self._fed[end + 1 :]
        self._trailers += end + 1
        if self._trailers > _TRAILER_LIMIT:
            raise BadChunk("more trailers than that")
        self.ended = end == 1
        return True
