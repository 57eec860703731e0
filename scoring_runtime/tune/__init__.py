"""`scoring-runtime tune`: finds the settings under which a model answers most requests within a limit, and proves it."""
