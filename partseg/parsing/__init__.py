"""Part labels for images that carry nothing but a class label.

:mod:`~partseg.parsing.descriptors` turns an image into dense features,
:mod:`~partseg.parsing.index` finds the annotated base images that resemble another image,
:mod:`~partseg.parsing.base_images` has what they can lend,
:mod:`~partseg.parsing.transfer` carries part masks from a base image to another image,
:mod:`~partseg.parsing.lending` lets several of them vote,
:mod:`~partseg.parsing.parts` finds the parts of an image, there or with a detector,
:mod:`~partseg.parsing.naming` renames parts, :mod:`~partseg.parsing.records` writes them down,
:mod:`~partseg.parsing.parser` puts it together, and :mod:`~partseg.parsing.shards` runs it over many images.
"""
