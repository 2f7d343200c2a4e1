"""The databases: the relay's tables and the client's encrypted file."""
