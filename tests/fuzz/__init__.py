"""Fuzz targets for atheris, one per parser: `python -m tests.fuzz.fuzz_suite2 bundle -max_total_time=60`."""
