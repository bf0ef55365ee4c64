"""The door: copies of third-party environments in arrays, in this process or in workers; vmas alone needs torch."""
