"""Part labels for images that carry nothing but a class label.

:mod:`~partseg.parsing.descriptors` turns an image into dense features,
:mod:`~partseg.parsing.index` summarises the annotated base images,
:mod:`~partseg.parsing.transfer` carries part masks from a base image to another image,
:mod:`~partseg.parsing.parts` finds the parts of an image, there or with a detector,
:mod:`~partseg.parsing.naming` renames parts, and :mod:`~partseg.parsing.parser` puts it together.
"""
