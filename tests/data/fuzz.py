"""Mutate videos and shards at random, read them as training does, and say what happened to each.

    python tests/data/fuzz.py OUT.json [videos=1000] [shards=50] [seed=0]

Every frame shows its number, so that a wrong one is seen. ``videos`` are mutated as loose files that the preparation
then verifies and re-encodes (``before the preparation``), and as many with a list of checksums of what they should be
(``before the preparation, with checksums``); as many as they are written to shards unseen, so that only
the decoder of training can notice (``from the source``); and as many once they are in shards (``in the shard``), where
a checksum tells. ``shards`` are mutated as files. A mutant is either listed with a reason, by the preparation or in the
quarantine file, or it still gives the right frames: some bits matter to nobody. Exits with code 1 if one goes missing
without a reason, or gives wrong frames although a checksum could tell. Without one, bits can change so that another
valid video results; how many such, with which codec and how far from the original, the result says: ``wrong`` shows
other numbers, ``altered`` the right ones in pixels that differ by more than ALTERED grey levels on average.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numbered_clips import MEAN, STD, encode_video, read_numbers, write_split
from torch import Tensor

from mmjepa.data.augmentation import EvaluationTransform, Normalise
from mmjepa.data.clips import spread_evenly
from mmjepa.data.evaluation_set import EvaluationSet
from mmjepa.data.manifest import source_commit
from mmjepa.data.quarantine import Quarantine
from mmjepa.data.samples import Sample
from mmjepa.data.sources.listing import ListingConfig, write_listing
from mmjepa.data.video import read_frames

FRAMES, TAKEN, RESOLUTION = 48, 8, 64
ALTERED = 4.0  # re-encoding alone makes less than 1
SIDE = 128  # as many bits a frame as a small real video has; in tinier ones fewer flips are noticed
SOURCES: list[tuple[str, dict]] = [
    ("mp4", {}),
    ("mp4", {"options": {"g": "250"}}),
    ("mp4", {"movflags": "frag_keyframe+empty_moov"}),
    ("mp4", {"codec": "libx265", "options": {"x265-params": "log-level=none"}}),
    ("mkv", {"container": "matroska"}),
    ("webm", {"container": "webm", "codec": "libvpx-vp9", "options": {"cpu-used": "8"}}),
    ("avi", {"container": "avi", "codec": "mpeg4"}),
]
WRONG_CONTAINERS = [
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(200),
    b"PK\x03\x04" + bytes(500),
    b"OggS\0\x02" + bytes(400),
    b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n",
    b"ffconcat version 1.0\nfile /etc/hostname\n",
    b"RIFF\xff\xff\xff\x7fWAVEfmt " + bytes(100),
    b"<html><title>404</title></html>" * 20,
]


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(1, len(data))]


def flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 4, 16, 64, 256])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def overwrite(data: bytes, rng: random.Random) -> bytes:
    start, length = rng.randrange(len(data)), rng.choice([8, 200, 2000])
    filling = rng.choice([bytes(length), rng.randbytes(length), b"\xff" * length])
    return (data[:start] + filling + data[start + length :])[: len(data)]


def remove(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.randrange(1, 1000) :]


def huge_sizes(data: bytes, rng: random.Random) -> bytes:
    """A field of a header, where sizes and counts lie, becomes enormous."""
    names = [b"moov", b"mdat", b"stsz", b"stts", b"stco", b"ctts", b"tkhd", b"stsd", b"elst", b"trun", b"LIST", b"strh"]
    places = [at for name in names if (at := data.find(name)) > 0] or [rng.randrange(len(data) // 4)]
    at = rng.choice(places) + rng.choice([-4, 4, 8, 12, 16])
    return data[:at] + rng.choice([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x10\0\0\0"]) + data[at + 4 :]


MUTATIONS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "cut": cut,
    "flip": flip,
    "overwrite": overwrite,
    "remove": remove,
    "huge sizes": huge_sizes,
    "empty": lambda data, rng: b"",
    "zeros": lambda data, rng: bytes(rng.randrange(1, 5000)),
    "text": lambda data, rng: b"these are not the bytes of a video\n" * rng.randrange(1, 200),
    "wrong container": lambda data, rng: rng.choice(WRONG_CONTAINERS),
}
SHARD_MUTATIONS = ["cut", "flip", "overwrite", "remove", "empty", "zeros", "text"]


class Originals:
    """Videos by number, of every kind in turn; made once each."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._made: dict[int, bytes] = {}
        self._clips: dict[int, Tensor] = {}

    def sample(self, number: int) -> Sample:
        kind = number % self.count
        suffix, options = SOURCES[kind % len(SOURCES)]
        if kind not in self._made:
            self._made[kind] = encode_video(kind, FRAMES, size=(SIDE, SIDE), noise=40, **options)
        return Sample(f"fuzz-{number:05d}", self._made[kind], suffix, {"label": kind})

    def codec(self, number: int) -> str:
        """What wrote the video of this number, and into which kind of file."""
        suffix, options = SOURCES[number % self.count % len(SOURCES)]
        return f"{options.get('codec', 'libx264')} in {suffix}"

    def difference(self, kind: int, clip: Tensor) -> float:
        """Mean absolute difference of a normalised clip to the video of this kind, in grey levels."""
        if kind not in self._clips:
            frames = read_frames(self.sample(kind).media, partial(spread_evenly, frames=TAKEN))
            original = EvaluationTransform(RESOLUTION)(torch.from_numpy(frames.pixels))
            self._clips[kind] = Normalise(tuple(MEAN), tuple(STD))(original)
        apart = (clip - self._clips[kind]).abs().mean((1, 2, 3))
        return float((apart * torch.tensor(STD)).mean() * 255)


