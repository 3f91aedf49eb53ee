"""Processes and signals: who starts them, how they meet, and what ends them."""
