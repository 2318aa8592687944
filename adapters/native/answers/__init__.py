"""Parses the answers of LMs: sections, drafts, values, and finish reasons."""
