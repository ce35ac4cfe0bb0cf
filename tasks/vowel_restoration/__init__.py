"""Vowel restoration: text without its vowels to the text."""
