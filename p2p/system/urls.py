"""Files of object stores and web servers, by their URLs: s3://, gs://, http:// and all else that fsspec knows.

A local path costs nothing of it: fsspec, and universal_pathlib, whose `UPath` is to it what `Path` is to a disk, are
imported for URLs alone. Credentials and endpoints are those that the libraries find: AWS_ACCESS_KEY_ID,
AWS_ENDPOINT_URL and the like in the environment, ~/.aws, or ~/.config/fsspec. An object is whole by nature: a store
shows it when all of it is there, and then replaces the one before.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")
NANO = 1_000_000_000
MODIFIED = ("LastModified", "updated", "last_modified", "mtime", "created")  # what stores call the time of an object
# Listings are not kept: other processes write. An image is read by one request, without asking for its size before.
OPTIONS = {"s3": {"max_concurrency": 1}}
PACKAGES = {
    "s3": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "http": "aiohttp",
    "https": "aiohttp",
}
CHECK = "check its name, and the endpoint and credentials in the environment (docs/clusters.md)"


def is_url(path: object) -> bool:
    """Whether a text is a URL, or a path stands for one."""
    return bool(URL.match(path)) if isinstance(path, str) else not isinstance(path, os.PathLike)


def located(text: str | Path) -> Any:
    """A Path, or for a URL a UPath.

    Raises:
        ValueError: a package for such URLs is not installed.
    """
    if not isinstance(text, str) or not URL.match(text):
        return Path(text)
    scheme, _, path = text.partition("://")
    if scheme == "file":
        return Path(path)
    try:
        from upath import UPath

        url = UPath(text, use_listings_cache=False, **OPTIONS.get(scheme, {}))
        _ = url.fs  # which imports what the scheme needs
    except ImportError as error:
        package = "universal-pathlib" if error.name == "upath" else PACKAGES.get(scheme)
        hint = f"pip install {package}" if package else "install it"
        raise ValueError(f"{text} needs a package that is not installed ({error}): {hint}") from error
    except ValueError as error:
        raise ValueError(f"{text} is not a URL that fsspec knows ({error}): use s3://, gs:// or https://") from error
    return url


@contextmanager
def asked(url: object) -> Iterator[None]:
    """Raise what the libraries of a store raise, of classes of their own, as an OSError that names the URL.

    It has the errno ENOENT or EACCES for one object, and EHOSTUNREACH for what concerns all of them.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, "there is no such object or bucket", str(url)) from error
    except PermissionError as error:
        raise PermissionError(errno.EACCES, _reason(error, "access is denied"), str(url)) from error
    except Exception as error:
        raise OSError(errno.EHOSTUNREACH, _reason(error, type(error).__name__), str(url)) from error


def _reason(error: Exception, otherwise: str) -> str:
    said = " ".join(str(getattr(error, "strerror", None) or error).split())
    return f"{said.rstrip('.') or otherwise}: {CHECK}"


def read(url: Any, *, start: int | None = None, end: int | None = None) -> bytes:
    """The bytes of an object, or some of them.

    Raises:
        OSError: it cannot be read.
    """
    with asked(url):
        return url.fs.cat_file(url.path, start=start, end=end)


def write(url: Any, data: bytes) -> None:
    """Make or replace an object, as a whole.

    Raises:
        OSError: it cannot be written.
    """
    with asked(url):
        url.fs.pipe_file(url.path, data)


def remove(url: Any) -> None:
    """Remove an object.

    Raises:
        OSError: it cannot be removed.
    """
    with asked(url):
        url.fs.rm_file(url.path)


def find(url: Any) -> dict[str, tuple[int, int]]:
    """What lies below a URL: by its path there its size, and when it was written, in ns; 0: nobody knows.

    Raises:
        OSError: the store cannot be asked.
    """
    with asked(url):
        try:
            found = url.fs.find(url.path, detail=True)
        except FileNotFoundError:
            return {}
    start = len(url.path.rstrip("/")) + 1
    return {path[start:]: (int(facts.get("size") or 0), _modified_ns(facts)) for path, facts in found.items()}


def changed_ns(path: Any) -> int:
    """When a file, or an object, was changed or put there, in ns.

    Raises:
        OSError: it is not there.
    """
    return modified_ns(path) if is_url(path) else path.stat().st_ctime_ns


def modified_ns(url: Any) -> int:
    """When an object was written, in ns, by the clock of its store; 0: nobody knows."""
    with asked(url):
        return _modified_ns(url.fs.info(url.path))


def _modified_ns(facts: dict[str, Any]) -> int:
    when = next((facts[key] for key in MODIFIED if facts.get(key) is not None), 0)
    return int((when.timestamp() if hasattr(when, "timestamp") else float(when)) * NANO)
