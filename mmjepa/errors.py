"""The one exception that programs turn into a single line and exit code 2."""


class UserError(Exception):
    """Something the user asked for cannot be done. The message is one clear line that says what and how to mend it.

    ``first``: among several ranks, whether this one was the first to raise one, and so is the one to print it; None
    before the ranks have joined, when all raise the same.
    """

    first: bool | None = None
