"""Strategies that answer a question with a model: one or many samples, or a tree of steps pruned by confidence."""
