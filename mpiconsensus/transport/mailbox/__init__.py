"""Mailboxes: rows that their vertices publish and others read when they like."""

from mpiconsensus.transport.mailbox.base import Letter, Mailbox

__all__ = ["Letter", "Mailbox"]
