"""The same statements over a workspace on a disk and over the cache: Python must say the same."""
