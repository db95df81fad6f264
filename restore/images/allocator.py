"""Freed memory stays with the process, for the next layer of the network.

glibc gives blocks of over 32 MB back to the system as they are freed. A layer's output is such a
block: the system clears its pages anew for each layer, a quarter of the time of an enlargement.
"""

import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4  # of glibc's mallopt
LARGEST = 2**29  # bytes; larger blocks, and more than this at the end of the heap, are given back


def keep_freed_memory() -> bool:
    """Let the C library keep freed blocks of up to LARGEST bytes; for the whole process.

    Returns:
        Whether it does. Only glibc can be told to.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # Windows has no main program to ask
        return False
    # older ones take no threshold above 32 MB: then no block at all is given back by itself
    keeps = mallopt(MMAP_THRESHOLD, LARGEST) or mallopt(MMAP_MAX, 0)
    return bool(keeps and mallopt(TRIM_THRESHOLD, LARGEST))
