"""Settings that all programs of data_prep share, and how media are encoded."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from omegaconf import MISSING

from mmjepa.errors import UserError

ENGINES = ("processes", "ray")
FINISH = "finish"


@dataclass
class VideoEncoding:
    """``h264``: re-encode, so that any frame is cheap to reach. ``copy``: store .mp4 and .webm files as they are."""

    mode: str = "h264"
    short_side: int | None = 256  # pixels; smaller videos are not enlarged; null: as the video is
    gop: int = 12  # frames from one key frame to the next
    crf: int = 20  # x264's constant rate factor: 0 is lossless, 51 the worst
    verify: bool = True  # refuse files that are damaged as far as FFmpeg can tell; false: for downloads that are known

    def __post_init__(self) -> None:
        if self.mode not in ("h264", "copy"):
            raise UserError(f"video.mode={self.mode}: choose h264 or copy")
        if self.short_side is not None and self.short_side < 16:
            raise UserError(f"video.short_side={self.short_side}: must be at least 16, or null")
        if self.gop < 1 or not 0 <= self.crf <= 51:
            raise UserError(f"video.gop={self.gop} must be positive, video.crf={self.crf} in 0..51")


@dataclass
class StillEncoding:
    """``copy``: store .jpg and .png files as they are. ``jpeg``: re-encode, which ``short_side`` needs."""

    mode: str = "copy"
    short_side: int | None = None  # pixels; smaller stills are not enlarged
    quality: int = 90

    def __post_init__(self) -> None:
        if self.mode not in ("jpeg", "copy"):
            raise UserError(f"still.mode={self.mode}: choose copy or jpeg")
        if self.mode == "copy" and self.short_side is not None:
            raise UserError("still.short_side needs still.mode=jpeg: what is copied keeps its size")
        if self.short_side is not None and self.short_side < 16:
            raise UserError(f"still.short_side={self.short_side}: must be at least 16, or null")
        if not 1 <= self.quality <= 100:
            raise UserError(f"still.quality={self.quality}: must lie in 1..100")


@dataclass
class PreparationConfig:
    """What every program of data_prep asks for. The data depend on ``seed``, ``samples_per_shard`` and the encoding
    alone: not on ``processes``, ``engine`` or ``shard``.

    ``raw``: folder of the download. ``out``: folder that the splits' folders go into. ``shard``: ``i/n`` makes the i-th
    of n parts (from 0) and no manifest, as one task of a cluster's array; ``finish`` makes the manifests of such parts;
    null does both. ``counts``: ``published`` refuses annotation files that do not name as many samples as were
    published, ``any`` takes them. ``missing``: whether files that are absent or do not decode are refused (``refuse``)
    or left out, counted and listed (``skip``). ``timeout``: seconds for one video; what takes longer cannot be used.
    ``checksums``: a file of lines ``sha256  path`` as sha256sum writes them, paths relative to it; media files that
    differ cannot be used, and all must be listed.
    """

    raw: str = MISSING
    out: str = MISSING
    seed: int = 0
    samples_per_shard: int = 250
    processes: int = 1
    engine: str = "processes"
    shard: str | None = None
    counts: str = "published"
    missing: str = "refuse"
    timeout: float = 600.0
    checksums: str | None = None

    def __post_init__(self) -> None:
        if self.samples_per_shard < 1 or self.processes < 1:
            raise UserError("samples_per_shard and processes must be at least 1")
        if not self.timeout > 0:
            raise UserError(f"timeout={self.timeout}: must be positive, in seconds")
        for name, known in (("engine", ENGINES), ("counts", ("published", "any")), ("missing", ("refuse", "skip"))):
            if getattr(self, name) not in known:
                raise UserError(f"{name}={getattr(self, name)}: choose {' or '.join(known)}")
        self.part()

    def part(self) -> tuple[int, int]:
        """(i, n): this program makes every n-th shard from the i-th; (0, 1) is all of them."""
        if self.shard is None or self.shard == FINISH:
            return 0, 1
        matched = re.fullmatch(r"(\d+)/(\d+)", self.shard)
        if matched is None or not int(matched[1]) < int(matched[2]):
            raise UserError(f"shard={self.shard}: must be i/n with i from 0 to n - 1, e.g. shard=0/8, or {FINISH}")
        return int(matched[1]), int(matched[2])


@dataclass
class VideoPreparationConfig(PreparationConfig):
    """A video data set. ``videos``: where the videos lie if that is not somewhere under ``raw``."""

    videos: str | None = None
    video: VideoEncoding = field(default_factory=VideoEncoding)
