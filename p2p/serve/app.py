"""The HTTP interface: a page to draw on, POST /translate, /healthz and /metrics."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from p2p import __version__
from p2p.config.shown import shown
from p2p.serve import described
from p2p.serve.body import images_of
from p2p.serve.formats import MEDIA, Fit, Format, Size, TileStats
from p2p.serve.guard import Guard
from p2p.serve.limits import Refused
from p2p.serve.service import Answer, Service, Wanted

PAGE = Path(__file__).parent / "page"
FILES = {"/": "index.html", "/page.css": "page.css", "/page.js": "page.js", "/canvas.js": "canvas.js"}
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
LONGEST = 100  # characters of a setting that a sentence repeats
GONE = 499  # nginx's, for the log: the client does not wait for the answer
BINARY = {"type": "string", "format": "binary"}
BODY = {
    "required": True,
    "content": {
        **{media: {"schema": BINARY} for media in ("image/png", "image/jpeg", "image/webp", "image/tiff")},
        "application/octet-stream": {"schema": BINARY},
        "multipart/form-data": {
            "schema": {"type": "object", "properties": {"image": {"type": "array", "items": BINARY}}}
        },
    },
}
ERROR = {"type": "object", "properties": {"error": {"type": "string"}}}
REFUSALS = {
    400: "a setting is not known, or the body cannot be read",
    403: "the page of another site asks, or the Host is not a name of the server",
    408: "the body was too slow",
    413: "too many bytes, pixels or images",
    415: "it is no image",
    422: "the image cannot be translated",
    429: "the queue is full",
    500: "the network failed",
    503: "the memory is full, the GPU has failed, or the server ends",
    504: "it took too long",
}
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The translated image; of several JSON, with each as base64 or its error.",
        "content": {**{media: {"schema": BINARY} for media in MEDIA.values()}, "application/json": {}},
    },
    **{
        status: {"description": what, "content": {"application/json": {"schema": ERROR}}}
        for status, what in REFUSALS.items()
    },
}


def app_of(
    make_service: Callable[[], Service],
    *,
    facts: dict[str, Any],
    samples: list[bytes],
    hosts: tuple[str, ...] | None,
) -> FastAPI:
    """The application.

    Args:
        make_service: called in the event loop.
        facts: what the page says of the model.
        samples: PNG files to start a drawing from.
        hosts: see `Guard`.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.service = service = make_service()
        work = asyncio.create_task(service.run())
        try:
            yield
        finally:
            work.cancel()

    app = FastAPI(title="p2p", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(Guard, hosts=hosts)

    @app.post("/translate", responses=ANSWERS, openapi_extra={"requestBody": BODY}, response_class=Response)
    async def translate(
        request: Request,
        size: Size = "model",
        fit: Fit = "stretch",
        tile_stats: TileStats = "tile",
        restore_size: bool = False,
        format: Format | None = None,
    ) -> Response:
        """Translate an image. The answer is an image, too; of several images in a form it is JSON."""
        service: Service = request.app.state.service
        start = time.perf_counter()
        response = await answered(request, service, Wanted(size, fit, tile_stats, restore_size, format))
        service.metrics.requests.labels(response.status_code).inc()
        service.metrics.request_seconds.observe(time.perf_counter() - start)
        return response

    @app.get("/healthz")
    async def healthz(request: Request) -> JSONResponse:
        """200 while images can be translated."""
        failed = request.app.state.service.failed
        return JSONResponse({"status": "ok"} if failed is None else {"error": failed}, 200 if failed is None else 503)

    @app.get("/metrics", response_class=Response)
    async def metrics(request: Request) -> Response:
        """For Prometheus."""
        return Response(request.app.state.service.metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        return Response(described.page(app.openapi(), str(request.base_url).rstrip("/")), media_type="text/html")

    @app.get("/model")
    async def model() -> dict[str, Any]:
        """What the page says of the model."""
        return facts

    @app.get("/samples/{number}.png", include_in_schema=False)
    async def sample(number: int) -> Response:
        if not 0 <= number < len(samples):
            raise HTTPException(404)
        return Response(samples[number], media_type="image/png")

    for address, name in FILES.items():
        app.get(address, include_in_schema=False)(file(PAGE / name))

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> JSONResponse:
        what = {404: "there is nothing at this address", 405: "this address does not take this method"}
        return sentence(error.status_code, f"{what.get(error.status_code, error.detail)}: see /docs", error.headers)

    @app.exception_handler(Exception)  # uvicorn logs it
    async def on_bug(request: Request, error: Exception) -> JSONResponse:
        return sentence(500, "the server failed, see its log")

    @app.exception_handler(RequestValidationError)
    async def on_setting(request: Request, error: RequestValidationError) -> JSONResponse:
        found = error.errors()[0]
        if found["loc"][0] == "path":  # a sample of which the number is none
            return await on_http(request, HTTPException(404))
        known = found.get("ctx", {}).get("expected", "true or false")
        name, value = found["loc"][-1], shown(str(found.get("input")))[:LONGEST]
        return sentence(400, f"{name}={value} is not known: use {str(known).replace(chr(39), '')}")

    return app


async def answered(request: Request, service: Service, wanted: Wanted) -> Response:
    """The answer to POST /translate, whatever it is."""
    try:
        for name in request.query_params.keys() - Wanted._fields:
            raise Refused(
                400, f"{shown(name)[:LONGEST]}= is not a setting of this address: use {', '.join(Wanted._fields)}"
            )
        with service.places.take(1):
            images = await images_of(request, service.limits)
            with service.places.take(len(images) - 1):
                return await unless_gone(request, translated(service, images, wanted))
    except Refused as refused:
        return sentence(refused.status, refused.sentence)
    except ClientDisconnect:
        return Response(status_code=GONE)
    except asyncio.CancelledError:  # by uvicorn, which ends without waiting any longer
        return sentence(503, "the server was stopped before the image was translated")


async def translated(service: Service, images: list[bytes], wanted: Wanted) -> Response:
    """One image as a file, several as JSON.

    Raises:
        Refused: the only image cannot be translated, or it took too long.
    """
    names = ["the image"] if len(images) == 1 else [f"images[{number}]" for number in range(len(images))]
    work = (service(data, wanted, name=name) for data, name in zip(images, names, strict=True))
    try:
        results = await asyncio.wait_for(_all(work), service.limits.timeout_s)
    except asyncio.TimeoutError:
        raise Refused(504, f"it took more than {service.limits.timeout_s:g} s: try again, or with less") from None
    if len(results) > 1:
        return JSONResponse({"images": [in_json(each) for each in results]})
    (result,) = results
    if isinstance(result, BaseException):
        raise result
    timing = ", ".join(f"{name};dur={1000 * seconds:.1f}" for name, seconds in result.seconds.items())
    return Response(
        result.data, media_type=result.media, headers={"Server-Timing": timing, "X-Batch": str(result.batch)}
    )


async def _all(work: Iterable[Coroutine[Any, Any, Answer]]) -> list[Answer | BaseException]:
    """A task of its own: gather's future, if it is cancelled while nobody waits for it, logs that as a failure."""
    return await asyncio.gather(*work, return_exceptions=True)


def in_json(result: Answer | BaseException) -> dict[str, Any]:
    """One image of several."""
    if isinstance(result, Refused):
        return {"error": result.sentence, "status": result.status}
    if isinstance(result, BaseException):
        raise result
    return {"type": result.media, "data": base64.b64encode(result.data).decode()}


async def unless_gone(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """The result of work that is cancelled if the client does not wait for it any more."""
    task, gone = asyncio.create_task(work), asyncio.create_task(_gone(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        gone.cancel()
        task.cancel()
        await asyncio.wait((task, gone))


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def sentence(status: int, text: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An error."""
    return JSONResponse({"error": text}, status, headers={"Retry-After": "1"} if status == 429 else headers)


def file(path: Path) -> Callable[[], Coroutine[Any, Any, Response]]:
    """An endpoint that gives a file of the page, which is read now."""
    data = path.read_bytes()

    async def give() -> Response:
        return Response(data, media_type=KINDS[path.suffix])

    return give
