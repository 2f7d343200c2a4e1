"""A client of its own, written from docs/protocol.md alone: it imports nothing of chatchain."""
