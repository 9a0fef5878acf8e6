"""What the preparation refuses: damage that can be told, files that end or hang the decoder, other checksums."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numbered_clips import encode_video

from mmjepa.data.preparation import work
from mmjepa.data.preparation.media import store_video
from mmjepa.data.preparation.options import VideoEncoding
from mmjepa.data.preparation.source_video import UnreadableMedia
from mmjepa.data.samples import UnusableSample
from mmjepa.data.shards import ShardedSplit
from mmjepa.data.sources.listing import ListingConfig, write_listing
from mmjepa.data.video import read_frames
from mmjepa.errors import UserError

OPEN_GOP = {"options": {"x264-params": "open-gop=1:keyint=12:min-keyint=12:bframes=3:b-pyramid=normal"}}
VP9 = {"codec": "libvpx-vp9", "container": "webm", "options": {"cpu-used": "8", "auto-alt-ref": "1"}}
WHOLE: dict[str, dict] = {
    "h264": {},
    "h264-open-gop": OPEN_GOP,
    "h264-fragmented": {"movflags": "frag_keyframe+empty_moov"},
    "h264-edit-list": {"skip": 7},
    "h264-avi": {"container": "avi"},
    "hevc-open-gop": {"codec": "libx265", "options": {"x265-params": "open-gop=1:keyint=12:bframes=3:log-level=none"}},
    "vp8": {"codec": "libvpx", "container": "webm", "options": {"cpu-used": "8", "auto-alt-ref": "1"}},
    "vp9": VP9,
    "av1": {"codec": "libsvtav1", "options": {"preset": "11", "svtav1-params": "lookahead=0"}},
    "mpeg4-avi": {"codec": "mpeg4", "container": "avi", "options": {"bf": "2"}},
    "mpeg2-ps": {"codec": "mpeg2video", "container": "mpeg", "fps": 25},
}


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("window", [None, (0.5, 1.5)])
def test_whole_videos_pass_and_are_stored_alike(name: str, window: tuple[float, float] | None, tmp_path: Path) -> None:
    path = tmp_path / "video"
    path.write_bytes(encode_video(77, 40, **WHOLE[name]))
    assert store_video(path, window, VideoEncoding()) == store_video(path, window, VideoEncoding(verify=False))


def test_flipped_bits_of_vp9_are_found(tmp_path: Path) -> None:
    """FFmpeg's own decoder, which reads the shards, makes other pixels of many of them without a complaint."""
    whole = encode_video(77, 12, **VP9, size=(128, 128), noise=40)
    path, rng, unseen = tmp_path / "a.webm", np.random.default_rng(0), 0
    for at in rng.integers(len(whole) // 4, len(whole) * 3 // 4, 30):
        data = whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :]
        path.write_bytes(data)
        try:
            pixels = read_frames(data, np.arange).pixels
        except UnusableSample:
            continue
        if not np.array_equal(pixels, read_frames(whole, np.arange).pixels):
            unseen += 1
            with pytest.raises(UnreadableMedia):
                store_video(path, None, VideoEncoding())
    assert unseen >= 5


@pytest.mark.parametrize("mode", ["h264", "copy"])
def test_damage_behind_the_first_frame_is_found_only_where_it_is_looked_for(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    data = bytearray(encode_video(77, 12, size=(128, 128), noise=40))
    half, quarter = len(data) // 2, len(data) // 4
    data[half : half + quarter] = bytes(quarter)
    path.write_bytes(data)
    with pytest.raises(UnreadableMedia):
        store_video(path, None, VideoEncoding(mode=mode))
    if mode == "copy":
        assert store_video(path, None, VideoEncoding(mode=mode, verify=False)) == ("mp4", bytes(data))


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """A folder of three videos, good/{0,1,2}.mp4."""
    for number in range(3):
        path = tmp_path / "raw" / "good" / f"{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_video(number, frames=8))
    return tmp_path / "raw"


def prepare(raw: Path, **settings: object) -> tuple[list[str], dict[str, str]]:
    """Files that came into the shards, and reasons by file of those that did not."""
    out = raw.parent / "split"
    write_listing(ListingConfig(raw=str(raw), out=str(out), missing="skip", **settings))  # type: ignore[arg-type]
    split = ShardedSplit(out)
    rows = [json.loads(line) for line in (out / "left-out.jsonl").read_text().splitlines()]
    files = [split.meta(index)["file"] for index in range(len(split))]
    return sorted(files), {row["file"]: row["reason"] for row in rows}


@pytest.mark.parametrize(
    ("happens", "reason"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), "decoding ended the worker process (SIGSEGV)"),
        (partial(time.sleep, 600), "decoding did not end within 2 s"),
    ],
)
def test_a_file_that_ends_or_hangs_the_decoder_is_left_out(
    three: Path, monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object], reason: str
) -> None:
    def troubled(path: Path, *rest: object) -> object:
        if path.name == "1.mp4":
            happens()
        return store_video(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(work, "store_video", troubled)
    assert prepare(three, timeout=2.0) == (["0.mp4", "2.mp4"], {"good/1.mp4": reason})


def test_files_that_differ_from_their_checksums_are_left_out(three: Path) -> None:
    sums = three / "SHA256SUMS"
    paths = sorted(three.glob("*/*.mp4"))
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(three)}" for path in paths]
    sums.write_text("\n".join(lines))
    paths[1].write_bytes(encode_video(9, frames=8))
    assert prepare(three, checksums=str(sums)) == (["0.mp4", "2.mp4"], {"good/1.mp4": "differs from its checksum"})


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "has no line for 3 files, e.g. .*/good/..mp4"), ("not a sum  0.mp4", "'not a sum  0.mp4' is no line of")],
)
def test_lists_of_checksums_that_cannot_serve_are_refused(three: Path, text: str, message: str) -> None:
    (three / "SHA256SUMS").write_text(text)
    with pytest.raises(UserError, match=message):
        prepare(three, checksums=str(three / "SHA256SUMS"))


def test_a_timeout_of_nothing_is_refused(three: Path) -> None:
    with pytest.raises(UserError, match="timeout=0"):
        prepare(three, timeout=0.0)
