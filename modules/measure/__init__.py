"""What clips and attentions are like, in numbers."""
