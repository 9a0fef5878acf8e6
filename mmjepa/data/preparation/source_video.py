"""Frames of a video file as it was downloaded, and as strict a look at it as FFmpeg offers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import av
from av.video.codeccontext import VideoCodecContext

from mmjepa.data.video import CONTAINERS, shows_pictures

Window = tuple[float, float] | None

STRICT = "crccheck+bitstream+buffer+explode+careful+compliant+aggressive"
SECOND_DECODERS = {"vp9": "libvpx-vp9", "vp8": "libvpx"}
"""FFmpeg's own VP8 and VP9 decoders do not notice that they read beyond the end of a frame's data; libvpx does."""


class UnreadableMedia(Exception):
    """A media file that cannot be stored. The message is the reason."""


class SourceVideo:
    """An opened file; see :func:`open_video`."""

    def __init__(self, container: av.container.InputContainer, verify: bool) -> None:
        streams = [stream for stream in container.streams.video if shows_pictures(stream)]
        if not streams:
            raise UnreadableMedia("no video in the file")
        self.stream = streams[0]
        self._container, self._verify = container, verify
        if self.stream.codec_context is None:  # PyAV's way of saying so
            raise UnreadableMedia("no decoder for its codec")
        container_name, codec = container.format.name, self.stream.codec_context.name
        self._has_times = container_name != "avi"  # it knows only the order in which frames are stored
        # Elsewhere a packet may be half a frame, or one that is never shown.
        self._packets_are_frames = codec in ("h264", "hevc") and container_name.startswith(("mov", "matroska"))
        self._decoders: list[VideoCodecContext] = [self.stream.codec_context]
        second = SECOND_DECODERS.get(codec)
        if verify and second in av.codecs_available:
            self._decoders.append(cast(VideoCodecContext, av.CodecContext.create(second, "r")))
        for decoder in self._decoders:
            decoder.thread_type, decoder.thread_count = "NONE", 1  # work is parallel over videos
            if verify:
                decoder.options = {"err_detect": STRICT}

    def frames(self, window: Window, seek: bool) -> Iterator[av.VideoFrame]:
        """Decoded frames of the window (start, end) in s, in the order of presentation; None: all of them.

        ``seek``: begin to decode at the key frame before the window, not at the start of the file.
        """
        if window is None or self.stream.time_base is None:
            yield from self._decode()
            return
        origin = float((self.stream.start_time or 0) * self.stream.time_base)
        start, end = origin + window[0], origin + window[1]
        if seek:
            self._container.seek(int(start / self.stream.time_base), stream=self.stream)
        for frame in self._decode():
            if frame.time is None or start <= frame.time < end:
                yield frame
            elif frame.time >= end:
                return

    def _decode(self) -> Iterator[av.VideoFrame]:
        """Frames from where the file stands to its end; damage that shows in them or in their packets is refused."""
        packets = frames = 0
        latest: int | None = None
        for packet in self._container.demux(self.stream):
            if self._verify and packet.is_corrupt:
                raise UnreadableMedia("damaged: cut short or overwritten")
            packets += packet.size > 0 and not packet.is_discard
            shown, *others = [decoder.decode(packet) for decoder in self._decoders]
            for frame in shown:
                frames += 1
                if self._verify:
                    self._check(frame, latest)
                latest = frame.pts
                yield frame
            if any(frame.is_corrupt for again in others for frame in again):
                raise UnreadableMedia("damaged: a frame lacks data")
        if self._verify and self._packets_are_frames and frames != packets:
            raise UnreadableMedia(f"damaged: {frames} frames in {packets} packets")

    def _check(self, frame: av.VideoFrame, latest: int | None) -> None:
        if frame.is_corrupt:
            raise UnreadableMedia("damaged: a frame lacks data")
        if self._has_times and latest is not None and (frame.pts is None or frame.pts <= latest):
            raise UnreadableMedia("damaged: times go backwards")


@contextmanager
def open_video(path: Path, verify: bool) -> Iterator[SourceVideo]:
    """Open a video file; raises UnreadableMedia, on leaving too.

    With ``verify``, everything that FFmpeg finds wrong in what was decoded counts: damage that it would go on from, and
    every error that it logs, which is known at the end.
    """
    strict = {"err_detect": STRICT} if verify else {}
    errors: list[Any] = []
    try:
        with ExitStack() as stack:
            if verify:
                errors = stack.enter_context(av.logging.Capture())  # type: ignore[arg-type]  # has no annotations
            options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"} | strict
            container = stack.enter_context(av.open(str(path), metadata_errors="ignore", options=options))
            yield SourceVideo(container, verify)
    except (av.FFmpegError, UnicodeDecodeError, ValueError, OverflowError) as error:
        # ValueError and OverflowError: absurd numbers in headers, as PyAV reports them.
        raise UnreadableMedia(f"does not decode: {one_line(error)}") from error
    if errors:
        raise UnreadableMedia(f"damaged: {errors[0][2].strip()}")


def one_line(error: BaseException) -> str:
    """The first line of an error."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
