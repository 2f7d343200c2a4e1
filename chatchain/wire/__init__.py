"""What travels between client and relay: frames, messages, and the sans-io connection."""
