"""Reports of our own terminals by SMS: a text that people can type, and a compact form of octets."""

from protocols.oks.report import DATUMS, KINDS, SOURCES, Place, SmsReport

__all__ = ["DATUMS", "KINDS", "SOURCES", "Place", "SmsReport"]
