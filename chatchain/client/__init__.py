"""The client without a face: one user's home, session, outbox, contacts and votes. Every interface is a
window on it.
"""
