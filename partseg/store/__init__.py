"""A content-addressed store of finished artifacts on a local folder or any fsspec URL.

::

    blobs/ab/<sha256>            immutable files
    trees/<sha256>.json          sorted [{path, size, sha256}]: a directory; its sha256 is the content digest
    actions/<key>.json           the commit, written last: what was made from what, when, and how it went
    claims/<key>/<epoch>.json    one writer per key (see partseg.store.lease)
    refs/<recipe>/<stage>.json   the last key of every stage of every recipe
    pins/<name>.json             artifacts to keep, with what they were made from, whatever happens

Nothing is executed on reading: the store holds bytes and JSON. Whatever is handed out was hashed.
"""

from partseg.store.lease import Lease
from partseg.store.records import Action
from partseg.store.store import Pin, Store
from partseg.store.trees import Entry, Tree, tree_of

__all__ = ["Action", "Entry", "Lease", "Pin", "Store", "Tree", "tree_of"]
