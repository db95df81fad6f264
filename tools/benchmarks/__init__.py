"""What `tools/benchmark.py` runs: ours beside its peers, in one process, taking turns."""
