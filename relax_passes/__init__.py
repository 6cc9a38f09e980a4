"""Relax passes: pure IRModule -> IRModule rewrites that know no device, no file and no model name."""
