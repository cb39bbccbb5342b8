"""Inflating what MATLAB has compressed.

MATLAB flushes its compressor completely after every 8 KiB. Each such block stands for itself, so equal blocks
are equal bytes in the file, and of a file full of masks most blocks are equal: all zeros. Every different one
is inflated once. The checksum at the end decides whether that was right.
"""

from __future__ import annotations

import numpy as np
from isal import igzip_lib, isal_zlib
from numpy.typing import NDArray

_BLOCK = 8192
_FLUSHED = b"\x00\x00\xff\xff"  # the empty stored block that ends a flush, without its first bits


def inflate(content: bytes) -> NDArray[np.uint8]:
    """The bytes that the zlib stream ``content`` holds [N], read-only or not.

    Raises:
        Exception: the stream is damaged; ISA-L's IsalError, or EOFError.
    """
    found = _by_blocks(content)
    return np.frombuffer(isal_zlib.decompress(content), np.uint8) if found is None else found


def _by_blocks(content: bytes) -> NDArray[np.uint8] | None:
    """None where the stream is not one of equal blocks."""
    *blocks, rest = content[2:].split(_FLUSHED)
    places = {block: place for place, block in enumerate(dict.fromkeys(blocks))}
    if 2 * len(places) >= len(blocks):
        return None
    inflater = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_DEFLATE)
    different = len(places) * _BLOCK
    try:
        body = inflater.decompress(_FLUSHED.join([*places, rest]), different + _BLOCK)
    except isal_zlib.error:  # type: ignore[misc]  # the stubs take the class for an instance
        return None
    if not inflater.eof or len(body) < different:
        return None
    repeated = len(blocks) * _BLOCK
    out = np.empty(repeated + len(body) - different, np.uint8)
    words = np.frombuffer(body, np.uint64, different // 8).reshape(-1, _BLOCK // 8)
    order = [places[block] for block in blocks]
    # mode "clip" is what lets numpy write into ``out`` at once
    np.take(words, order, axis=0, out=out[:repeated].view(np.uint64).reshape(-1, _BLOCK // 8), mode="clip")
    out[repeated:] = np.frombuffer(body, np.uint8)[different:]
    return out if isal_zlib.adler32(out) == int.from_bytes(content[-4:], "big") else None
