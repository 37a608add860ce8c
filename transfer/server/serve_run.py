"""`transfer serve`: a page and a JSON API to try a saved run, on this machine alone unless another address is given."""

import logging
import os
import secrets
import warnings

from PIL import Image

from transfer.config.serving import ServeConfig
from transfer.errors import TransferError

TOKEN_VARIABLE = "TRANSFER_SERVE_TOKEN"
MIN_TOKEN = 16  # characters of a token that is given

log = logging.getLogger(__name__)


def choose_token(config: ServeConfig) -> str:
    """Return the token that requests need; an empty one if they need none.

    Raises
    ------
    TransferError
        The one in $TRANSFER_SERVE_TOKEN is too short, or has other than printable ASCII characters.
    """
    if config.is_local and not config.token:
        return ""
    given = os.environ.get(TOKEN_VARIABLE)
    if given is None:
        return secrets.token_urlsafe(24)
    if len(given) < MIN_TOKEN or not given.isascii() or not given.isprintable() or set(given) & set(' ";,\\'):
        raise TransferError(
            f"${TOKEN_VARIABLE}: give at least {MIN_TOKEN} printable ASCII characters, without spaces, quotes, commas, "
            "semicolons and backslashes"
        )
    return given


def describe_access(config: ServeConfig, port: int) -> list[str]:
    """Return what listening on an address other than 127.0.0.1 opens, in plain words; nothing for this machine."""
    if config.is_local:
        return []
    return [
        f"--host {config.host}: everyone who can reach port {port} of this machine and has the token can use the "
        "model, see training images, and add or undo corrections in the run folder.",
        "The connection is not encrypted: others on the network can read the token and the images. Use it on a network "
        "that you trust, or behind a proxy with HTTPS.",
    ]


def serve_run(config: ServeConfig) -> None:
    """Serve the runs of `config` until SIGINT or SIGTERM; log the address.

    Raises
    ------
    TransferError
        A run is missing or damaged, or the address cannot be used.
    """
    from transfer.server.api import create_api
    from transfer.server.listen import bind, serve_until_stopped
    from transfer.server.service import PredictionService

    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # such images are refused by size
    token = choose_token(config)
    listening = bind(config.host, config.port)  # before anything takes time
    try:
        service = PredictionService(config)
    except BaseException:
        listening.close()
        raise
    port = listening.getsockname()[1]
    listening.listen()  # a browser that is faster than the start of the server waits
    for line in describe_access(config, port):
        log.warning("%s", line)
    shown = f"[{config.host}]" if ":" in config.host else config.host
    shown = "127.0.0.1" if shown in ("0.0.0.0", "[::]") else shown
    log.info("open http://%s:%d/%s  (Ctrl-C ends it)", shown, port, f"?token={token}" if token else "")
    log.info("JSON API: http://%s:%d/docs", shown, port)
    serve_until_stopped(create_api(service, token), listening, config.limits.timeout)
