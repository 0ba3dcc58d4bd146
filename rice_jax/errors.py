"""The one exception that a user can cause and read."""


class UserError(Exception):
    """Something the user can mend: its text says what is wrong, where, and what to do.

    Commands print it as one line and end with exit status 1, without a traceback.
    """
