"""How long a classic NetCDF file must be: the library reads zeros beyond a truncated end."""

from __future__ import annotations

import math
from pathlib import Path
from typing import BinaryIO

_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}  # by nc_type
_STREAMING = 2**32 - 1


def expected_size(path: Path) -> int:
    """Bytes that the header of a classic NetCDF file (CDF-1, 2 or 5) promises.

    Up to three bytes of padding at the end are not counted.

    References
    ----------
    Unidata, NetCDF file format specifications,
    https://docs.unidata.ucar.edu/netcdf-c/current/file_format_specifications.html

    Raises
    ------
    EOFError
        If the header itself is cut off.
    """
    with path.open("rb") as file:
        return _Header(file).expected_size()


class _Header:
    """Reads the header of a classic file from front to back."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        version = self._bytes(4)[3]
        self.count_size = 8 if version == 5 else 4
        self.offset_size = 4 if version == 1 else 8

    def expected_size(self) -> int:
        records = self._count()
        lengths = [self._dimension() for _ in range(self._list())]
        self._attributes()
        fixed, recorded = [0], []
        for _ in range(self._list()):
            shape, itemsize, begin = self._variable(lengths)
            if shape[:1] == [0]:
                recorded.append((begin, math.prod(shape[1:]) * itemsize))
            else:
                fixed.append(begin + math.prod(shape) * itemsize)
        if records in (0, _STREAMING) or not recorded:
            return max(fixed)
        # A record holds every variable padded to four bytes, unless there is only one.
        sizes = [size for _, size in recorded]
        record = sizes[0] if len(sizes) == 1 else sum(-(-size // 4) * 4 for size in sizes)
        return max(*fixed, *(begin + (records - 1) * record + size for begin, size in recorded))

    def _variable(self, lengths: list[int]) -> tuple[list[int], int, int]:
        """Shape (0 for the record dimension), bytes per value and offset of the next variable."""
        self._name()
        shape = [lengths[self._count()] for _ in range(self._count())]
        self._attributes()
        itemsize = _BYTES[self._integer(4)]
        self._count()  # its size, which is wrong for large variables
        return shape, itemsize, self._integer(self.offset_size)

    def _dimension(self) -> int:
        self._name()
        return self._count()

    def _attributes(self) -> None:
        for _ in range(self._list()):
            self._name()
            itemsize = _BYTES[self._integer(4)]
            self._padded(self._count() * itemsize)

    def _list(self) -> int:
        self._integer(4)  # the tag
        return self._count()

    def _name(self) -> None:
        self._padded(self._count())

    def _count(self) -> int:
        return self._integer(self.count_size)

    def _integer(self, size: int) -> int:
        return int.from_bytes(self._bytes(size), "big")

    def _padded(self, size: int) -> None:
        self._bytes(-(-size // 4) * 4)

    def _bytes(self, size: int) -> bytes:
        found = self.file.read(size)
        if len(found) < size:
            raise EOFError("the header is cut off")
        return found
