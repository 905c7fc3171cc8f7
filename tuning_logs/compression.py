"""zlib with a preset dictionary: what is alike in all trials of a task is stored once."""

import zlib
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Dictionary:
    """A stored dictionary; `content` is what a task's first trial had."""

    row_id: int
    content: bytes = field(repr=False)

    def deflate(self, content: bytes) -> bytes:
        compressor = zlib.compressobj(zdict=self.content)
        return compressor.compress(content) + compressor.flush()

    def inflate(self, compressed: bytes) -> bytes:
        """Raises: zlib.error, where another dictionary was used: the compressed form holds its checksum."""
        decompressor = zlib.decompressobj(zdict=self.content)
        return decompressor.decompress(compressed) + decompressor.flush()
