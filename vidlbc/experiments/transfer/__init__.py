"""What a model that learned to compress brings to other tasks (Xie et al., arXiv 2105.13978, section 3.4)."""
