"""Request bodies to arrays, arrays to reply bodies."""
