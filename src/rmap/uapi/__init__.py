"""The kernel's numbers, each said once: what programs, /proc and the recorder hand over."""
