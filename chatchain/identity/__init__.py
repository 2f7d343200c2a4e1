"""Who somebody is on the chain: names and ids, addresses, the digests that accounts and devices sign,
records, login.

Pure: no sockets, files or clocks. Both the relay and the client rely on it; it holds nothing that could
decrypt.
"""
