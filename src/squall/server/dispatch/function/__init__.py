"""One function: its queue, its inputs and attempts, and who gets what."""
