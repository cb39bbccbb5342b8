"""Category names as vectors: text encoders and the tables they write."""

from partseg.vocabulary.encoders import build_table, encode
from partseg.vocabulary.table import EmbeddingTable

__all__ = ["EmbeddingTable", "build_table", "encode"]
