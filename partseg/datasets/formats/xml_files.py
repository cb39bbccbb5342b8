"""XML files from somewhere else."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from partseg.errors import SourceError


def read_xml(path: Path, fix: str) -> ElementTree.Element:
    """The root element of an XML file.

    A document type declaration is refused: it could define entities that refer to other files, or that grow
    without bounds when they are replaced.

    Args:
        path: the file.
        fix: what to do about a damaged one.

    Raises:
        SourceError: the file is missing or damaged, or has a document type declaration.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise SourceError("the annotation is missing", where=path, fix=fix) from None
    parser = ElementTree.XMLParser(target=_Builder())
    try:
        parser.feed(content)
        root: ElementTree.Element = parser.close()
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise SourceError(f"the annotation is damaged ({error})", where=path, fix=fix) from error
    return root


class _Builder(ElementTree.TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("it has a document type declaration")
