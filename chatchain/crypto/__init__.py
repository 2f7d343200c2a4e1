"""End-to-end encryption and what a password opens, from published specifications. Synchronous and pure."""
