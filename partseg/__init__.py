"""Part segmentation from raw files to a report.

The library can be used on its own: :mod:`partseg.layout` reads and writes datasets,
:mod:`partseg.models` and :mod:`partseg.training` train detectors, :mod:`partseg.parsing`
writes part labels for images that only carry a class label.
"""

__version__ = "0.1.0"
