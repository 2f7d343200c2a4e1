"""Who somebody is: ids, names, device records and the digests that accounts and devices sign. Pure."""
