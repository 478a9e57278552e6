"""What any long run needs: options, whole files or none, a second run refused, ranks, progress, clocks."""