def read(split: Path, quarantine: Path, wrong: dict[str, float], originals: Originals) -> dict[str, float]:
    """Read a split with two workers. Returns the keys that gave right frames; adds to ``wrong`` those that did not.

    With each goes how far its pixels are from the original's: mean absolute difference in grey levels (of 255).
    """
    right: dict[str, float] = {}
    data = EvaluationSet(
        [split], frames=TAKEN, resolution=RESOLUTION, mean=MEAN, std=STD, batch=4, workers=2,
        quarantine=Quarantine(quarantine),
    )  # fmt: skip
    for batch in data:
        for key, clip, mask, meta in zip(batch.keys, batch.pixels, batch.frame_mask, batch.metas, strict=True):
            kind, numbers = int(key[-5:]) % originals.count, read_numbers(clip)
            # A file that was cut may be a whole, shorter video.
            count = numbers[-1][1] + 1
            expected = np.minimum(spread_evenly(count, TAKEN), count - 1).tolist()
            good = numbers == [(kind, frame) for frame in expected] and meta["label"] == kind
            good = good and int(mask.sum()) == min(count, TAKEN)
            (right if good else wrong)[f"fuzz-{key[-5:]}"] = originals.difference(kind, clip)
    return right


BEFORE, CHECKED, IN_SHARD = "before the preparation", "before the preparation, with checksums", "in the shard"
WAYS = (BEFORE, CHECKED, "from the source", IN_SHARD)


