"""Frameworks' own suites, run against our classes: what `make test-integrations` does besides our tests."""
