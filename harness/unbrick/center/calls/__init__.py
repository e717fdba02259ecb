"""Calls to the customer center: the machine that answers, its menu, and who is told."""
