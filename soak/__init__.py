"""Run meters with everything going wrong, and see that only true energies come out."""
