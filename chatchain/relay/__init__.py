"""The relay: a mailbox that cannot read, a sponsor that pays, and the limits on both."""
