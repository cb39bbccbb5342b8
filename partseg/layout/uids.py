"""Panoptic-parts uids: class, instance and part of a pixel in one number.

A uid is ``sid`` (1 or 2 digits), ``sid * 1000 + iid`` (4 or 5 digits) or ``(sid * 1000 + iid) * 100 + pid``
(6 or 7 digits): scene class, instance, part. Three digits mean nothing and are not allowed. The functions
work on arrays of any shape, and so on the labels of runs as on maps.
Source: "label format" of the panoptic_parts documentation; equal to its ``decode_uids`` and ``encode_ids``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]

MAX_UID = 9_999_999
"""The largest uid: class 99, instance 999, part 99."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Uids:
    """Uids taken apart; every field is int64 of the shape of the uids.

    Attributes:
        sids: scene classes, 0 to 99; 0 is unlabelled.
        iids: instances, 0 to 999, or ``missing``.
        pids: parts, 0 to 99, or ``missing``.
        sids_iids: the uid without its part: ``sid``, or ``sid * 1000 + iid``.
        sids_pids: the uid without its instance: ``sid``, or ``sid * 100 + pid``.
    """

    sids: Ints
    iids: Ints
    pids: Ints
    sids_iids: Ints
    sids_pids: Ints


def check_uids(uids: ArrayLike) -> Ints:
    """The uids as int64.

    Raises:
        ValueError: one is negative, has three digits or more than seven.
    """
    array = np.asarray(uids).astype(np.int64)
    wrong = (array < 0) | (array > MAX_UID) | ((array > 99) & (array < 1000))
    if wrong.any():
        raise ValueError(f"{array[wrong].ravel()[0]} is not a panoptic-parts uid")
    return array


def unpack_uids(uids: ArrayLike, missing: int = -1) -> Uids:
    """Take uids apart.

    Args:
        uids: any shape.
        missing: what stands for an instance or part that a uid does not have.

    Raises:
        ValueError: as :func:`check_uids`.
    """
    array = check_uids(uids)
    has_iid, has_pid = array > 99, array > 99_999
    sids_iids = np.where(has_pid, array // 100, array)
    sids = np.where(has_iid, sids_iids // 1000, sids_iids)
    iids = np.where(has_iid, sids_iids % 1000, missing)
    pids = np.where(has_pid, array % 100, missing)
    sids_pids = np.where(pids == missing, sids, sids * 100 + pids)
    return Uids(sids=sids, iids=iids, pids=pids, sids_iids=sids_iids, sids_pids=sids_pids)


def pack_uids(sids: ArrayLike, iids: ArrayLike, pids: ArrayLike) -> Ints:
    """Put uids together, int64; a negative instance or part means there is none.

    Raises:
        ValueError: an id is out of range, a part comes without an instance, or class 0 has an instance.
    """
    sid, iid, pid = (np.asarray(item).astype(np.int64) for item in (sids, iids, pids))
    for name, ids, largest in (("sid", sid, 99), ("iid", iid, 999), ("pid", pid, 99)):
        if ids.size and (ids.max() > largest or (name == "sid" and ids.min() < 0)):
            raise ValueError(f"a {name} is outside 0 to {largest}")
    if ((iid < 0) & (pid >= 0)).any():
        raise ValueError("a part belongs to an instance: there is no uid for a class and a part alone")
    if ((sid == 0) & (iid >= 0)).any():
        raise ValueError("class 0 is unlabelled and has no instances")
    sids_iids = np.where(iid < 0, sid, sid * 1000 + iid)
    return np.where(pid < 0, sids_iids, sids_iids * 100 + pid)
