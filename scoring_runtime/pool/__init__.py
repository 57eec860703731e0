"""The front's side of the scorers: their channels, their processes, and the pool that keeps N of them alive."""
