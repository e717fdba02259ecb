"""Drafts a target's file: what firmware files, and one start of them, tell by themselves."""
