"""What is worked out once of a picture's tables, for every question."""
