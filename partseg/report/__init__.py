"""One self-contained HTML page per run.

:func:`partseg.report.content.build` writes what does not depend on a particular run: numbers and
pictures. :func:`partseg.report.page.render` joins it with the states and times of one run.
"""
