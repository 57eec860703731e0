"""What runs next, and with whom: pure decisions over tickets, no I/O and no clock of its own."""
