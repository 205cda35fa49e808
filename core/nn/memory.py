"""How this process holds on to memory between updates."""

from __future__ import annotations

import ctypes
from functools import cache

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h


@cache
def keep_freed_memory() -> bool:
    """Have malloc keep what it is given back: True where the C library is glibc, elsewhere nothing happens.

    By default it returns the large buffers of every update to the system, which clears each page again when the next
    update asks for it: 5 to 15 % of the time of learning from images on a CPU. For the whole process, until it ends.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, 1 << 30) and mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1))
