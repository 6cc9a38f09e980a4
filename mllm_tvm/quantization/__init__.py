"""How linears are quantized: statistics, clipping scales, pruning, baselines, rotation."""