def fuzz_videos(folder: Path, count: int, rng: random.Random, way: str) -> dict:
    """So many videos damaged in one of the WAYS, every tenth left as it is."""
    originals = Originals(2 * len(SOURCES))
    numbers = range(count * 10 // 9 + 1)
    kinds = {f"fuzz-{n:05d}": rng.choice(list(MUTATIONS)) if n % 10 else "none" for n in numbers}
    samples = [originals.sample(number) for number in numbers]
    mutants = {s.key: MUTATIONS[kinds[s.key]](s.media, rng) for s in samples if kinds[s.key] != "none"}
    changed = [replace(s, media=mutants.get(s.key, s.media)) for s in samples]
    reasons: dict[str, str] = {}
    if way in (BEFORE, CHECKED):
        split = _prepare(folder, changed, reasons, samples if way == CHECKED else None)
    else:
        split = write_split(folder / "videos", samples if way == IN_SHARD else changed, samples_per_shard=100)
    if way == IN_SHARD:
        _overwrite_stored(split, mutants)
    wrong: dict[str, float] = {}
    right = read(split, folder / "videos.jsonl", wrong, originals)
    shutil.rmtree(split)
    reasons |= {f"fuzz-{row['key'][-5:]}": row["reason"] for row in _rows(folder / "videos.jsonl")}
    (folder / "videos.jsonl").unlink(missing_ok=True)
    outcomes: dict[str, Counter] = {kind: Counter() for kind in ["none", *MUTATIONS]}
    for key, kind in kinds.items():
        outcome = "wrong" if key in wrong else "right" if key in right else "listed" if key in reasons else "missing"
        outcomes[kind][outcome] += 1
    total = sum((counts for kind, counts in outcomes.items() if kind != "none"), Counter())
    altered = {key: apart for key, apart in right.items() if apart > ALTERED}
    return {
        "mutants": len(mutants),
        "total": dict(total),
        "outcomes": {kind: dict(counts) for kind, counts in outcomes.items()},
        "wrong": _named(wrong, kinds, originals),
        "altered": _named(altered, kinds, originals),
        "crashes": sum("ended the worker" in reason for reason in reasons.values()),
        "hangs": sum("did not end" in reason or "took more than" in reason for reason in reasons.values()),
        "reasons": dict(Counter(reasons.values()).most_common(40)),
    }


def _named(apart: dict[str, float], kinds: dict[str, str], originals: Originals) -> list[str]:
    return [
        f"{key}: {kinds[key]}, {originals.codec(int(key[-5:]))}, {levels:.1f} levels" for key, levels in apart.items()
    ]


def _prepare(
    folder: Path, samples: Sequence[Sample], reasons: dict[str, str], published: Sequence[Sample] | None
) -> Path:
    """Loose files through data_prep/folder.py's function, with its defaults; what it leaves out goes to ``reasons``.

    ``published``: what the files should be, as a list of checksums says that comes with a download (None: no list).
    """
    raw = folder / "raw"
    raw.mkdir()
    for sample in samples:
        (raw / f"{sample.key}.{sample.suffix}").write_bytes(sample.media)
    rows = [f"{sample.key}.{sample.suffix},{sample.meta['label']:02d}" for sample in samples]
    (raw / "list.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    split = folder / "prepared"
    sums = None
    if published is not None:
        sums = raw / "sha256.txt"
        sums.write_text("".join(f"{hashlib.sha256(s.media).hexdigest()}  {s.key}.{s.suffix}\n" for s in published))
    listing = ListingConfig(raw=str(raw / "list.csv"), out=str(split), missing="skip")
    write_listing(replace(listing, checksums=None if sums is None else str(sums)))
    reasons |= {Path(row["file"]).stem: row["reason"] for row in _rows(split / "left-out.jsonl")}
    shutil.rmtree(raw)
    return split


def _overwrite_stored(split: Path, mutants: dict[str, bytes]) -> None:
    """Put mutants, cut or filled up to the length of what was there, into the shards in place of the originals."""
    for shard in sorted(split.glob("*.tar")):
        with tarfile.open(shard) as archive:
            members = [(m.name.partition(".")[0], m.offset_data, m.size) for m in archive if "json" not in m.name]
        with shard.open("r+b") as file:
            for key, offset, size in members:
                if key in mutants:
                    file.seek(offset)
                    file.write(mutants[key][:size].ljust(size, b"\0"))


def fuzz_shards(folder: Path, count: int, rng: random.Random) -> dict:
    """Splits of one shard whose file is mutated, beside a healthy one."""
    originals, samples = Originals(2 * len(SOURCES)), 10
    pristine = write_split(folder / "pristine", map(originals.sample, range(2 * samples)), samples_per_shard=samples)
    outcomes: Counter = Counter()
    wrong: list[str] = []
    unexplained: list[str] = []
    for number in range(count):
        kind = SHARD_MUTATIONS[number % len(SHARD_MUTATIONS)]
        split = folder / f"shard-{number}"
        shutil.copytree(pristine, split)
        shard = split / "shard-000000.tar"
        shard.write_bytes(MUTATIONS[kind](shard.read_bytes(), rng))
        here: dict[str, float] = {}
        right = read(split, folder / f"shard-{number}.jsonl", here, originals)
        rows = _rows(folder / f"shard-{number}.jsonl")
        lost = 2 * samples - len(right) - len(here)
        if not {f"fuzz-{n:05d}" for n in range(samples, 2 * samples)} <= right.keys() or (lost and not rows):
            unexplained.append(f"{number} ({kind})")
        wrong += [f"{key} of {number} ({kind})" for key in here]
        outcomes["listed" if rows else "right"] += 1
        outcomes["samples lost"] += lost
        shutil.rmtree(split)
    return {"shards": count, "outcomes": dict(outcomes), "wrong": wrong, "unexplained": unexplained}


def _rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def fuzz(videos: int, shards: int, seed: int = 0) -> dict:
    """Outcomes of so many mutated videos and shards; see the module."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        rng = random.Random(seed)
        found = {
            **{f"videos damaged {way}": fuzz_videos(Path(folder), videos, rng, way) for way in WAYS},
            "shards": fuzz_shards(Path(folder), shards, rng),
        }
    return found | {"seconds": round(time.monotonic() - began)}


def faults(found: dict) -> list[str]:
    """What must not happen; see the module."""
    shards = found["shards"]
    bad = shards["wrong"] + shards["unexplained"]
    for way in (CHECKED, IN_SHARD):  # a checksum tells
        bad += [f"{way}: {what}" for kind in ("wrong", "altered") for what in found[f"videos damaged {way}"][kind]]
    for name in (f"videos damaged {way}" for way in WAYS):
        outcomes = found[name]["outcomes"]
        bad += [f"{name}: {kind} missing" for kind, counts in outcomes.items() if "missing" in counts]
        bad += [f"{name}: undamaged, but {outcome}" for outcome in outcomes["none"].keys() - {"right"}]
    return bad


if __name__ == "__main__":
    sizes = {"videos": 1000, "shards": 50, "seed": 0} | {
        name: int(value) for name, value in (word.split("=") for word in sys.argv[2:])
    }
    result = fuzz(**sizes) | {"command": f"python {' '.join(sys.argv)}", "commit": source_commit()}
    Path(sys.argv[1]).write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    sys.exit(bool(faults(result)))
