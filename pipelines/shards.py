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
from google_crc32c import value as crc32c
from numcodecs import Blosc
from zarr.codecs import BloscCodec

from data.errors import StoreError

# A chunk is one block: Blosc by itself cuts it up, which takes a third longer, and the bytes are a
# twentieth more.
BLOSC = Blosc(cname="zstd", clevel=1, shuffle=Blosc.BITSHUFFLE, blocksize=2**20)
COMPRESSOR = BloscCodec(
    cname=BLOSC.cname, clevel=BLOSC.clevel, shuffle="bitshuffle", blocksize=BLOSC.blocksize
)
# Where the index of a shard has it, there is no such chunk.
_ABSENT = 2**64 - 1
# What no other unit will fare better with: a full disk or quota, a disk that is read-only.
_HOPELESS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def encoded(
    values: np.ndarray,
    begin: tuple[int, int, int],
    chunk: tuple[int, ...],
    shard: tuple[int, ...],
) -> dict[str, bytes]:
    """Whole shards of an array of fields, by their names below the array.

    Bytes are made before a file is, so that what lands in the store is whole and its checksum is
    that of what was computed, not of what was read back. zarr, which reads them, would write the
    same and take 1.6 times as long: it hands each chunk from thread to thread.

    Parameters
    ----------
    values : numpy.ndarray
        (number, lead_time, latitude, longitude), float32, of the members of one shard and the
        leads of one or more. What a shard has beyond them is NaN.
    begin : tuple of int
        Positions in the array, of init time, member and lead, at which the values begin.
    chunk, shard : tuple of int
        Shapes of the array's chunks and shards; of these each holds the globe.

    Returns
    -------
    dict
        Shards; none for one in which nothing but NaN stands.

    References
    ----------
    The sharding codec of zarr 3: chunks, and behind them their offsets and lengths.
    """
    init, number, lead = begin
    shards = {}
    for first in range(0, values.shape[1], shard[2]):
        content = _shard(values[None, :, first : first + shard[2]], chunk, shard)
        if content:
            shards[f"c/{init}/{number // shard[1]}/{(lead + first) // shard[2]}/0/0"] = content
    return shards


def _shard(values: np.ndarray, chunk: tuple[int, ...], shard: tuple[int, ...]) -> bytes:
    counts = [whole // part for whole, part in zip(shard, chunk, strict=True)]
    index = np.full((*counts, 2), _ABSENT, dtype="<u8")
    parts, offset = [], 0
    for position in np.ndindex(*counts):
        tile = (slice(k * n, (k + 1) * n) for k, n in zip(position, chunk, strict=True))
        piece = values[tuple(tile)]
        if not piece.size or (np.isnan(piece.flat[0]) and np.isnan(piece).all()):
            continue
        part = BLOSC.encode(_filled(piece, chunk))
        index[position] = offset, len(part)
        parts.append(part)
        offset += len(part)
    if not parts:
        return b""
    tail = index.tobytes()
    return b"".join([*parts, tail, crc32c(tail).to_bytes(4, "little")])


def _filled(piece: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A whole chunk, of which this is the first part, and the rest NaN."""
    if piece.shape == shape:
        return np.ascontiguousarray(piece, dtype="<f4")
    filled = np.full(shape, np.nan, dtype="<f4")
    filled[tuple(map(slice, piece.shape))] = piece
    return filled


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
