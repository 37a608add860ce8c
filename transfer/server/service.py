"""What the server does with uploaded images: decode, predict, explain, find neighbours, and store corrections."""

import asyncio
import hashlib
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from transfer.config.serving import ServeConfig
from transfer.data.images.batches import open_single_threads
from transfer.data.images.preprocessing import locate_view
from transfer.runtime import distributed
from transfer.server.correction_folder import CorrectionFolder
from transfer.server.counters import ServerMetrics
from transfer.server.neighbours import TrainingIndex, draw_small
from transfer.server.served_run import ExplainedImage, PredictedImage, ServedRun, shorten_lists
from transfer.server.uploads import BodyReader, PreparedImage, RequestRefused, UploadedFile, check_image, decode_upload
from transfer.server.worker import BatchCall, ModelWorker, QueueFull

IMAGES_PER_SECOND = 20  # assumed for the header Retry-After
SHOWN_UPLOAD_SIDE = 900  # pixels of the longer side of a picture that a browser cannot show itself


class PredictionService:
    """The runs that `config` names, loaded, with the queue before them; call :meth:`start` first, :meth:`close` last.

    Raises
    ------
    TransferError
        A run is missing or damaged.
    """

    def __init__(self, config: ServeConfig) -> None:
        self.config, self.limits = config, config.limits
        self.metrics = ServerMetrics()
        self.reader = BodyReader(config.limits)
        self.runs = [ServedRun(run, config) for run in config.runs]
        if len({run.name for run in self.runs}) < len(self.runs):
            for run in self.runs:
                run.name = str(run.folder)
        self.indexes = [TrainingIndex(run) for run in self.runs]
        self.corrections = [CorrectionFolder(run.folder) for run in self.runs]
        self.worker = ModelWorker(self.limits.queue, self.limits.batch, self.metrics.count_batch)
        self._pool = open_single_threads(distributed.count_cores_per_process())

    def start(self) -> None:
        """Start the model's thread, which also indexes the training images."""
        self.worker.start()
        for run, index in zip(self.runs, self.indexes, strict=True):
            self.worker.submit(run.predict, [run.make_blank()])  # so that the first request is as fast as the others
            self.worker.work_when_idle(index.steps())

    def close(self, *, finish: bool = True) -> None:
        """Answer what waits, unless `finish` is False, and end the threads."""
        self.worker.close(finish=finish)
        self._pool.shutdown(cancel_futures=True)

    def get_run(self, number: int) -> ServedRun:
        """Return a run by its number; raise RequestRefused if there is none."""
        if not 0 <= number < len(self.runs):
            raise RequestRefused(404, "no_run", f"there is no run {number}; runs are numbered from 0")
        return self.runs[number]

    async def compute(self, call: BatchCall, items: Sequence[Any]) -> list[Any]:
        """Return the results of `call` for `items`, computed by the model's thread.

        Raises
        ------
        RequestRefused
            The queue is full.
        """
        try:
            waiting: list[Future[Any]] = self.worker.submit(call, items)
        except QueueFull as full:
            raise self.refuse_busy(full.waiting) from None
        return await asyncio.gather(*map(asyncio.wrap_future, waiting))

    def refuse_busy(self, waiting: int) -> RequestRefused:
        """Return the refusal of a request that finds the queue full."""
        after = 1 + waiting // IMAGES_PER_SECOND
        return RequestRefused(503, "busy", f"{waiting} images are waiting: try again in {after} s", retry_after=after)

    async def decode(self, content: bytes, run: ServedRun) -> PreparedImage:
        """Return an uploaded image as the run's network sees it; raise RequestRefused if it is none."""
        check_image(content, self.limits)
        return await self._in_pool(decode_upload, content, run.preprocessing)

    async def predict(self, file: UploadedFile, number: int, top: int) -> tuple[dict[str, Any], PreparedImage, Any]:
        """Return the answer for one image, the image as the network sees it, and its features (F,)."""
        run = self.get_run(number)
        if self.worker.waiting >= self.worker.capacity:  # before any work is done
            raise self.refuse_busy(self.worker.waiting)
        image = await self.decode(file.content, run)
        (found,) = await self.compute(run.predict, [image.pixels])
        return self._answer(file, run, image, found, top), image, found.features

    async def predict_all(self, files: Sequence[UploadedFile], number: int, top: int) -> list[dict[str, Any]]:
        """Return the answer for each image in order; of one that cannot be read its name, error and code."""
        run = self.get_run(number)
        if self.worker.waiting + len(files) > self.worker.capacity:
            raise self.refuse_busy(self.worker.waiting)
        decoded = await asyncio.gather(*(self.decode(file.content, run) for file in files), return_exceptions=True)
        images = [image for image in decoded if isinstance(image, PreparedImage)]
        found = iter(await self.compute(run.predict, [image.pixels for image in images]))
        results = []
        for file, image in zip(files, decoded, strict=True):
            if isinstance(image, PreparedImage):
                results.append(self._answer(file, run, image, next(found), top))
            elif isinstance(image, RequestRefused):
                self.metrics.count_images("refused")
                results.append({"name": file.name, "error": image.message, "code": image.code})
            else:
                raise image
        return results

    def _answer(
        self, file: UploadedFile, run: ServedRun, image: PreparedImage, found: PredictedImage, top: int
    ) -> dict[str, Any]:
        self.metrics.count_images("predicted")
        return {
            "name": file.name,
            "sha256": hashlib.sha256(file.content).hexdigest(),
            "run": run.name,
            "prediction": shorten_lists(found.row, top),
        }

    async def explain(
        self, number: int, image: PreparedImage, prediction: dict[str, Any], label: str = ""
    ) -> dict[str, Any] | None:
        """Return ``label``, ``heat`` (h rows of w values in [0, 1]) and ``view``; None where there is no Grad-CAM.

        Parameters
        ----------
        label : str
            The class to explain (default: the likeliest one).
        """
        run = self.get_run(number)
        if not run.explains:
            return None
        label = run.find_class(label) or prediction[f"{run.main}_top"][0][0]
        if label not in run.classes:
            raise RequestRefused(400, "no_class", "the run has no class of this name")
        wanted = ExplainedImage(image.pixels, run.classes.index(label))
        (heat,) = await self.compute(run.explain, [wanted])
        if heat is None:
            return None
        view = [round(value, 4) for value in locate_view(image.height, image.width, run.preprocessing)]
        return {"label": label, "heat": heat.astype(float).round(3).tolist(), "view": view}

    async def find_neighbours(
        self, number: int, features: Any, digest: str, prediction: dict[str, Any]
    ) -> dict[str, Any]:
        """Return the nearest training images, and those of the second likeliest class.

        Where the nearest are all of this class, those of the likeliest class take its place.
        """
        index, run = self.indexes[number], self.get_run(number)
        top = prediction.get(f"{run.main}_top", [])
        nearest = await self._in_pool(index.find, features, digest)
        answer: dict[str, Any] = {"index": index.describe(), "nearest": nearest}
        if len(top) > 1:
            shown = {image["labels"].get(run.main) for image in nearest}
            label = top[0][0] if shown == {top[1][0]} else top[1][0]
            found = await self._in_pool(index.find, features, digest, label)
            answer["next"] = {"label": label, "nearest": found}
        return answer

    async def draw_training_image(self, number: int, row: int) -> bytes:
        """Return a small JPEG of a training image; raise RequestRefused if there is none."""
        self.get_run(number)
        picture = await self._in_pool(self.indexes[number].draw, row)
        if picture is None:
            raise RequestRefused(404, "no_image", "this training image is gone, or has changed since the training")
        return picture

    async def draw_upload(self, content: bytes, side: int = SHOWN_UPLOAD_SIDE) -> bytes:
        """Return an uploaded or corrected image as a JPEG; raise RequestRefused if it is none."""
        check_image(content, self.limits)
        return await self._in_pool(draw_small, content, side)

    async def correct(self, number: int, file: UploadedFile, label: str, seen: int | None, domain: str = "") -> bool:
        """Store a correction; return whether it was stored (see :meth:`CorrectionFolder.add`)."""
        if domain.strip() and "domain" not in self.get_run(number).specs:
            raise RequestRefused(400, "no_domain", "the run predicts no domain: leave it out")
        run, folder = self.get_run(number), self.corrections[number]
        label = run.find_class(label)
        suffix = check_image(file.content, self.limits)
        answer, _, _ = await self.predict(file, number, top=1)  # whole images alone are stored
        predicted = str(answer["prediction"].get(run.main) or "")
        stored = await self._in_pool(folder.add, file.content, suffix, label, predicted, seen, domain, run.classes)
        self.metrics.count_images("corrected", int(stored))
        return stored

    async def _in_pool(self, call: Any, *values: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, call, *values)
