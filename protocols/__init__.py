"""Wire formats of terminals: bytes in, values out. No I/O, no clock, no logging."""
