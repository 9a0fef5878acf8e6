"""What is stored of a media file: frames, times and orientation; any frame is cheap to reach; damage is named."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import decord
import numpy as np
import pytest
from layouts import put, tiny_image, tiny_video
from numbered_clips import draw_frame
from PIL import Image

from mmjepa.data.preparation.media import store_still, store_video
from mmjepa.data.preparation.options import StillEncoding, VideoEncoding
from mmjepa.data.preparation.source_video import UnreadableMedia

IDENTITY = b"".join(number.to_bytes(4, "big") for number in (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30))
TURNED = b"".join(number.to_bytes(4, "big", signed=True) for number in (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30))


def numbered(path: Path, codec: str, times: list[int], options: dict[str, str] | None = None, clock: int = 100) -> Path:
    """A video whose frame k (stripes of its number, 64 x 64) is shown at ``times[k]`` ticks of 1 / ``clock`` s."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, clock)
        stream.options = options or {}
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(draw_frame(7, number), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, clock)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def look(stored: tuple[str, bytes], tmp_path: Path) -> tuple[list[int], list[float], np.ndarray]:
    """(frame numbers as drawn, times in seconds, pixels) of a stored video, as decord reads it, backwards."""
    suffix, data = stored
    reader = decord.VideoReader(str(put(tmp_path / f"stored.{suffix}", data)))
    order = np.arange(len(reader))[::-1]
    pixels = reader.get_batch(order).asnumpy()[::-1]
    times = [float(reader.get_frame_timestamp(index)[0]) for index in range(len(reader))]
    cells = pixels.mean(-1).reshape(len(reader), 2, 32, 8, 8).mean((2, 4))[:, 1] > 128
    return [int(row @ (1 << np.arange(8))) for row in cells], times, pixels


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("long.mp4", "libx264", {"g": "250", "bf": "3"}),
        ("open.mp4", "libx264", {"x264-params": "open-gop=1:keyint=12:bframes=3"}),
        ("divx.avi", "mpeg4", {"bf": "2"}),
        ("vp9.webm", "libvpx-vp9", {"cpu-used": "8", "deadline": "realtime"}),
    ],
)
def test_every_frame_is_kept_and_found_at_its_place(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    source = numbered(tmp_path / name, codec, list(range(30)), options, clock=25)
    numbers, times, _ = look(store_video(source, None, VideoEncoding()), tmp_path)
    assert numbers == list(range(30))
    assert times == pytest.approx([0.04 * k for k in range(30)], abs=0.002)


def test_uneven_times_stay_uneven(tmp_path: Path) -> None:
    shown = [0, 4, 8, 40, 41, 90, 94]
    source = numbered(tmp_path / "uneven.mp4", "libx264", shown)
    numbers, times, _ = look(store_video(source, None, VideoEncoding()), tmp_path)
    assert numbers == list(range(7))
    assert times == pytest.approx([time / 100 for time in shown], abs=0.002)


def test_key_frames_are_near_and_nothing_refers_backwards(tmp_path: Path) -> None:
    source = numbered(tmp_path / "long.mp4", "libx264", [4 * k for k in range(30)], {"g": "250", "bf": "3"})
    _, data = store_video(source, None, VideoEncoding(gop=6))
    with av.open(io.BytesIO(data)) as file:
        packets = [packet for packet in file.demux(video=0) if packet.size]
    assert [number for number, packet in enumerate(packets) if packet.is_keyframe] == [0, 6, 12, 18, 24]
    assert all(packet.pts == packet.dts for packet in packets)


def test_the_same_file_gives_the_same_bytes(tmp_path: Path) -> None:
    source = put(tmp_path / "a.avi", tiny_video(3, "avi"))
    assert store_video(source, None, VideoEncoding()) == store_video(source, None, VideoEncoding())


def test_a_part_is_cut_at_its_seconds(tmp_path: Path) -> None:
    source = numbered(tmp_path / "whole.mp4", "libx264", [4 * k for k in range(100)], {"g": "40"})
    numbers, times, _ = look(store_video(source, (1.0, 2.0), VideoEncoding()), tmp_path)
    assert numbers == list(range(25, 50))
    assert times[0] == 0


@pytest.mark.parametrize(
    ("size", "short_side", "stored"),
    [((128, 96), 48, (64, 48)), ((96, 128), 48, (48, 64)), ((64, 48), 256, (64, 48)), ((128, 96), None, (128, 96))],
)
def test_the_short_side_is_shrunk_and_never_enlarged(
    tmp_path: Path, size: tuple[int, int], short_side: int | None, stored: tuple[int, int]
) -> None:
    source = put(tmp_path / "a.mp4", tiny_video(0, size=size))
    _, data = store_video(source, None, VideoEncoding(short_side=short_side))
    with av.open(io.BytesIO(data)) as file:
        assert (file.streams.video[0].width, file.streams.video[0].height) == stored


def test_a_turned_video_is_stored_upright(tmp_path: Path) -> None:
    """As decord shows the original, which turns it as the container says."""
    plain = tiny_video(3, size=(96, 64))
    assert plain.count(IDENTITY) == 2  # of the movie, then of the track
    first, head, track = plain.partition(IDENTITY)
    source = put(tmp_path / "turned.mp4", first + head + track.replace(IDENTITY, TURNED))
    original = decord.VideoReader(str(source)).get_batch([12]).asnumpy()[0]
    suffix, data = store_video(source, None, VideoEncoding(crf=5))
    stored = decord.VideoReader(str(put(tmp_path / f"stored.{suffix}", data))).get_batch([12]).asnumpy()[0]
    assert stored.shape == original.shape == (96, 64, 3)
    assert np.abs(stored.astype(int) - original).mean() < 5


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("text.mp4", b"not a video" * 50, "does not decode"),
        ("empty.avi", b"", "does not decode"),
        ("cut.mp4", tiny_video(1)[:400], "does not decode"),
        ("cut.avi", tiny_video(1, "avi")[:60], "does not decode|no video|no frame"),
    ],
)
def test_damage_is_named(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    for encoding in (VideoEncoding(), VideoEncoding(mode="copy")):
        with pytest.raises(UnreadableMedia, match=reason) as caught:
            store_video(put(tmp_path / name, data), None, encoding)
        assert "\n" not in str(caught.value)


def test_copies_are_the_same_bytes_and_only_of_known_containers(tmp_path: Path) -> None:
    copy = VideoEncoding(mode="copy")
    assert store_video(put(tmp_path / "a.WEBM", tiny_video(1, "webm")), None, copy) == ("webm", tiny_video(1, "webm"))
    with pytest.raises(UnreadableMedia, match=r"\.avi cannot be copied"):
        store_video(put(tmp_path / "a.avi", tiny_video(1, "avi")), None, copy)
    with pytest.raises(UnreadableMedia, match="part of a longer file"):
        store_video(put(tmp_path / "a.mp4", tiny_video(1)), (0.0, 1.0), copy)


def test_stills() -> None:
    assert store_still(tiny_image(4), StillEncoding()) == ("jpg", tiny_image(4))
    assert store_still(tiny_image(4, "PNG"), StillEncoding()) == ("png", tiny_image(4, "PNG"))
    suffix, data = store_still(tiny_image(4, "PNG"), StillEncoding("jpeg", short_side=20))
    with Image.open(io.BytesIO(data)) as image:
        assert (suffix, image.format, image.size) == ("jpg", "JPEG", (28, 20))
    for data, reason in ((b"GIF", "not an image"), (tiny_image(4)[:200], "does not decode"), (b"", "not an image")):
        with pytest.raises(UnreadableMedia, match=reason):
            store_still(data, StillEncoding())
    with pytest.raises(UnreadableMedia, match="GIF cannot be copied"):
        store_still(tiny_image(4, "GIF"), StillEncoding())
