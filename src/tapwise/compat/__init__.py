"""Other libraries' call signatures on this engine."""
