"""Connections that more than one part of the gateway uses."""
