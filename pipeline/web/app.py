"""The page and its two calls: what there is, and a reply as lines of JSON."""

import json
import secrets
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.responses import StreamingResponse as Streaming
from starlette.routing import Route
from starlette.types import Send

from pipeline.assets import asset
from pipeline.chat import Message
from pipeline.engines.talk import Ending, Manner, Partner, Piece
from pipeline.errors import PipeError
from pipeline.web.side import Side, Told

HOSTS = ("127.0.0.1", "localhost")
"""Names by which a browser here may ask: another one would be a site that was rebound to us."""
_LARGEST = 4 << 20
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_POLICY = (
    "default-src 'none'; script-src 'nonce-{0}'; style-src 'nonce-{0}'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True)
class Page:
    """What the page shows at first: the partners by name, and how they are asked."""

    sides: Mapping[str, Partner]
    manner: Manner
    system: str = ""


class Said(BaseModel):
    model_config = ConfigDict(extra="forbid")

    role: Literal["user", "assistant"]
    content: str


class Asked(BaseModel):
    """A question; `turn` is how many were asked before it."""

    model_config = ConfigDict(extra="forbid")

    side: str
    messages: tuple[Said, ...] = Field(min_length=1)
    system: str = ""
    thinking: bool = True
    temperature: float = Field(ge=0, le=10, allow_inf_nan=False)
    turn: int = Field(0, ge=0, le=1 << 30)

    def conversation(self) -> list[Message]:
        system = [Message(role="system", content=self.system)] if self.system.strip() else []
        return system + [Message(role=m.role, content=m.content) for m in self.messages]


class Lines(Streaming):
    """A stream whose source is closed as soon as nobody reads it any more."""

    async def stream_response(self, send: Send) -> None:
        assert isinstance(self.body_iterator, AsyncGenerator)
        async with aclosing(self.body_iterator):
            await super().stream_response(send)


def application(page: Page) -> Starlette:
    """The page's server as an ASGI application, for requests from this machine's browser."""
    app = Starlette(
        routes=[
            Route("/", _index),
            Route("/about", _about),
            Route("/reply", _reply, methods=["POST"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS, www_redirect=False)],
    )
    app.state.page = page
    app.state.sides = {name: Side(name, partner) for name, partner in page.sides.items()}
    return app


async def _index(_: Request) -> Response:
    nonce = secrets.token_urlsafe(16)
    page = asset("modelfiles/chat.html").read_text(encoding="utf-8")
    policy = {"Content-Security-Policy": _POLICY.format(nonce)}
    return HTMLResponse(page.replace("{{ nonce }}", nonce), headers=_HEADERS | policy)


async def _about(request: Request) -> Response:
    page: Page = request.app.state.page
    sides = [{"id": name, "model": partner.name} for name, partner in page.sides.items()]
    first = {"temperature": page.manner.temperature, "thinking": page.manner.thinking}
    return JSONResponse({"sides": sides, "system": page.system, **first}, headers=_HEADERS)


async def _reply(request: Request) -> Response:
    """A reply as lines of JSON, each with `kind`: thinking, answer, remark, end or error."""
    if refusal := _refusal(request):
        return PlainTextResponse(refusal, 403)
    try:
        asked = Asked.model_validate_json(await _body(request))
    except (ValidationError, ValueError) as error:
        return PlainTextResponse(f"This is no question: {error}", 400)
    side: Side | None = request.app.state.sides.get(asked.side)
    if side is None:
        return PlainTextResponse(f"There is no side {asked.side}.", 404)
    manner = replace(
        request.app.state.page.manner,
        temperature=asked.temperature,
        thinking=asked.thinking,
        seed=request.app.state.page.manner.seed + asked.turn,
    )
    told = side.reply(asked.conversation(), manner)
    lines = _lines(told, side.partner.n_ctx)
    return Lines(lines, media_type="application/x-ndjson", headers=_HEADERS)


def _refusal(request: Request) -> str:
    """Why a request is not from our page; empty where it is."""
    if request.headers.get("origin") != f"http://{request.headers.get('host')}":
        return "Only this server's own page may ask."
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        return "Questions are JSON."
    return ""


async def _body(request: Request) -> bytes:
    """The request's body. Raises ValueError for one that is too large."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LARGEST:
            raise ValueError("it is too long")
    return body


async def _lines(told: AsyncGenerator[Told, None], n_ctx: int | None) -> AsyncGenerator[str, None]:
    async with aclosing(told):
        async for event in told:
            yield json.dumps(_as_json(event, n_ctx)) + "\n"


def _as_json(event: Told, n_ctx: int | None) -> dict[str, Any]:
    if isinstance(event, Piece):
        return {"kind": event.part, "text": event.text, "tokens": event.tokens}
    if isinstance(event, Ending):
        return {"kind": "end", **asdict(event), "n_ctx": n_ctx}
    if isinstance(event, PipeError):
        return {"kind": "error", "text": str(event)}
    return {"kind": "remark", "text": event.text}
