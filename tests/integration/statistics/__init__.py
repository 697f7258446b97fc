"""Statistics with the real recorder, in virtual time."""
