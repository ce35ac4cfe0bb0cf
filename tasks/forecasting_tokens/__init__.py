"""Forecasting by tokens: the next day of a series, hour by hour, each a quantised token."""
