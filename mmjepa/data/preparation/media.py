"""Media files to what a shard stores: videos through PyAV, stills through Pillow. What does not decode is refused."""

from __future__ import annotations

import io
import struct
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.frame import PictureType
from PIL import Image, ImageOps, UnidentifiedImageError

from mmjepa.data.h264 import x264_options
from mmjepa.data.preparation.options import StillEncoding, VideoEncoding
from mmjepa.data.preparation.source_video import UnreadableMedia, Window, one_line, open_video

COPIED_VIDEOS = ("mp4", "webm")
COPIED_STILLS = {"JPEG": "jpg", "PNG": "png"}
_NOMINAL_RATE = Fraction(25)  # of videos that do not say


def store_video(path: Path, window: Window, encoding: VideoEncoding) -> tuple[str, bytes]:
    """(suffix, bytes) of the video as a shard stores it, without sound. Raises UnreadableMedia.

    ``window`` (start, end) in seconds takes a part of the file. With ``encoding.verify`` all frames that are stored are
    decoded and damage is refused; without it, re-encoding takes what FFmpeg makes of the file, and copying only looks
    whether one frame decodes.
    """
    try:
        return _store_video(path, window, encoding, seek=True)
    except UnreadableMedia:
        if window is None or not encoding.verify:
            raise
        # Whole H.264 files may complain when decoding begins at a key frame that frames before it reach beyond.
        return _store_video(path, window, encoding, seek=False)


def _store_video(path: Path, window: Window, encoding: VideoEncoding, seek: bool) -> tuple[str, bytes]:
    with open_video(path, encoding.verify) as source:
        frames = source.frames(window, seek)
        if encoding.mode == "h264":
            return "mp4", _encode(source.stream, frames, encoding)
        if next(frames, None) is None:
            raise UnreadableMedia("no frame decodes")
        if encoding.verify:
            deque(frames, maxlen=0)
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in COPIED_VIDEOS:
        raise UnreadableMedia(f".{suffix} cannot be copied: shards hold .mp4 and .webm, use video.mode=h264")
    if window is not None:
        raise UnreadableMedia("a part of a longer file cannot be copied, use video.mode=h264")
    return suffix, path.read_bytes()


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
        raise UnreadableMedia(f"does not decode: {one_line(error)}") from error
