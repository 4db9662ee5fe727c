"""Figures, tables and pages. Figures go into files, so no window is needed, unless the user chose a backend."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")  # Jupyter sets its own, and keeps it
