"""Errors that are the user's to mend: tools print them without a traceback."""


class UserError(Exception):
    """Its text says what is wrong, where (file, line, case, path), and what to do."""
