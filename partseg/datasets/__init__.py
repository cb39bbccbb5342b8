"""Source datasets: one module each, raw files in, records of the common layout out.

Every module offers ``Options``, ``files``, ``splits``, ``categories`` and a pure ``read``;
:func:`partseg.datasets.convert.convert` drives them. Quirks of a source live in its module and nowhere else.
"""
