"""SMS and modems: what travels through a phone network, and the dialogue with a modem. Pure, without any I/O."""
