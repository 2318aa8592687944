"""What an LM wrote, read: sections, drafts, values, and whether it is an answer at all."""
