"""Data sets that are fetched when they are not there: one archive each, downloaded, verified and unpacked.

Neither torchvision's, torch's nor pooch's download goes on where one of 8 GB was cut off, tells a web page from an
archive, or looks for room on the disk first; torchvision's also writes to the final name at once.
"""

from __future__ import annotations

import errno
import http.client
import re
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tqdm import tqdm

from p2p.system.digest import sha256 as sha256_of

CHUNK = 1 << 20  # bytes
TIMEOUT = 60  # seconds without a byte


def fetch_archive(root: Path, *, base_url: str, archive: str, sha256: str | None = None, attempts: int = 5) -> None:
    """Make the folder `root` from a .tar.gz on a web server; its single top folder, if it has one, becomes `root`.

    Until it is complete everything is in files beside `root`, so the folder is there whole or not at all. A
    download that was cut off goes on where it stopped, also in a later call.

    Args:
        root: folder to be made.
        base_url, archive: where the archive is: base_url/archive.
        sha256: hex digest of the archive, or None where nobody published one; gzip's own checksum and the size
            that the server gives are always checked.
        attempts: connections, of which each but the last may be cut off.

    Raises:
        ValueError: the server or the archive cannot be reached, the disk is full, or the archive is damaged or holds
            what does not belong in a data set.
    """
    url = f"{base_url.rstrip('/')}/{archive}"
    path = root.with_name(f"{root.name}.tar.gz")
    root.parent.mkdir(parents=True, exist_ok=True)
    try:
        if not path.is_file():
            partial = path.with_name(f"{path.name}.partial")
            download(url, partial, attempts=attempts)
            partial.replace(path)
        if sha256 is not None and sha256_of(path) != sha256.lower():
            path.unlink()
            raise ValueError(f"{url} is not the archive that data.source.sha256 describes: it was deleted, try again")
        unpack(path, root)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ValueError(
                f"the disk of {root.parent} is full: make room and try again, or move data.root"
            ) from error
        raise
    path.unlink()


def download(url: str, path: Path, *, attempts: int = 5) -> None:
    """Bring the file at `url` to `path`, going on behind the bytes that are there (RFC 9110, sec. 14: Range).

    Raises:
        ValueError: the server cannot be reached, has no such file, answers with a page or with another part than was
            asked for, or cut every connection short; or the address is none.
        OSError: the file cannot be written.
    """
    reason = "it gave no byte"
    for _ in range(attempts):
        start = path.stat().st_size if path.is_file() else 0
        try:
            response = urlopen(Request(url, headers={"Range": f"bytes={start}-"} if start else {}), timeout=TIMEOUT)
        except HTTPError as error:
            if error.code == 416 and start:  # nothing behind what is there: complete, or of another file
                if error.headers.get("Content-Range") == f"bytes */{start}":
                    return
                path.unlink()
                continue
            said = " ".join(str(error.reason).split())  # of a redirect that never ends, several lines
            raise ValueError(f"{url} cannot be downloaded: the server says {error.code} {said}") from error
        except (OSError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", error))
            break
        except ValueError as error:
            raise ValueError(f"{url}, from data.source.base_url, is not a valid address: {error}") from error
        with response:
            if response.headers.get_content_type() == "text/html":
                raise ValueError(
                    f"{url} is a web page, not an archive: open it in a browser, which may say why, and put the data"
                    " there yourself"
                )
            if response.status != 206:  # the server knows no ranges and sends all of it
                start = 0
            elif _first_byte(response) != start:
                path.unlink(missing_ok=True)
                reason = "the server sends another part than was asked for"
                continue
            length = response.headers.get("Content-Length", "").strip()
            length = int(length) if length.isascii() and length.isdigit() else None  # as http.client does
            total = None if length is None else start + length
            _check_room(path, url, length or 0)
            size, reason = _receive(response, path, start, total)
        if size == total or (total is None and not reason):
            return
        reason = f"the connection ended at {size:,} of {total or '?'} bytes{reason}"
    raise ValueError(
        f"{url} cannot be downloaded ({reason}): look at your connection and try again, which goes on where it"
        " stopped, or put the data there yourself"
    )


def _first_byte(response: http.client.HTTPResponse) -> int | None:
    """Of a part of a file, where it begins; None if the server does not say."""
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _check_room(path: Path, url: str, needed: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise ValueError(f"the disk of {path.parent} is full: {url} needs {needed:,} bytes, and {free:,} are free")


def _receive(response, path: Path, start: int, total: int | None) -> tuple[int, str]:
    """Write what the server sends from byte `start` on; the size then reached, and what cut it short, if known."""
    name = path.name.removesuffix(".partial")
    bar = tqdm(desc=f"download {name}", initial=start, total=total, unit="B", unit_scale=True, disable=None)
    with bar, path.open("ab") as file:
        file.truncate(start)
        file.seek(start)
        while True:
            try:
                chunk = response.read(CHUNK)
            except http.client.IncompleteRead as error:
                chunk = error.partial
            except (OSError, http.client.HTTPException) as error:  # the connection's; those of the file are below
                return file.tell(), f": {error}"
            if not chunk:
                return file.tell(), ""
            file.write(chunk)
            bar.update(len(chunk))


def unpack(archive: Path, root: Path) -> None:
    """Unpack a .tar.gz to the folder `root`, which appears when all of it is there.

    Raises:
        ValueError: it is damaged (and deleted), or has a member that is neither a file nor a folder inside of it.
    """
    staging = root.with_name(f".{root.name}.unpacking")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tqdm(tar, desc=f"unpack {archive.name}", unit="file", disable=None):
                _check(member, archive)
                if hasattr(tarfile, "data_filter"):  # Python 3.12, and the later releases of 3.10 and 3.11
                    tar.extract(member, staging, filter="data")
                else:
                    member.mode = 0o755 if member.isdir() else 0o644
                    tar.extract(member, staging, set_attrs=False)
            while tar.fileobj.read(CHUNK):  # to the end, where gzip has its checksum
                pass
        top = list(staging.iterdir())
        (top[0] if len(top) == 1 and top[0].is_dir() else staging).replace(root)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's, not the archive's
        archive.unlink()
        raise ValueError(f"{archive} is damaged and was deleted, try again: {error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _check(member: tarfile.TarInfo, archive: Path) -> None:
    """Raise a ValueError for a member that a data set has no use for and an attacker might have."""
    posix, windows = PurePosixPath(member.name), PureWindowsPath(member.name)
    leaves = posix.is_absolute() or windows.anchor or ".." in (*posix.parts, *windows.parts)
    if leaves or not (member.isfile() or member.isdir()) or re.search(r"[\x00-\x1f]", member.name):
        raise ValueError(
            f"{archive} is not unpacked, because its member {member.name!r} is not a plain file inside it:"
            " delete it, and do not trust where it came from"
        )
