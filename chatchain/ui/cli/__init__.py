"""The command line, one module a noun. Nothing heavier than typer is loaded until a command runs."""
