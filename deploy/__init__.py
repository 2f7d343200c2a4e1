"""Programs that set chatchain up: the tools they need, the contracts, a development network."""
