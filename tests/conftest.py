"""Options and settings common to all tests."""

from __future__ import annotations

import os

import pytest

# One thread: sums over several are not the same bits twice, and continued runs are compared bit for bit.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden", help="folder of golden files to check instead of the committed ones", default=None)
