"""Category names as vectors: vocabularies, text encoders and the tables they write."""

from partseg.vocabulary.embed import ENCODER, embed
from partseg.vocabulary.encoders import build_table, encode
from partseg.vocabulary.names import Term, Vocabulary, from_names, objects_of, resolve
from partseg.vocabulary.published import published
from partseg.vocabulary.table import EmbeddingTable

__all__ = [
    "ENCODER",
    "EmbeddingTable",
    "Term",
    "Vocabulary",
    "build_table",
    "embed",
    "encode",
    "from_names",
    "objects_of",
    "published",
    "resolve",
]
