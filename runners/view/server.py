"""The local server of `elson view`: loopback, read-only, for this machine's browser alone."""

from __future__ import annotations

from pathlib import Path

from runners.spec import BucketSpec


def application(buckets: BucketSpec, where: str, home: Path | None = None) -> object:
    """The ASGI application. It answers GET and HEAD for known page names; a foreign Host header (DNS rebinding) is refused."""
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, PlainTextResponse, Response
    from starlette.routing import Route

    from runners.errors import UserError
    from runners.view import site

    async def page(request: Request) -> Response:
        name = request.path_params.get("name") or "index.html"
        try:
            document = await run_in_threadpool(site.render, buckets, where, home, name)
        except UserError as error:
            return PlainTextResponse(str(error), 503)
        if document is None:
            return PlainTextResponse("there is no such page", 404)
        return HTMLResponse(document, headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"})

    routes = [Route("/", page, methods=["GET"]), Route("/{name}", page, methods=["GET"])]
    return Starlette(routes=routes, middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])])


def serve(buckets: BucketSpec, where: str, home: Path | None, port: int) -> None:
    """Serve until Ctrl-C. Raises UserError when the port is taken."""
    import socket

    import uvicorn

    from runners import log
    from runners.errors import UserError

    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
            listener.listen()  # who follows the printed address at once waits, and is not refused
        except OSError:
            raise UserError(f"port {port} is taken", "a free port", "elson view --port 0") from None
        log.event(f"http://127.0.0.1:{listener.getsockname()[1]}/ shows {where}, until Ctrl-C")
        config = uvicorn.Config(application(buckets, where, home), log_level="warning", log_config=None, access_log=False)  # type: ignore[arg-type]  # an ASGI application
        uvicorn.Server(config).run(sockets=[listener])
