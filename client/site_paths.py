"""Where a site keeps what it writes."""

from dataclasses import dataclass
from pathlib import Path

from common.config.site import Site


@dataclass(frozen=True, slots=True)
class SitePaths:
    """Folders and files under the site's `state`, and the worker's socket.

    Attributes:
        door: the socket, where the site puts it elsewhere.
    """

    state: Path
    door: Path | None = None

    @classmethod
    def of(cls, site: Site, base: Path) -> "SitePaths":
        """Absolute paths; relative ones start at the site file's folder."""
        door = None if site.socket is None else (base / site.socket).absolute()
        return cls((base / site.state).absolute(), door)

    @property
    def socket(self) -> Path:
        """The worker's socket, in a folder of its own."""
        return self.door or self.state / "worker" / "socket"

    @property
    def health(self) -> Path:
        """Where the worker's own user asks how it is, if it can't reach the socket."""
        return self.state / "health" / "socket"

    @property
    def flower(self) -> Path:
        """Flower's own state."""
        return self.state / "flower"

    @property
    def ledger(self) -> Path:
        """The privacy ledger and its vault, in a folder of their own."""
        return self.state / "ledger"

    @property
    def sums(self) -> Path:
        """What is remembered of secure sums, a file for each study."""
        return self.state / "sums"

    def metrics(self, study: str) -> Path:
        """The site's own figures of a study, by its hash."""
        return self.state / "figures" / study[:16] / "metrics.jsonl"

    def progress(self, study: str) -> Path:
        """What the worker is at, in a study."""
        return self.metrics(study).with_name("progress.json")

    def log(self, name: str) -> Path:
        """Log file of one process."""
        return self.state / f"{name}.log"
