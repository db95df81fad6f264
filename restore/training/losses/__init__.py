"""What a stage is corrected by."""
