"""Files of a store as bytes: encoded in memory, known by their checksum, put in place whole."""

from __future__ import annotations

import errno
import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import zarr
from zarr.codecs import BloscCodec
from zarr.storage import MemoryStore

from data.errors import StoreError

COMPRESSOR = BloscCodec(cname="zstd", clevel=2, shuffle="bitshuffle")
# What no other unit will fare better with: a full disk or quota, a disk that is read-only.
_HOPELESS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class ShardEncoder:
    """Turns one unit's part of a float32 array into the bytes of its shards.

    Bytes are made before a file is, so that what lands in the store is whole and its checksum is
    that of what was computed, not of what was read back.

    Parameters
    ----------
    shape, chunk, shard : tuple of int
        Those of the array, of its chunks and of its shards.
    """

    def __init__(
        self, shape: tuple[int, ...], chunk: tuple[int, ...], shard: tuple[int, ...]
    ) -> None:
        self._files: dict = {}
        self._array = zarr.create_array(
            MemoryStore(self._files),
            shape=shape,
            chunks=chunk,
            shards=shard,
            dtype="float32",
            fill_value=np.nan,
            compressors=COMPRESSOR,
        )

    def encode(self, init: int, first: int, values: np.ndarray, lead: int = 0) -> dict[str, bytes]:
        """Shards of (number, lead_time, latitude, longitude) by their names below the array.

        The values begin at the member `first` and at the position `lead` of a lead, and are those
        of whole shards. A shard in which nothing but NaN stands has no file.
        """
        members, leads = values.shape[:2]
        self._array[init, first : first + members, lead : lead + leads] = values
        names = [name for name in self._files if name != "zarr.json"]
        return {name: self._files.pop(name).to_bytes() for name in names}


def checksum(content: bytes) -> str:
    """Tells whether content is still what it was: 128 bits of BLAKE2b, hexadecimal."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def place(content: bytes, target: Path, drafts: Path) -> None:
    """Write a file so that it is there either whole and durable, or as it was before.

    Two writers of the same content may do this at once, and either may die at any moment.

    Parameters
    ----------
    content : bytes
        The file's content.
    target : pathlib.Path
        The file; its folder is made.
    drafts : pathlib.Path
        Folder on the same disk for what is being written, as ``*.partial``.
    """
    draft = drafts / f"{uuid.uuid4().hex}.partial"
    try:
        with draft.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(draft, target)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what makes all writing below `path` hopeless into one clear `StoreError`."""
    try:
        yield
    except OSError as error:
        if error.errno in _HOPELESS:
            raise StoreError(
                f"{path}: cannot be written: {os.strerror(error.errno)}; what was finished is "
                "kept, run again when there is room"
            ) from None
        raise
