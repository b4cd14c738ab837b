import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib.util import find_spec

import pytest

from p2p.models.unet import UNet
from p2p.serve.limits import Limits
from tests.api.test_translating import not_exported

if not (find_spec("fastapi") and find_spec("httpx")):  # of the extras serve and dev
    collect_ignore_glob = ["test_*.py"]
LIMITS = {
    "max_bytes": 1 << 22,
    "max_pixels": 1 << 20,
    "max_pixels_whole": 1 << 16,
    "queue": 8,
    "timeout_s": 30.0,
}


@pytest.fixture(scope="session")
def translate():
    """A model of 32x32 pixels, and of no other size, as an export is."""
    return replace(not_exported(UNet(image_size=32, width=8)), sizes=None)


@pytest.fixture
def asked():
    """`asked(model, ask, **limits)`: what `await ask(client, app)` returns, of a server of a model."""

    from p2p.serve.app import app_of
    from p2p.serve.service import Service

    def run(model, ask, *, max_batch=8, max_wait_s=0.0, hosts=None, samples=(), facts=None, **limits):
        def service():
            return Service(model, Limits(**LIMITS | limits), max_batch=max_batch, max_wait_s=max_wait_s)

        app = app_of(service, facts=facts or {}, samples=list(samples), hosts=hosts)

        async def main():
            async with running(app) as client:
                return await ask(client, app)

        return asyncio.run(main())

    return run


@asynccontextmanager
async def running(app):
    import httpx

    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield client


@pytest.fixture
def post(asked):
    """`post(model, data, ...)`: the answer to one request."""

    def one(model, data, *, query="", kind="image/png", **limits):
        async def ask(client, app):
            return await client.post(f"/translate{query}", content=data, headers={"content-type": kind})

        return asked(model, ask, **limits)

    return one
