"""Media files to what a shard stores: videos through PyAV, stills through Pillow. What does not decode is refused."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.frame import PictureType
from PIL import Image, ImageOps, UnidentifiedImageError

from mmjepa.data.h264 import x264_options
from mmjepa.data.preparation.options import StillEncoding, VideoEncoding

Window = tuple[float, float] | None

COPIED_VIDEOS = ("mp4", "webm")
COPIED_STILLS = {"JPEG": "jpg", "PNG": "png"}
_NOMINAL_RATE = Fraction(25)  # of videos that do not say


class UnreadableMedia(Exception):
    """A media file that cannot be stored. The message is the reason."""


def store_video(path: Path, window: Window, encoding: VideoEncoding) -> tuple[str, bytes]:
    """(suffix, bytes) of the video as a shard stores it, without sound. Raises UnreadableMedia.

    ``window`` (start, end) in seconds takes a part of the file. Copied files are looked at (one frame must decode);
    only re-encoding decodes every frame.
    """
    try:
        with av.open(str(path), metadata_errors="ignore") as source:
            if not source.streams.video:
                raise UnreadableMedia("no video in the file")
            stream = source.streams.video[0]
            stream.thread_type, stream.codec_context.thread_count = "NONE", 1  # work is parallel over videos
            if encoding.mode == "h264":
                return "mp4", _encode(stream, _frames(source, stream, window), encoding)
            if next(_frames(source, stream, None), None) is None:
                raise UnreadableMedia("no frame decodes")
    except (av.FFmpegError, UnicodeDecodeError) as error:
        raise UnreadableMedia(f"does not decode: {_one_line(error)}") from error
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in COPIED_VIDEOS:
        raise UnreadableMedia(f".{suffix} cannot be copied: shards hold .mp4 and .webm, use video.mode=h264")
    if window is not None:
        raise UnreadableMedia("a part of a longer file cannot be copied, use video.mode=h264")
    return suffix, path.read_bytes()


def _frames(source: av.container.InputContainer, stream: av.VideoStream, window: Window) -> Iterator[av.VideoFrame]:
    """Decoded frames of the window, in the order of presentation."""
    if window is None or stream.time_base is None:
        yield from source.decode(stream)
        return
    origin = float((stream.start_time or 0) * stream.time_base)
    start, end = origin + window[0], origin + window[1]
    source.seek(int(start / stream.time_base), stream=stream)
    for frame in source.decode(stream):
        if frame.time is None or start <= frame.time < end:
            yield frame
        elif frame.time >= end:
            return


def _encode(stream: av.VideoStream, frames: Iterator[av.VideoFrame], encoding: VideoEncoding) -> bytes:
    """An MP4 of the frames, upright, with their own distances in time; it starts at time 0."""
    rate = stream.average_rate or stream.guessed_rate or _NOMINAL_RATE
    time_base = stream.time_base or 1 / rate
    step = max(1, round(1 / rate / time_base))
    buffer = io.BytesIO()
    first = last = None
    # "bitexact" keeps library versions out of the container.
    with av.open(buffer, mode="w", format="mp4", options={"fflags": "+bitexact"}) as file:
        output: av.VideoStream | None = None
        size = (0, 0)
        for frame in frames:
            if output is None:
                size = _target_size(frame.width, frame.height, encoding.short_side)
            picture = _upright(frame, size)
            if output is None:
                output = file.add_stream("libx264", rate=rate)
                output.width, output.height, output.pix_fmt = picture.width, picture.height, "yuv420p"
                output.codec_context.time_base = time_base
                output.options = x264_options(encoding.crf, encoding.gop)
            if first is None:
                first = frame.pts or 0
            pts = None if frame.pts is None else frame.pts - first
            # Players of raw streams (AVI) leave times out or repeat them: such frames follow at the nominal rate.
            pts = pts if last is None or (pts is not None and pts > last) else last + step
            last = pts = pts or 0
            picture.pts, picture.time_base, picture.pict_type = pts, time_base, PictureType.NONE
            file.mux(output.encode(picture))
        if output is None:
            raise UnreadableMedia("no frame decodes")
        file.mux(output.encode())
    return buffer.getvalue()


def _target_size(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    """Width and height with the shorter one at most ``short_side``, both even, as 4:2:0 chroma needs."""
    scale = min(1.0, short_side / min(width, height)) if short_side else 1.0
    return max(2, 2 * round(width * scale / 2)), max(2, 2 * round(height * scale / 2))


def _upright(frame: av.VideoFrame, size: tuple[int, int]) -> av.VideoFrame:
    """The frame at ``size`` (before turning) in 4:2:0, turned as its container says: readers disagree on who does."""
    turns = round(frame.rotation / 90) % 4
    if turns == 0:
        return frame.reformat(*size, format="yuv420p", interpolation="BICUBIC")
    pixels = frame.reformat(*size, format="rgb24", interpolation="BICUBIC").to_ndarray()
    turned = np.ascontiguousarray(np.rot90(pixels, turns), dtype=np.uint8)
    return av.VideoFrame.from_ndarray(turned, format="rgb24").reformat(format="yuv420p")


def store_still(data: bytes, encoding: StillEncoding) -> tuple[str, bytes]:
    """(suffix, bytes) of a picture as a shard stores it. Raises UnreadableMedia if it does not decode."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            if encoding.mode == "copy":
                if image.format not in COPIED_STILLS:
                    raise UnreadableMedia(f"{image.format} cannot be copied: use still.mode=jpeg")
                return COPIED_STILLS[image.format], data
            upright = ImageOps.exif_transpose(image).convert("RGB")
            if encoding.short_side is not None and min(upright.size) > encoding.short_side:
                scale = encoding.short_side / min(upright.size)
                upright = upright.resize(
                    (round(upright.width * scale), round(upright.height * scale)), Image.Resampling.BICUBIC
                )
            buffer = io.BytesIO()
            upright.save(buffer, format="JPEG", quality=encoding.quality)
            return "jpg", buffer.getvalue()
    except UnidentifiedImageError as error:
        raise UnreadableMedia("not an image") from error
    # All else that Pillow raises on damaged files: it has no common base class for them.
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        raise UnreadableMedia(f"does not decode: {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
