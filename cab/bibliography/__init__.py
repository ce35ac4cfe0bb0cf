"""What to cite: papers, the suite and its data, as BibTeX."""
