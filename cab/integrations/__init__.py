"""Attentions of the registry inside other libraries' models."""
