"""The store: tables, transitions and queries. Every function takes a connection; none commits."""
