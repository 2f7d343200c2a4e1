"""The relay: its pure rooms by themselves, the whole as a process between a real chain and a real
database.
"""
