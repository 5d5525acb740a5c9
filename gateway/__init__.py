"""The gateway between one-key terminals and the people who help."""

__version__ = "0.1.0"
