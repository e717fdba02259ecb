"""The customer center's page."""
