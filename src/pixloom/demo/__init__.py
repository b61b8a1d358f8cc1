"""The demo: photographs from two wheels, broken and doubled on purpose, through the photo-catalog workflow."""
