"""The web application of a run: JSON addresses, the page that uses them, and their description (OpenAPI)."""

import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect

from transfer.data.images.decode import BadImage
from transfer.errors import TransferError
from transfer.runtime.version import VERSION
from transfer.server.guard import RequestGuard
from transfer.server.page import JsonAnswer, answer_page
from transfer.server.service import PredictionService
from transfer.server.uploads import RequestRefused, UploadedFile, clean_name, split_form

PATHS = (
    "/predict",
    "/predict_batch",
    "/health",
    "/metrics",
    "/corrections",
    "/picture",
    "/training",
    "/about",
    "/docs",
)
_BINARY = {"type": "string", "format": "binary"}
_FORM = {"type": "object", "properties": {"file": {"type": "array", "items": _BINARY}}}
_IMAGE_BODY: Any = {
    "requestBody": {
        "required": True,
        "description": "The bytes of an image file, or a form with one file.",
        "content": {"application/octet-stream": {"schema": _BINARY}, "multipart/form-data": {"schema": _FORM}},
    }
}
_FORM_BODY: Any = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}}
_EXAMPLE = {
    "name": "photo.jpg",
    "sha256": "9f86d081884c7d65…",
    "run": "office",
    "prediction": {"object": "mug", "object_probability": 0.93, "object_top": [["mug", 0.93]], "object_set": ["mug"],
                   "object_unknown": 0.41, "domain": "webcam", "doubt": 0.07},
}  # fmt: skip
_ERRORS: Any = {
    status: {"description": text, "content": {"application/json": {"example": {"error": text, "code": code}}}}
    for status, code, text in (
        (408, "too_slow", "The request did not arrive in time."),
        (413, "too_large", "Too many bytes, pixels or images."),
        (415, "wrong_type", "This is no image, or no form."),
        (422, "bad_image", "The image cannot be read."),
        (503, "busy", "The queue is full; the header Retry-After says in how many seconds to try again."),
    )
}
_ANSWER: Any = {200: {"description": "The prediction.", "content": {"application/json": {"example": _EXAMPLE}}}}

RunNumber = Annotated[int, Query(description="Number of the run, from 0.")]
Top = Annotated[int, Query(ge=1, le=1000, description="Number of classes listed with their probabilities.")]
Name = Annotated[str, Query(max_length=1000, description="Name of the file; it is only repeated.")]
Seen = Annotated[int | None, Query(description="Number of decisions on this image that the client knows of.")]


