"""A small made-up world of animals and vehicles, written in the raw formats of real datasets.

For the demo and for tests: what runs on these folders runs on the real ones.
"""

from partseg.synthetic.raw_files import write_imagenet_folder, write_pascal_part
from partseg.synthetic.world import BASE_CLASSES, CLASSES, NOVEL_CLASSES, Scene, draw_scene

__all__ = [
    "BASE_CLASSES",
    "CLASSES",
    "NOVEL_CLASSES",
    "Scene",
    "draw_scene",
    "write_imagenet_folder",
    "write_pascal_part",
]
