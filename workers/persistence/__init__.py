"""What is written to the store, and read from it: group commit, its operations, the schema."""
