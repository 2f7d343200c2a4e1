"""The menu: everything that a newcomer needs, in plain words, one question at a time."""
