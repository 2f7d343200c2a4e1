"""The two programs: each reads its configuration, builds the edges and runs."""
