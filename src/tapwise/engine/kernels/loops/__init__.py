"""What compiled loops share: jobs, memory, and vectors."""
