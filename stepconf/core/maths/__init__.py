"""Mathematics in text: one grammar of tokens, trees and forms, and what decides about them."""
