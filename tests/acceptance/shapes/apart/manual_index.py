"""Stands for what a program needs and a worker does not have: an index, in a package of its own."""

PASSAGES = {"toner": "Toner is in room 114.", "paper": "Tray 2 takes A4 paper only."}
