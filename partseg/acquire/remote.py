"""Bytes of a file somewhere else, from a given position on: over http(s), or any URL that fsspec knows."""

from __future__ import annotations

import http.client
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

import partseg
from partseg.errors import SourceError

# Seconds without a single byte after which a connection counts as dropped.
SILENCE = 60.0
# Answers that may be different next time.
_AGAIN = {408, 425, 429, 500, 502, 503, 504}
_AGENT = f"partseg/{partseg.__version__}"


class DownloadError(SourceError):
    """A file cannot be had from where it should be."""


class NotThere(DownloadError):
    """There is no such file."""


class Dropped(Exception):
    """The connection broke, or the server is busy: worth another try.

    Args:
        why: what happened.
        wait: seconds the server asks to wait.
    """

    def __init__(self, why: str, wait: float | None = None) -> None:
        super().__init__(why)
        self.wait = wait


@dataclass(frozen=True, slots=True)
class Remote:
    """An open file.

    Attributes:
        stream: its bytes from ``start`` on.
        start: position of the first byte; 0 where the server cannot begin elsewhere, or the file has changed.
        total: size of the whole file in bytes; None if it is not told.
        version: changes with the file's content (ETag, modification time); None if nothing does.
    """

    stream: IO[bytes]
    start: int
    total: int | None
    version: str | None

    def read(self, size: int) -> bytes:
        """The next bytes, at most ``size``; none at the end.

        Raises:
            Dropped: the connection broke.
        """
        try:  # read1 gives what is there; read would wait for more, and lose it if the connection breaks
            read: Callable[[int], bytes] = getattr(self.stream, "read1", self.stream.read)
            return read(size)
        except (http.client.HTTPException, OSError) as error:
            raise Dropped(_words(error)) from error


def is_http(url: str) -> bool:
    """Whether the address is one of the web."""
    return url.lower().startswith(("http://", "https://"))


def open_remote(url: str, start: int, version: str | None) -> Remote:
    """Open a file at a position.

    Args:
        url: where it is.
        start: position in bytes.
        version: what :attr:`Remote.version` was when the bytes before ``start`` came; if it is another one
            now, the answer starts at 0.

    Raises:
        Dropped: worth another try.
        NotThere: there is no such file.
        DownloadError: it may not be read.
    """
    return _open_http(url, start, version) if is_http(url) else _open_fsspec(url, start, version)


def _open_http(url: str, start: int, version: str | None) -> Remote:
    headers = {"User-Agent": _AGENT, "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if version is not None:
            headers["If-Range"] = version
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=SILENCE)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and start:  # the file is shorter now
            return _open_http(url, 0, None)
        if error.code in _AGAIN:
            raise Dropped(f"the server answers {error.code} {error.reason}", _seconds(error)) from error
        kind = NotThere if error.code in (404, 410) else DownloadError
        raise kind(f"the server answers {error.code} {error.reason}", where=url) from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise DownloadError(
                f"the server's certificate is not valid ({error.reason})", where=url
            ) from error
        raise Dropped(_words(error.reason)) from error
    except (http.client.InvalidURL, ValueError) as error:
        raise DownloadError(f"not an address ({error})", where=url) from error
    except (http.client.HTTPException, OSError) as error:
        raise Dropped(_words(error)) from error
    now = _version(answer.headers)
    if answer.status == 206:
        found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", answer.headers.get("Content-Range", "").strip())
        moved = version is not None and now is not None and now != version
        if found is None or int(found[1]) != start or moved:  # a server that ignores what it was asked
            answer.close()
            return _open_http(url, 0, None)
        return Remote(answer, start, None if found[3] == "*" else int(found[3]), now)
    length = answer.headers.get("Content-Length", "")
    return Remote(answer, 0, int(length) if length.isdigit() else None, now)


def _version(headers: Any) -> str | None:
    """The strong ETag, or else the date of the last change: what ``If-Range`` accepts."""
    etag = headers.get("ETag")
    if etag and not etag.startswith("W/"):
        return str(etag)
    return headers.get("Last-Modified") or None


def _seconds(error: urllib.error.HTTPError) -> float | None:
    text = (error.headers.get("Retry-After") or "").strip()
    return float(text) if text.isdigit() else None


def _open_fsspec(url: str, start: int, version: str | None) -> Remote:
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(url)
        info = system.info(path)
        total, now = info.get("size"), system.ukey(path)
        begin = start if now == version and (total is None or start <= total) else 0
        stream = system.open(path, "rb")
        stream.seek(begin)
        return Remote(stream, begin, total, now)
    except FileNotFoundError as error:
        raise NotThere("no such file", where=url) from error
    except (IsADirectoryError, PermissionError) as error:
        raise DownloadError(_words(error), where=url) from error
    except ImportError as error:
        fix = "pip install 'partseg[cloud]', or the package that is named here"
        raise DownloadError(f"cannot be opened ({error})", where=url, fix=fix) from error
    except ValueError as error:
        raise DownloadError(f"not an address ({error})", where=url) from error
    except Exception as error:  # every kind of storage has errors of its own
        raise Dropped(_words(error)) from error


def _words(error: object) -> str:
    if isinstance(error, OSError) and error.strerror:
        return str(error.strerror)
    return str(error) or type(error).__name__
