"""What every page is made with: templates, and pictures inside the page."""

from __future__ import annotations

import base64

from jinja2 import Environment, PackageLoader, StrictUndefined


def templates() -> Environment:
    """The templates of this package; values are escaped, and a name that is not given is an error."""
    return Environment(
        loader=PackageLoader("partseg.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def picture_uri(content: bytes) -> str:
    """A WebP file as the address of a picture."""
    return "data:image/webp;base64," + base64.b64encode(content).decode("ascii")
