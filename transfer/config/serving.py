"""The typed config of `transfer serve`. Imports no torch."""

from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

import tyro

from transfer.config.checked import Config
from transfer.config.ranges import AtLeastOne, NotEmpty, Positive, Share, Within
from transfer.config.shared import Advanced, Device, Engine
from transfer.errors import TransferError

LOCAL_HOST = "127.0.0.1"
MOST_RUNS = 2  # side by side on a page


@dataclass(frozen=True)
class ServeLimitsConfig(Config):
    """What the server accepts at most."""

    max_megabytes: Advanced[Positive[float]] = 20.0
    """Size of an uploaded image in MB; a batch may have five times as much in all."""
    max_megapixels: Advanced[Positive[float]] = 64.0
    """Width times height of an uploaded image, in millions."""
    max_images: Advanced[AtLeastOne[int]] = 64
    """Images in one request."""
    queue: Advanced[AtLeastOne[int]] = 128
    """Images that wait for the model; when it is full, requests are answered by 503 and when to try again."""
    batch: Advanced[AtLeastOne[int]] = 16
    """Waiting images that are predicted together."""
    timeout: Advanced[Positive[float]] = 30.0
    """Seconds in which a request must have arrived, and in which requests are finished when the server stops."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.queue < self.max_images:
            raise TransferError(f"--queue {self.queue} is less than --max-images {self.max_images}: no such batch fits")


@dataclass(frozen=True)
class ServeConfig(Config):
    """Try a saved run in the browser: drop, paste or photograph images, see the answer and why, and correct it.

    The same address has a JSON API. Nothing leaves this machine, and images are stored only where you correct one.
    """

    runs: tyro.conf.Positional[NotEmpty[tuple[Path, ...]]]
    """Run folder; a second one is shown side by side."""
    host: str = LOCAL_HOST
    """Address to listen on. 127.0.0.1: this machine alone. 0.0.0.0: everyone who can reach this machine and has the
    token that is printed."""
    port: Annotated[int, Within(0, 65535)] = 8000
    """Port (0: a free one)."""
    token: bool = False
    """Ask for a token on 127.0.0.1, too, as other users of this machine can open the page. $TRANSFER_SERVE_TOKEN is the
    token (default: a random one)."""
    coverage: Share[float] = 0.9
    """How often the set of likely classes contains the true class, for images like those of the training set."""
    max_unknown: Annotated[float, Within(0, 1)] = 0.99
    """Answer "I don't know" where a larger share of known images is less strange than this one."""
    device: Device = "auto"
    """Where to compute; auto takes CUDA, then MPS, then the CPU."""
    engine: Advanced[Engine | None] = None
    """What runs the frozen layers (default: as the run)."""
    limits: ServeLimitsConfig = field(default_factory=ServeLimitsConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.runs) > MOST_RUNS:
            raise TransferError(f"{len(self.runs)} runs: a page compares {MOST_RUNS} at most")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False
