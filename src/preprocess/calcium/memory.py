"""Peak memory of a stretch of work, for reports."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path

_UNIT = 1 if sys.platform == "darwin" else 1024


class PeakMemory:
    """Largest resident memory since this object was made.

    Linux can restart the count of its own process; elsewhere the largest since the process began is
    given. Child processes enter with the largest of them once they have ended.
    """

    def __init__(self) -> None:
        self._restarted = False
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
            self._restarted = True
        self._children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss

    def megabytes(self) -> float:
        """Of this process or, if it was larger, of its largest child since then."""
        own = self._own()
        children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        return max(own, children if children > self._children else 0) * _UNIT / 1e6

    def _own(self) -> int:
        if self._restarted:
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1])
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
