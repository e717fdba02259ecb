"""The customer center: calls and their menu, text messages, and the operators' page."""
