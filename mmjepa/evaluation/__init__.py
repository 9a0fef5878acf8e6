"""Measuring: frame dropout, retrieval metrics, robustness, statistics, and probes on frozen features."""
