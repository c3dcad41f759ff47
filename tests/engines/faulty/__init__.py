"""An engine that does what it should not: its model's config says what (`fault`), and in which phase (`fault_phase`).

It is registered as docs/adding.md says of an engine that is not shipped, by `VRAM_BENCH_ENGINES=faulty`, with this
folder's parent on PYTHONPATH (`tests/faulty_program.py`).
"""
