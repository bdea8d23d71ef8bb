"""What makes every sweep go on to its end, whatever its sweeper and its launcher."""
