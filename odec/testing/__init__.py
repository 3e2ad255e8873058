"""Checks of a user's own model, and random models for property-based tests."""

from odec.testing.check import CheckReport, Comparison, check_model
from odec.testing.random_models import RandomModel, fitted, models

__all__ = ["CheckReport", "Comparison", "RandomModel", "check_model", "fitted", "models"]
