"""The one exception that programs turn into a single line and exit code 2."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNWRITABLE = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO),
        *(errno.EROFS, errno.EACCES, errno.EPERM, errno.EEXIST, errno.ENOTDIR, errno.ENOENT),
    }
)
"""What a full or damaged disk, and a path that is not ours, answer to a write."""


class UserError(Exception):
    """Something the user asked for cannot be done. The message is one clear line that says what and how to mend it.

    ``first``: among several ranks, whether this one was the first to raise one, and so is the one to print it; None
    before the ranks have joined, when all raise the same.
    """

    first: bool | None = None


@contextmanager
def making(setting: str, folder: Path | str) -> Iterator[None]:
    """Within, a disk that is full or must not be written ends in one line that names the ``setting`` to change."""
    try:
        yield
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        where = f" ({error.filename})" if error.filename else ""
        raise UserError(f"cannot make {setting}={folder}: {error.strerror}{where}") from error
