"""What the kernel shows of itself in /proc and /sys, and the calls that ask it. No judgement."""
