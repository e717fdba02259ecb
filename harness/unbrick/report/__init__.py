"""Reports of a campaign: one result model, and every format that is written from it."""
