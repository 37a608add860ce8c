"""The process and its machine: files written whole, signals, locks, devices, memory, printable text."""
