"""`make prove`: faults at random moments under mixed traffic, and a count of what came of it."""
