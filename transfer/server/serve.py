"""`transfer review`: serve the review of a data set's labels on this machine alone."""

import importlib.util
import logging
import secrets
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from transfer.config.curation import ReviewConfig
from transfer.curation.features import DataSetFeatures, load_data_set_features
from transfer.data.class_names import match_names
from transfer.data.corrections import CorrectionFile
from transfer.data.manifests.manifest import read_manifest
from transfer.errors import TransferError, did_you_mean
from transfer.feature_cache import TrunkCache
from transfer.server.review import Review

HOST = "127.0.0.1"
STOP_SECONDS = 30.0  # in which requests arrive, and are answered at the end

log = logging.getLogger(__name__)


def prepare_review(config: ReviewConfig, file: Path) -> Review:
    """Return the review that `config` describes, with its decisions in `file`.

    Raises
    ------
    TransferError
        The data set cannot be read, or has no such class or picks; or `file` holds something else.
    """
    if config.images.corrections:
        raise TransferError("--corrections: give it as --out, to continue that review")
    decisions = CorrectionFile(file)
    decisions.read()  # before anything takes time
    data = load_data_set_features(
        config.images, config.backbone, TrunkCache(config.cache), device=config.device, seed=config.seed
    )
    return Review(data, decisions, _choose_rows(data, config), config.seed)


def _choose_rows(data: DataSetFeatures, config: ReviewConfig) -> Sequence[int] | None:
    if config.class_name:
        (place,) = match_names([config.class_name], data.table.objects)
        if place < 0:
            near = did_you_mean(config.class_name, data.table.objects)
            raise TransferError(f"--class-name: no class {config.class_name!r}{near}")
        return np.flatnonzero(data.table.object == place).tolist()
    if config.picks:
        rows = {str(path): row for row, path in enumerate(data.table.paths)}
        chosen = [rows[str(path)] for path in read_manifest(config.picks).paths if str(path) in rows]
        if not chosen:
            raise TransferError(f"--picks: no image of {config.picks} is in {config.images.data}")
        return chosen
    return None


def check_server(command: str = "review") -> None:
    """Raise a TransferError that says what to install for a command, if the packages of the server are not there."""
    if not all(importlib.util.find_spec(name) for name in ("fastapi", "uvicorn")):
        raise TransferError(f"transfer {command} needs more packages: pip install 'transfer-toolkit[server]'")


def serve_review(review: Review, port: int = 0) -> None:
    """Serve `review` on 127.0.0.1 until interrupted; log the address. Port 0 takes a free one.

    Raises
    ------
    TransferError
        The packages are not installed, or the port is taken.
    """
    check_server()
    from transfer.server.app import create_app
    from transfer.server.listen import bind, serve_until_stopped

    token = secrets.token_urlsafe(24)
    listening = bind(HOST, port)
    listening.listen()  # a browser that is faster than the start of the server waits
    log.info("review at http://%s:%d/%s/  (Ctrl-C ends it)", HOST, listening.getsockname()[1], token)
    serve_until_stopped(create_app(review, token), listening, STOP_SECONDS)
