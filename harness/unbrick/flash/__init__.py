"""A flash as data: images, operations carried out on them, torn operations, canonical forms."""
