"""One module for each command; its `main(args, prog=...)` does the work."""
