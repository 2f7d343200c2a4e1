"""Tests in which several rooms and real servers meet."""
