"""Measurements that end up in the README: how accurate, how fast."""
