"""Access to the store: group commit, its operations, reading, and the check of the schema."""
