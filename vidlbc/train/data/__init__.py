"""What training draws from: pictures and windows of frames, kept in memory as uint8."""
