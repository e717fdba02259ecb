"""Reports of a campaign: one result model, and everything that is written from it."""
