"""What `import stepconf` gives, by what it works on: text, a model, or runs on disk."""
