"""The commands of ``onekey``. Each is imported when it is asked for (`gateway.cli`)."""