def create_api(service: PredictionService, token: str = "") -> FastAPI:
    """Return the application; with a `token`, all but /health needs it."""

    @asynccontextmanager
    async def run_service(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        finish = False
        try:
            yield
            finish = True
        finally:  # a second signal cancels the wait; the process must not exit while the model computes
            service.close(finish=finish)

    about = "Predictions of a saved run. Errors are JSON: `error` for people, `code` for programs."
    api = FastAPI(title="transfer serve", version=VERSION, description=about, docs_url=None, redoc_url=None,
                  lifespan=run_service)  # fmt: skip
    guard: Any = {"host": service.config.host, "token": token, "metrics": service.metrics, "paths": _name_path}
    api.add_middleware(RequestGuard, **guard)
    _add_errors(api, service)
    _add_predictions(api, service)
    _add_corrections(api, service)
    _add_state(api, service)
    _add_pages(api, service)
    return api


def _name_path(path: str) -> str:
    if path == "/":
        return path
    return next((known for known in PATHS if path == known or path.startswith(f"{known}/")), "other")


@asynccontextmanager
async def _read_files(
    request: Request, service: PredictionService, most: int, name: str = ""
) -> AsyncIterator[list[UploadedFile]]:
    """Yield the files of a request: of a form, or its whole body; until the end, its bytes count as held in memory."""
    kind = request.headers.get("content-type", "")
    form = kind.lower().startswith("multipart/form-data")
    if request.headers.get("content-encoding", "identity") != "identity":
        raise RequestRefused(415, "wrong_type", "compressed requests are not read")
    reader = service.reader
    size = reader.batch_bytes if form else reader.image_bytes
    reserved = reader.reserve(request.headers.get("content-length"), size)
    try:
        body = await reader.read(request.stream(), size)
        files = split_form(kind, body, most) if form else [UploadedFile(clean_name(name), body)]
        if not files:
            raise RequestRefused(400, "empty", "the form has no file")
        yield files
    finally:
        reader.held -= reserved


def _add_errors(api: FastAPI, service: PredictionService) -> None:
    """Let every error be JSON with ``error`` and ``code``."""

    @api.exception_handler(RequestRefused)
    def refuse(_: Request, error: RequestRefused) -> JsonAnswer:
        service.metrics.count_images("refused")
        headers = {"Retry-After": str(error.retry_after)} if error.retry_after else None
        return JsonAnswer({"error": error.message, "code": error.code}, error.status, headers)

    @api.exception_handler(TransferError)
    def refuse_input(_: Request, error: TransferError) -> JsonAnswer:
        bad = isinstance(error, BadImage)
        return JsonAnswer({"error": str(error), "code": "bad_image" if bad else "bad_request"}, 422 if bad else 400)

    @api.exception_handler(RequestValidationError)
    def refuse_values(_: Request, error: RequestValidationError) -> JsonAnswer:
        first = error.errors()[0]
        return JsonAnswer({"error": f"{first['loc'][-1]}: {first['msg']}", "code": "bad_request"}, 400)

    @api.exception_handler(StarletteHTTPException)
    def refuse_address(_: Request, error: StarletteHTTPException) -> JsonAnswer:
        return JsonAnswer({"error": str(error.detail), "code": "no_address"}, error.status_code, error.headers)

    @api.exception_handler(ClientDisconnect)
    def note_departure(_: Request, error: ClientDisconnect) -> JsonAnswer:
        return JsonAnswer({"error": "the connection was closed before the request was complete", "code": "cut"}, 400)

    @api.exception_handler(Exception)
    def fail(_: Request, error: Exception) -> JsonAnswer:
        return JsonAnswer({"error": "the server failed; its log says why", "code": "failed"}, 500)


def _add_predictions(api: FastAPI, service: PredictionService) -> None:
    @api.post("/predict", openapi_extra=_IMAGE_BODY, responses=_ANSWER | _ERRORS, tags=["predictions"])
    async def predict(
        request: Request,
        run: RunNumber = 0,
        top: Top = 5,
        name: Name = "",
        explain: Annotated[
            bool, Query(description="Add Grad-CAM: which parts of the image speak for a class.")
        ] = False,
        label: Annotated[str, Query(description="The class that is explained (default: the likeliest).")] = "",
        neighbours: Annotated[bool, Query(description="Add the nearest training images.")] = False,
    ) -> JsonAnswer:
        """Predict one image: the keys of `prediction` are those of `transfer predict`, and `doubt`."""
        async with _read_files(request, service, 1, name) as (file,):
            answer, image, features = await service.predict(file, run, top)
            if explain:
                answer["explanation"] = await service.explain(run, image, answer["prediction"], label)
            if neighbours:
                args = run, features, answer["sha256"], answer["prediction"]
                answer["neighbours"] = await service.find_neighbours(*args)
            return JsonAnswer(answer)

    @api.post("/predict_batch", openapi_extra=_FORM_BODY, responses=_ERRORS, tags=["predictions"])
    async def predict_batch(request: Request, run: RunNumber = 0, top: Top = 5) -> JsonAnswer:
        """Predict the images of a form, in order; one that cannot be read has `error` and `code` instead."""
        if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
            raise RequestRefused(415, "wrong_type", "send a form: multipart/form-data, a file for each image")
        async with _read_files(request, service, service.limits.max_images) as files:
            return JsonAnswer({"results": await service.predict_all(files, run, top)})

    @api.post("/picture", openapi_extra=_IMAGE_BODY, responses=_ERRORS, tags=["predictions"])
    async def picture(request: Request) -> Response:
        """Return an image as a JPEG, for formats that browsers do not show."""
        async with _read_files(request, service, 1) as (file,):
            return Response(await service.draw_upload(file.content), media_type="image/jpeg")

    @api.get("/training/{run}/{row}", tags=["predictions"])
    async def training_image(run: int, row: int) -> Response:
        """Return a small picture of a training image, by the row that `neighbours` names."""
        content = await service.draw_training_image(run, row)
        return Response(content, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})


