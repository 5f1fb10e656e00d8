"""Velt Permission Relay: identity provider events in, Velt permission removals out, with the evidence."""

__version__ = "0.1.0"
