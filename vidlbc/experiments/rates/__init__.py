"""What one model for all QPs costs against models for one."""
