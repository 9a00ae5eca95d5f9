"""Memory that the C library holds without use, given back to the system.

Batches of other lengths ask for blocks of other sizes, and glibc's heap is left with holes that the
next ones do not fit: in hours of training the holes come to be several times what is in use.
"""

import ctypes
from typing import Final

_FREE_BYTES: Final = 1 << 30
_FIELDS: Final = (
    "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks",
    "keepcost",
)  # fmt: skip


class _Statistics(ctypes.Structure):
    """`struct mallinfo2`, mallinfo(3)."""

    _fields_ = [(name, ctypes.c_size_t) for name in _FIELDS]


def give_back(least: int = _FREE_BYTES) -> bool:
    """Give back the heap's holes, if they are more than what is in use, and than `least` bytes.

    Getting memory again costs time, so that it is done seldom. Where the C library is another than
    glibc from 2.33 on, nothing is done.

    Returns:
        Whether it was done.
    """
    library = ctypes.CDLL(None)
    if not (hasattr(library, "mallinfo2") and hasattr(library, "malloc_trim")):
        return False
    library.mallinfo2.restype = _Statistics
    found = library.mallinfo2()
    if found.fordblks <= max(least, found.uordblks):
        return False
    library.malloc_trim(0)
    return True
