"""Choosing and comparing: what fits, which variant is best, what each precision costs."""
