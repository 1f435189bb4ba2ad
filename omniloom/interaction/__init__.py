"""Room 3: what acts inside the language model's layers."""
