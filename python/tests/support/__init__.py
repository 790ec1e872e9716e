"""Servers and workspaces of the tests' own."""
