"""The chain as this program sees it: typed calls, a pure fold of events, and the sync that feeds it."""
