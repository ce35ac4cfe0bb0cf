"""Engines that several mechanisms are made of; nothing here is an entry."""
