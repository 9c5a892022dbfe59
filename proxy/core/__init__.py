"""Pure code: same input, same output; no socket, file, clock, environment, randomness or log."""
