"""The images of a request's body, in memory: no part of a request reaches the disk, and none of its names is used."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from p2p.serve.limits import Limits, Refused

OCTETS = ("", "application/octet-stream")


async def images_of(request: Request, limits: Limits) -> list[bytes]:
    """The files of a multipart form, or the body itself.

    Raises:
        Refused: the body is too large or too slow, or is neither.
        starlette.requests.ClientDisconnect: the client has gone.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data" and kind not in OCTETS and not kind.startswith("image/"):
        raise Refused(415, f"Content-Type: {kind} is no image: use image/png and the like, or multipart/form-data")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limits.max_bytes:
        raise too_large(limits)
    try:
        if kind != "multipart/form-data":
            return [await asyncio.wait_for(_body(request, limits), limits.timeout_s)]
        return await asyncio.wait_for(_files(request, limits), limits.timeout_s)
    except asyncio.TimeoutError:
        raise Refused(408, f"the body did not arrive within {limits.timeout_s:g} s: send it faster") from None


async def _body(request: Request, limits: Limits) -> bytes:
    return b"".join([chunk async for chunk in _limited(request, limits)])


async def _files(request: Request, limits: Limits) -> list[bytes]:
    parser = MultiPartParser(request.headers, _limited(request, limits), max_files=limits.queue, max_fields=0)
    parser.spool_max_size = limits.max_bytes  # or it would write what is larger than 1 MB to the disk
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise Refused(413, f"there are too many images: send {limits.queue} at most in a request") from error
        if error.message.startswith("Too many fields"):
            raise Refused(400, "a form has files alone: settings go into the address, as in ?size=tile") from error
        raise Refused(400, f"the form cannot be read: {error.message.rstrip('.')}") from error
    try:
        files = [file for _, file in form.multi_items() if isinstance(file, UploadFile)]
        if not files:
            raise Refused(400, "the form has no file: add one, as curl -F image=@drawing.png does")
        return [await file.read() for file in files]
    finally:
        await form.close()


async def _limited(request: Request, limits: Limits) -> AsyncGenerator[bytes, None]:
    arrived = 0
    async for chunk in request.stream():
        arrived += len(chunk)
        if arrived > limits.max_bytes:
            raise too_large(limits)
        yield chunk


def too_large(limits: Limits) -> Refused:
    """Of a body."""
    return Refused(413, f"the body has more than {limits.max_bytes:,} bytes: send a smaller image, or fewer at once")
