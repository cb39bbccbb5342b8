"""A small made-up world of animals and vehicles, written in the raw formats of real datasets.

For the demo and for tests: what runs on these folders runs on the real ones. :data:`WORLDS` has a world for
each source, :func:`make_up` writes it.
"""

from partseg.synthetic.raw_files import write_folder_truth, write_imagenet_folder, write_pascal_part
from partseg.synthetic.world import BASE_CLASSES, CLASSES, NOVEL_CLASSES, Scene, draw_scene
from partseg.synthetic.worlds import WORLDS, World, make_up, world_settings

__all__ = [
    "BASE_CLASSES",
    "CLASSES",
    "NOVEL_CLASSES",
    "WORLDS",
    "Scene",
    "World",
    "draw_scene",
    "make_up",
    "world_settings",
    "write_folder_truth",
    "write_imagenet_folder",
    "write_pascal_part",
]
