"""What hide_windows is tested and timed on: workloads of occlusion, and shapes that trip kernels."""
