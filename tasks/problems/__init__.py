"""Problems that several tasks pose, each with what its answers are graded against."""
