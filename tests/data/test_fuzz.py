"""A short run of the fuzzing program; the long one is `python tests/data/fuzz.py results/fuzz_data.json`."""

from __future__ import annotations

import pytest
from fuzz import faults, fuzz


@pytest.mark.slow
def test_mutated_videos_and_shards_do_no_harm() -> None:
    found = fuzz(videos=60, shards=6)
    assert faults(found) == []
    for way in ("in the shard", "before the preparation, with checksums"):
        assert found[f"videos damaged {way}"]["total"] == {"listed": 60}
    for way, wrong in (("from the source", 6), ("before the preparation", 4)):  # 31 and 15 of 1,000 in the long run
        source = found[f"videos damaged {way}"]
        assert source["crashes"] == source["hangs"] == 0
        assert source["total"].get("wrong", 0) <= wrong
