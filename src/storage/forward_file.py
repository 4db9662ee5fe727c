"""Large results written once, front to back: past the page cache, with the checksum taken on the way.

Writing gigabytes through the page cache costs more processor time than computing them: every page is
fetched, copied to and later written by the kernel, and the cache of everything else is lost. Here full
blocks go straight to the disk where its file system can do that (``O_DIRECT``), by a thread that has
just hashed them, so a manifest's checksum needs no second reading.
"""

import errno
import fcntl
import mmap
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import xxhash

from src.storage.manifest import remember

_BLOCK_BYTES = 1 << 21
_BLOCKS = 3  # one being filled, one being written, one waiting
_ALIGNMENT = 4096  # offsets, lengths and memory addresses of direct writes
_DIRECT = getattr(os, "O_DIRECT", 0)  # Linux only


class ForwardFile:
    """Context manager that writes a new file from its first byte to its last.

    Raises
    ------
    OSError
        From any call: what is written reaches the disk a little later.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._descriptor = path, _open(path)
        self._writer = ThreadPoolExecutor(1)
        self._pending: deque[tuple[Future[None], mmap.mmap]] = deque()
        # Anonymous maps begin on a page, as direct writes demand.
        self._spare = [mmap.mmap(-1, _BLOCK_BYTES) for _ in range(_BLOCKS)]
        self._block, self._filled, self._sent = self._spare.pop(), 0, 0
        self._digest = xxhash.xxh3_128()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._send()
                while self._pending:
                    self._pending.popleft()[0].result()
                os.ftruncate(self._descriptor, self._sent)
                remember(self._path, os.fstat(self._descriptor), self._digest.hexdigest())
        finally:
            self._writer.shutdown(cancel_futures=True)
            os.close(self._descriptor)

    def flush(self) -> None:
        """Nothing: blocks go to the disk as they fill. zipfile calls this."""

    def tell(self) -> int:
        """Bytes written so far."""
        return self._sent + self._filled

    def write(self, data: bytes | memoryview) -> None:
        """Append; the data may change afterwards."""
        left = memoryview(data).cast("B")
        while left:
            part = left[: _BLOCK_BYTES - self._filled]
            self._block[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            left = left[len(part) :]
            if self._filled == _BLOCK_BYTES:
                self._send()

    def _send(self) -> None:
        task = self._writer.submit(self._put, self._block, self._filled, self._sent)
        self._pending.append((task, self._block))
        self._sent, self._filled = self._sent + self._filled, 0
        if not self._spare:
            done, block = self._pending.popleft()
            done.result()
            self._spare.append(block)
        self._block = self._spare.pop()

    def _put(self, block: mmap.mmap, count: int, offset: int) -> None:
        with memoryview(block) as view:
            self._digest.update(view[:count])
            # The last block is filled up to whole pages; the file is cut to its length at the end.
            left = view[: -(-count // _ALIGNMENT) * _ALIGNMENT]
            while left:
                written = self._pwrite(left, offset)
                left, offset = left[written:], offset + written

    def _pwrite(self, data: memoryview, offset: int) -> int:
        try:
            return os.pwrite(self._descriptor, data, offset)
        except OSError as error:
            flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
            if error.errno != errno.EINVAL or not flags & _DIRECT:
                raise
        # Some file systems open a file for direct writing and then refuse it, or want a larger alignment.
        fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags & ~_DIRECT)
        return os.pwrite(self._descriptor, data, offset)


def _open(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    with suppress(OSError):
        return os.open(path, flags | _DIRECT, 0o666)
    return os.open(path, flags, 0o666)
