"""The sealed front: HTTP in, frames out. It runs nothing and imports nothing that a user brought."""
