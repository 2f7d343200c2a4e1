"""Tests of the chain room."""
