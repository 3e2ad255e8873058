"""Coefficients of methods, a module for each author; each function gives one record."""
