"""What a target is: kernels, schedules, toolchain and device sessions."""
