"""The chat page, served on this machine only."""
