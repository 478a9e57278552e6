"""The source papers' systems as studies: train, code, measure, one table each. See docs/ for claims and figures."""
