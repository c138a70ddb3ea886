"""Pictures of plans, measurements and clips."""