def _add_corrections(api: FastAPI, service: PredictionService) -> None:
    @api.get("/corrections", tags=["corrections"])
    def list_corrections(run: RunNumber = 0) -> JsonAnswer:
        """Return the corrections that hold, the newest first, and the command that takes them.

        `decisions` has the number of decisions on each image, by sha256, those that were undone included.
        """
        service.get_run(run)
        file, folder = service.corrections[run].file.path, service.runs[run].folder
        command = shlex.join(["transfer", "update", str(folder), "--corrections", str(file)])
        return _answer_corrections(service, run, {"file": str(file), "command": command})

    @api.post("/corrections", openapi_extra=_IMAGE_BODY, responses=_ERRORS, tags=["corrections"])
    async def correct(
        request: Request,
        label: Annotated[str, Query(description="The true class.")],
        run: RunNumber = 0,
        name: Name = "",
        seen: Seen = None,
        domain: Annotated[
            str, Query(description="The true domain, of a run that predicts it (default: unknown).")
        ] = "",
    ) -> JsonAnswer:
        """Store an image with its true class, and perhaps its domain.

        With `seen`, 409 and nothing is stored if there are other decisions.
        """
        async with _read_files(request, service, 1, name) as (file,):
            stored = await service.correct(run, file, label, seen, domain)
        return _answer_corrections(service, run, None if stored else _BEHIND)

    @api.post("/corrections/{digest}/undo", tags=["corrections"])
    def undo(digest: str, run: RunNumber = 0, seen: Seen = None) -> JsonAnswer:
        """Take back the last correction of the image with this sha256."""
        service.get_run(run)
        undone = service.corrections[run].undo(digest, seen)
        return _answer_corrections(service, run, None if undone else _BEHIND)

    @api.get("/corrections/{digest}", tags=["corrections"])
    async def corrected_image(digest: str, run: RunNumber = 0) -> Response:
        """Return a small picture of a corrected image."""
        service.get_run(run)
        content = service.corrections[run].read_image(digest)
        if content is None:
            raise RequestRefused(404, "no_image", "there is no correction of this image")
        return Response(await service.draw_upload(content, side=240), media_type="image/jpeg")


_BEHIND = {"error": "this image was corrected elsewhere in the meantime", "code": "behind"}


def _answer_corrections(service: PredictionService, run: int, more: dict[str, str] | None) -> JsonAnswer:
    folder = service.corrections[run]
    answer = {"corrections": folder.list_corrections(), "decisions": folder.count_all_decisions(), **(more or {})}
    return JsonAnswer(answer, 409 if "error" in answer else 200)


def _add_state(api: FastAPI, service: PredictionService) -> None:
    @api.get("/health", tags=["server"])
    def health() -> JsonAnswer:
        """Return whether the server is ready; it needs no token."""
        return JsonAnswer({"status": "ok", "version": VERSION})

    @api.get("/about", tags=["server"])
    def about() -> JsonAnswer:
        """Return the runs, with their classes and accuracy on test images, and the limits."""
        runs = [
            run.describe() | {"training_images": index.describe()}
            for run, index in zip(service.runs, service.indexes, strict=True)
        ]
        limits = service.limits
        return JsonAnswer(
            {
                "runs": runs,
                "limits": {
                    "bytes": service.reader.image_bytes,
                    "batch_bytes": service.reader.batch_bytes,
                    "images": limits.max_images,
                    "megapixels": limits.max_megapixels,
                },
            }
        )

    @api.get("/metrics", tags=["server"], response_class=PlainTextResponse)
    def metrics() -> PlainTextResponse:
        """Return counts and times in the text format of Prometheus."""
        text = service.metrics.format_text(service.worker.waiting, service.worker.capacity)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")


def _add_pages(api: FastAPI, service: PredictionService) -> None:
    @api.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return answer_page("docs.html", api=api.openapi())

    @api.get("/", include_in_schema=False)
    def page() -> HTMLResponse:
        return answer_page("serve.html", runs=[run.name for run in service.runs])
