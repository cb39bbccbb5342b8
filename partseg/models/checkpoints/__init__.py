"""Other people's files of weights: read without running them, recognised, loaded, and written back."""

from partseg.models.checkpoints.architecture import Architecture, recognise
from partseg.models.checkpoints.backbone import load_backbone
from partseg.models.checkpoints.load import (
    LoadedModel,
    export_vlpart,
    import_model,
    load_any,
    original_tensors,
)
from partseg.models.checkpoints.read import Checkpoint, read_checkpoint
from partseg.models.checkpoints.report import ImportReport

__all__ = [
    "Architecture",
    "Checkpoint",
    "ImportReport",
    "LoadedModel",
    "export_vlpart",
    "import_model",
    "load_any",
    "load_backbone",
    "original_tensors",
    "read_checkpoint",
    "recognise",
]
