"""What can be trained: each kind of stage, and the networks it builds."""
