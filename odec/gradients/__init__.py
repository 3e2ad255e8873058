"""Derivatives of a solve: of its rows by what it was given."""
