"""The one exception of our own: something is wrong with the user's set-up or files, and the message says what to do."""


class Error(Exception):
    """A problem the user can mend, told in a sentence: a missing framework, an unreadable checkpoint, a bad data folder."""
