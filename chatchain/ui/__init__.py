"""What a person sees: the command line. It knows the client core and nothing beneath it."""
