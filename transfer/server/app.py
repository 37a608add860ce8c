"""The web application of a review: a page, pictures by row number, and decisions as JSON.

It is meant for 127.0.0.1. A random token in every address keeps out other users of the machine and other web pages; the
check of the Host header keeps out pages that point a name of theirs at 127.0.0.1 (DNS rebinding).
"""

import io
import secrets
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel, Field
from starlette.middleware.trustedhost import TrustedHostMiddleware

from transfer.data.images.decode import decode
from transfer.data.shards.prefetch import Contents
from transfer.errors import TransferError
from transfer.server.page import JsonAnswer, answer_page, encode_small
from transfer.server.review import Review

SHOWN_SIDE = 900  # pixels of the longer side, at most
MAX_CLASS_LETTERS = 200  # characters of a class


class Decision(BaseModel):
    """A decision that the page sends."""

    row: int
    action: Literal["accept", "relabel", "exclude", "undo"]
    new: Annotated[str, Field(max_length=MAX_CLASS_LETTERS)] = ""
    seen: int


def create_app(review: Review, token: str) -> FastAPI:
    """Return the application; all its addresses begin with ``/<token>/``."""

    def check_token(token_given: str) -> None:
        if not secrets.compare_digest(token_given.encode(), token.encode()):
            raise HTTPException(404)

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, default_response_class=JsonAnswer)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
    router = APIRouter(prefix="/{token_given}", dependencies=[Depends(check_token)])

    @app.exception_handler(TransferError)
    def refuse(_: Request, error: TransferError) -> JsonAnswer:
        return JsonAnswer({"error": str(error)}, 400)

    @router.get("/")
    def page() -> HTMLResponse:
        return answer_page("review.html")

    @router.get("/state")
    def state() -> dict[str, Any]:
        return review.state()

    @router.post("/decide")
    def decide(decision: Decision) -> JsonAnswer:
        stored = review.decide(decision.row, decision.action, decision.new, seen=decision.seen)
        return JsonAnswer(review.item(decision.row), 200 if stored else 409)

    @router.post("/rank")
    def rank() -> dict[str, Any]:
        review.rank()
        return review.state()

    @router.get("/picture/{row}")
    def picture(row: int) -> Response:
        if not 0 <= row < len(review.paths):
            raise HTTPException(404)
        return Response(_draw(review, row), media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})

    app.include_router(router)
    return app


def _draw(review: Review, row: int) -> bytes:
    contents = Contents(review.data.table.paths, np.array([row]))
    try:
        content = contents[0]
        file = io.BytesIO(content) if isinstance(content, bytes) else content
        image = decode(file, name=contents.path(0), at_least=SHOWN_SIDE, levels=review.data.levels)
    finally:
        contents.close()
    return encode_small(image, SHOWN_SIDE)
