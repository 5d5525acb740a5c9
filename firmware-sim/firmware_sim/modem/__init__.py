"""A GSM modem that is none, with a small phone network behind it: what the gateway's modem driver is tested with.

``device`` is the modem itself, bytes in and bytes out; ``network`` the service centre, the phones and their habits;
``personas`` what modules of different makers say; ``ports`` the ways by which software reaches it.
"""
