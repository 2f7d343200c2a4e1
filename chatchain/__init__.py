"""A private messenger for groups that govern themselves."""

__version__ = "0.1.0"
