"""The engine on Renode."""
