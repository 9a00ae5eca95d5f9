"""What can be seen of a study while it goes on: at the coordinator, and at an institution."""
