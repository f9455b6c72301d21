"""What a person sees in a terminal: lines, bars and tables."""
