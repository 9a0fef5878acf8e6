"""Chosen frames of one video file through decord, and through PyAV where decord fails or does not fit the file.

decord counts frames from where a seek lands. So it reads only files in which it can count
(:func:`mmjepa.data.video.list_frames`), and what it returns must fit what the file lists. Damage that it conceals stays
concealed.
"""

from __future__ import annotations

import functools
import logging
import os
import tempfile
from collections.abc import Callable

import numpy as np

from mmjepa.data import video
from mmjepa.data.video import DecodedFrames, Listing

log = logging.getLogger(__name__)

_TIME_TOLERANCE = 2e-3  # s: containers round to ms, decord to float32
_MEMORY = "/dev/shm"


class _Unfit(Exception):
    """What decord returns is not what the file lists."""


def read_frames(data: bytes, choose: Callable[[int], np.ndarray]) -> DecodedFrames:
    """As :func:`mmjepa.data.video.read_frames`, which reads what decord does not; its errors are this one's."""
    import decord  # not with the library: its codecs must come after PyAV's

    choose = functools.cache(choose)  # it may draw at random: PyAV is to give the frames that decord did not
    listing = video.list_frames(data)
    if listing is not None:
        try:
            return _read(data, choose, listing)
        except (_Unfit, decord.DECORDError, RuntimeError) as error:  # decord raises both of the latter
            log.debug("read by PyAV, since decord: %s", str(error).strip().split("\n", maxsplit=1)[0])
    return video.read_frames(data, choose)


def _read(data: bytes, choose: Callable[[int], np.ndarray], listing: Listing) -> DecodedFrames:
    import decord

    # By path: from memory decord crashes on some damaged files. The file has no name that could stay behind.
    with tempfile.TemporaryFile(dir=_MEMORY if os.path.isdir(_MEMORY) else None) as file:
        file.write(data)
        file.seek(0)
        reader = decord.VideoReader(f"/dev/fd/{file.fileno()}", ctx=decord.cpu(0), num_threads=1)
        if len(reader) != len(listing.seconds):
            raise _Unfit(f"{len(reader)} frames of {len(listing.seconds)}")
        times = reader.get_frame_timestamp(range(len(reader)))[:, 0]
        if not np.allclose(times - times[0], listing.seconds, rtol=1e-6, atol=_TIME_TOLERANCE):
            raise _Unfit("other times")
        wanted = choose(len(reader))
        indices, inverse = np.unique(wanted, return_inverse=True)
        pixels = reader.get_batch(indices).asnumpy()
    if len(pixels) != len(indices) or sorted(pixels.shape[1:3]) != sorted(listing.size):
        raise _Unfit(f"pixels of shape {pixels.shape}")
    return DecodedFrames(pixels, listing.seconds[indices], inverse.reshape(wanted.shape))
