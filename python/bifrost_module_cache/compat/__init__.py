"""Drop-ins for the specification's two Python files: a platform changes one import line each."""
