"""What can go wrong while reading a wire format."""

__all__ = ["FrameError", "LocalProtocolError", "ProtocolError"]


class ProtocolError(Exception):
    """Base of everything a codec raises."""


class FrameError(ProtocolError):
    """The peer sent bytes that are not a frame of this dialect."""


class LocalProtocolError(ProtocolError):
    """We asked a codec for something the dialect cannot say."""
