"""Forecasts are tested over what plans are tested over."""

from tests.config.conftest import *  # noqa: F403
