"""Home Assistant with a virtual KLEFR meter: to look at, or to check that all of it works."""


class DemoError(Exception):
    """What went wrong, in words for the person who started the demo."""
