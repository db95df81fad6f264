"""What a stage learns from: crops of photos, stored pairs, drawings and words."""
