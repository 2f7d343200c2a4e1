"""Processes killed and databases taken away at the worst moment. `make faults` runs them at full count."""
