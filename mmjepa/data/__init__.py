"""Samples, shards, decoding, clips, order and streams; the embedded benchmark."""
