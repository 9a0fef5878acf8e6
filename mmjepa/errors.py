"""The one exception that programs turn into a single line and exit code 2."""


class UserError(Exception):
    """Something the user asked for cannot be done. The message is one clear line that says what and how to mend it."""
