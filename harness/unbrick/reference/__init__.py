"""Our terminal with its server, as one target of the campaign."""
