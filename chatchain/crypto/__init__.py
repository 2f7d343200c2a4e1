"""End-to-end encryption and the secrets of one home, on published specifications.

Pure and synchronous: bytes in, bytes out; randomness comes from the operating system. The relay never imports
this room.
"""
