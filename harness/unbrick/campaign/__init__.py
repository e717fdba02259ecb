"""The campaign: a search over power cuts, torn operations and link faults, and its verdict."""
