"""A GSM modem that is none, with a small phone network behind it: what the gateway's modem driver is tested with.

``device`` is the modem itself and ``line`` how it talks, bytes in and bytes out; ``faults`` what may be wrong with it;
``network`` the service centre, the phones and their habits; ``personas`` what modules of different makers say;
``ports`` the ways by which software reaches it.
"""
